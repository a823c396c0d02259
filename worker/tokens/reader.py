"""Reading the current access token of a creator: the database and the keyring are all it needs.

A token that does not do, because it ends too soon or TikTok refused it, makes its grant due in the database; the next
scan finds it there. The reader waits for the new pair by reading again. Many readers make one grant due once.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from worker.errors import (
    EvertokenError,
    ExpiredError,
    HeldError,
    PausedError,
    ReauthNeededError,
    StoreRefusedError,
    UsageError,
    ValidityError,
)
from worker.policy import wording
from worker.reading import POOL_SIZE, PerProcess, Reading
from worker.settings import ReaderSettings, load
from worker.store import GrantStatus, ServedPair, Store
from worker.tokens import WAIT_SECONDS
from worker.vault import PairPlace, Sealer, Token

SETTLED_SHARE: Final = 1 / 50
"""The first part of the life of a pair that a refresh brought, in which readers cause no other refresh: half an hour of
24 hours. A reader that refuses each token, or asks for more than they have, must not spend the quota."""
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class ServedToken:
    """An access token with what its user needs to know of it.

    Attributes:
        expires_at: when TikTok stops taking it.
        consent: number of the creator's consent.
        generation: number of the pair, for a report that TikTok refused it; a later pair has a higher one.
        grant_id: number of the grant.
        seconds_left: how long TikTok still takes it, on the database's clock at the time of the read.
    """

    creator_id: str
    access_token: Token
    expires_at: datetime
    consent: int
    generation: int
    grant_id: int
    seconds_left: float


class TokenReader:
    """Reads and opens current access tokens; safe to share between threads."""

    def __init__(self, *, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    def serve(
        self,
        creator_id: str,
        *,
        min_validity: float = 0,
        newer_than: int | None = None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> ServedToken:
        """Return the creator's access token; arguments and errors are those of `worker.tokens.access_token`."""
        _refuse_no_number(min_validity)
        deadline, pause = time.monotonic() + wait_seconds, FIRST_PAUSE_SECONDS
        while True:
            pair = self._store.served_pair(creator_id)
            lack = _lack(pair, min_validity, newer_than)
            if not lack:
                return self._open(pair)
            self._refuse_paused(creator_id, lack)
            until_try = max(0.0, (pair.coming_at - pair.now).total_seconds())
            try:
                if _may_ask(pair):
                    # Where another reader was first, or a pair has come, this changes nothing, and the next look tells.
                    self._store.request_refresh_of(pair)
                    until_try = 0.0
            except StoreRefusedError as error:
                lack = f"{lack}; a refresh could not be asked for: {error}"
            left = deadline - time.monotonic()
            if not left > until_try:
                raise ExpiredError(lack, retry_after=max(1.0, until_try))
            time.sleep(min(left, pause * (0.5 + random.random())))  # noqa: S311 - spreads, hides nothing
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)

    def at_hand(
        self, pair: ServedPair, *, min_validity: float = 0, newer_than: int | None = None
    ) -> ServedToken | None:
        """Return the token of a pair that was just read; None if it does not do, and `serve` tells why."""
        with suppress(EvertokenError):
            if not _lack(pair, min_validity, newer_than):
                return self._open(pair)
        return None

    def access_token(self, creator_id: str, *, min_validity: float = 0, wait_seconds: float = WAIT_SECONDS) -> Token:
        """Return the creator's access token alone; arguments and errors are those of `serve`."""
        return self.serve(creator_id, min_validity=min_validity, wait_seconds=wait_seconds).access_token

    def close(self) -> None:
        """Close this process's connections to the database; the next read opens others."""
        self._store.close()

    def report_rejected(self, creator_id: str, generation: int) -> bool:
        """Report that TikTok refused an access token; a refresh is then due, unless a later pair is current already.

        Args:
            creator_id: the creator, as TikTok's `open_id`.
            generation: that of the refused token.

        Returns:
            True if this report made the grant due. False if the report is stale, a refresh has just brought this pair,
            or one is due, under way, paused or put off after a failure.

        Raises:
            UsageError: this generation has not come yet.
            UnknownCreatorError, RevokedError, LostError, HeldError, ReauthNeededError: no refresh will bring another.
            StoreUnavailableError: the database does not answer, or this role may not ask for a refresh.
        """
        pair = self._store.served_pair(creator_id)
        lack = _lack(pair, 0, generation)
        if not lack or pair.generation != generation or not _may_ask(pair):
            return False
        if self._paused_since(creator_id) is not None:
            return False
        return self._store.request_refresh_of(pair)

    def _refuse_paused(self, creator_id: str, lack: str) -> None:
        """Refuse to wait for a refresh that a pause forbids.

        Raises:
            PausedError: the grant is paused.
        """
        since = self._paused_since(creator_id)
        if since is not None:
            raise PausedError(f"{lack}; the grant is {wording.paused(since)}")

    def _paused_since(self, creator_id: str) -> datetime | None:
        with suppress(StoreRefusedError):  # this role may not read pauses: then the refresh does not come in time
            return self._store.paused_since(creator_id)
        return None

    def _open(self, pair: ServedPair) -> ServedToken:
        place = PairPlace(creator_id=pair.creator_id, consent=pair.consent, generation=pair.generation)
        token = self._sealer.open_access_token(pair.sealed_access, place)
        return ServedToken(
            creator_id=pair.creator_id,
            access_token=token,
            expires_at=pair.access_expires_at,
            consent=pair.consent,
            generation=pair.generation,
            grant_id=pair.grant_id,
            seconds_left=(pair.access_expires_at - pair.now).total_seconds(),
        )


def open_reader(environ: Mapping[str, str] | None = None, *, dotenv: Path | None = None) -> TokenReader:
    """Return a reader; see `worker.tokens.open_reader`."""
    reading = Reading(load(ReaderSettings, environ, dotenv=dotenv), pool_size=POOL_SIZE)
    return TokenReader(store=reading.store, sealer=reading.sealer)


SHARED: Final = PerProcess(open_reader)
"""The reader of this process, with the settings of its environment."""


def _refuse_no_number(min_validity: float) -> None:
    if not (math.isfinite(min_validity) and min_validity >= 0):
        raise ValidityError(f"min_validity is a number of seconds, 0 or more, and not {min_validity}")


def _may_ask(pair: ServedPair) -> bool:
    """Return False if the grant is due or being refreshed, waits after a failure, or was refreshed a moment ago."""
    life, age = pair.access_expires_at - pair.issued_at, pair.now - pair.issued_at
    fresh = pair.refreshed and age < life * SETTLED_SHARE
    return not (fresh or pair.failing or pair.coming_at <= pair.now)


def _lack(pair: ServedPair, min_validity: float, newer_than: int | None) -> str:
    """Return in words why this pair does not do, and an empty text if it does.

    Raises:
        HeldError, ReauthNeededError, ValidityError, UsageError: it does not, and waiting does not help.
    """
    text = f"the access token of creator {pair.creator_id}"
    if pair.belongs_to is not None:
        raise HeldError(
            f"the pair imported for creator {pair.creator_id} is creator {pair.belongs_to}'s, as TikTok says; import "
            f"the right one with `grants import --replace`"
        )
    if newer_than is not None and newer_than > pair.generation:
        raise UsageError(f"{text} has generation {pair.generation}, and {newer_than} has not come yet")
    life = (pair.access_expires_at - pair.issued_at).total_seconds()
    if pair.refreshed and min_validity > max(life, 0):
        raise ValidityError(f"{text} lives {life:.0f} s, less than the {min_validity:g} s asked for")
    seconds = (pair.access_expires_at - pair.now).total_seconds()
    if seconds <= 0:
        lack = f"{text} ended {-seconds:.0f} s ago"
    elif seconds <= min_validity:
        lack = f"{text} has {seconds:.0f} s left, less than the {min_validity:g} s asked for"
    elif newer_than == pair.generation:
        lack = f"{text} was refused by TikTok, as reported, and no newer one has come"
    else:
        return ""
    if pair.status is GrantStatus.NEEDS_REAUTH:
        raise ReauthNeededError(f"{lack}; the creator must authorize again")
    return lack
