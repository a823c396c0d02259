"""Authorizing: make a consent link, and turn the pasted redirect into a stored grant."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from worker.consent.exchanges import Exchanges, OtherAccountError
from worker.consent.redirect import read_redirect
from worker.consent.state import ASK_AGAIN, LinkError, LinkProblem, refuse_bad_state
from worker.errors import (
    ConfigurationError,
    JournalError,
    NotReadyError,
    StoreUnavailableError,
    TikTokError,
    WaitError,
)
from worker.ground import Ground
from worker.journal import RecordId
from worker.links import ConsentLinks, handle_of
from worker.records import entry_of_exchange
from worker.store import ConsentLink, GrantView
from worker.telemetry import Fact
from worker.tiktok import EXCHANGE_CALL, RawAnswer, bears_refresh_token
from worker.vault import Token

LONGEST_WAIT_SECONDS: Final = 5.0
"""How long an exchange waits for a permit of the quota."""


class KeptForLaterError(NotReadyError):
    """A pair came, the database did not take it, and the journal has it: a worker will store it."""


class Authorizer:
    """Begins and stores a creator's consent.

    Args:
        ground: what all use cases share.
        exchanges: stores consents.
        redirect_uri: where TikTok sends the browser; a pasted address must be this one.
        scopes: the scopes that the link asks for; the creator may grant fewer.
        state_seconds: life of a link.
        page: the desk's address, if links lead there first.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        exchanges: Exchanges,
        redirect_uri: str,
        scopes: Sequence[str],
        state_seconds: int,
        page: str | None = None,
    ) -> None:
        self._ground = ground
        self._exchanges = exchanges
        self._redirect_uri = redirect_uri
        self._links = ConsentLinks(ground.store, ground.tiktok, scopes=scopes, page=page)
        self._state_seconds = state_seconds

    def url(
        self, *, reference: str | None = None, creator_id: str | None = None, life_seconds: float | None = None
    ) -> str:
        """Return a consent link that works once, until it expires.

        Args:
            life_seconds: for how long; the setting's time by default.
            reference: the operator's own name for the creator; it is stored with the grant.
            creator_id: the only creator whose consent is accepted; None for any.

        Raises:
            ConfigurationError: the keyring is for readers, so no answer could be stored.
            StoreUnavailableError: the database did not take the link.
        """
        self._refuse_readers_keyring()
        return self._links.make(
            life_seconds=life_seconds or self._state_seconds, reference=reference, creator_id=creator_id
        )

    def exchange(self, redirect_url: str) -> GrantView:
        """Turn a pasted redirect into a grant.

        The database and the journal are checked first, so that no code is spent whose pair could not be kept.

        Raises:
            LinkError: the state is wrong; nothing was sent.
            ConsentRefusedError: TikTok's page refused; nothing was sent.
            UsageError: the redirect cannot be read; nothing was sent.
            OtherAccountError: another creator agreed than the one the link was for; the pair is set aside.
            KeptForLaterError: the database went away after the pair came; the journal has the pair.
            NotReadyError: the database does not answer; nothing was sent.
            JournalError: the journal cannot take the answer; nothing was sent.
            TikTokError: the exchange did not succeed.
        """
        self._refuse_readers_keyring()
        redirect = read_redirect(redirect_url, expected=self._redirect_uri)
        handle = handle_of(redirect.state)
        link = refuse_bad_state(redirect.state, self._ground.store.link(handle))
        self._ground.journal.ready()
        self._permit()
        if not self._ground.store.take_link(handle):
            text = f"the link was used a moment ago, and each link works once; {ASK_AGAIN}"
            raise LinkError(text, LinkProblem.USED)
        sent_at, began = self._ground.store.ping(), time.monotonic()
        try:
            raw = self._ground.tiktok.send_exchange(Token(redirect.code))
            record = self._keep(raw, handle, sent_at, time.monotonic() - began)
            return self._store_answer(raw, record, sent_at, link)
        except TikTokError:
            # No pair came. A code works once at TikTok, so pasting the redirect again does no harm.
            with suppress(StoreUnavailableError):
                self._ground.store.free_link(handle)
            raise

    def _refuse_readers_keyring(self) -> None:
        if self._ground.sealer.keyring.for_readers:
            raise ConfigurationError("a reader's keyring stores no consents; use the keyring of the workers")

    def _store_answer(self, raw: RawAnswer, record: RecordId | None, sent_at: datetime, link: ConsentLink) -> GrantView:
        try:
            grant = self._exchanges.store(raw, sent_at=sent_at, link=link)
        except StoreUnavailableError:
            kept = "is kept in the journal, and a worker will store it" if record else "could not be kept anywhere"
            text = f"the pair came, but the database did not take it; it {kept}"
            raise (KeptForLaterError(text) if record else NotReadyError(text)) from None
        except OtherAccountError:
            self._release(record, unread=True)
            raise
        except TikTokError as error:
            self._pause_if_spent(error)
            self._release(record, unread=bears_refresh_token(raw))
            raise
        self._release(record)
        return grant

    def _pause_if_spent(self, error: TikTokError) -> None:
        """Pause the whole app if TikTok says that a quota is spent."""
        if isinstance(error, WaitError):
            self._ground.limiter.punish(error.scope, error.seconds)

    def _permit(self) -> None:
        """Take a permit of the quota; wait only a little, since a person waits at the terminal."""
        wait = self._ground.limiter.admit(
            lane="refresh", call=EXCHANGE_CALL, account="authorize", patience_seconds=LONGEST_WAIT_SECONDS
        )
        if wait:
            raise NotReadyError(f"the quota is spent; nothing was sent, try again in {wait:.0f} s")

    def _keep(self, raw: RawAnswer, handle: str, sent_at: datetime, seconds: float) -> RecordId | None:
        """Append the answer to the journal; a journal that fails only now must not cost the received pair."""
        if not raw.body:
            return None
        try:
            return self._ground.journal.append(entry_of_exchange(raw, handle, sent_at=sent_at, seconds=seconds))
        except Exception:  # noqa: BLE001 - a pair may have been received: the database gets it, whatever fails here
            self._ground.hook(Fact("journal.append_failed", {"owner": self._ground.owner}, level="error"))
            return None

    def _release(self, record: RecordId | None, *, unread: bool = False) -> None:
        """Release a record; if it holds a refresh token that was not stored, set it aside for a person."""
        if record is None:
            return
        if not unread:
            self._ground.journal.release(record)
            return
        with suppress(JournalError):  # then it waits in the journal, and its replay tries again
            self._ground.journal.set_aside(record)
        self._ground.hook(Fact("authorize.unread", {"owner": self._ground.owner}, level="error"))
