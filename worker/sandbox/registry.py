"""What the sandbox knows of creators: their consents, codes and pairs, and the rules for when pairs are valid."""

from __future__ import annotations

import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from worker.sandbox.ledger import fingerprint
from worker.sandbox.options import SandboxOptions

RANDOM_HEX_BYTES: Final = 24


class Mint:
    """Makes tokens, codes and ids that look like TikTok's; none is ever made twice.

    Args:
        canary: letters and digits put into every token and code, or an empty text.
    """

    def __init__(self, canary: str) -> None:
        self._canary = canary

    def access_token(self) -> str:
        """Make an access token; they start with `act.`."""
        return f"act.{self._canary}{secrets.token_hex(RANDOM_HEX_BYTES)}!4821.va"

    def refresh_token(self) -> str:
        """Make a refresh token; they start with `rft.`."""
        return f"rft.{self._canary}{secrets.token_hex(RANDOM_HEX_BYTES)}!4821.va"

    def code(self) -> str:
        """Make an authorization code; it holds `*` and `!`, which a query must carry as %2A and %21."""
        return f"{self._canary}{secrets.token_urlsafe(RANDOM_HEX_BYTES)}*0!4821.va"

    def creator_id(self) -> str:
        """Make an account id, which is opaque text."""
        return f"-000{secrets.token_urlsafe(24)}"

    def request_id(self) -> str:
        """Make a request id: a UTC stamp (YYYYMMDDhhmmss), then random letters."""
        return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime())}{secrets.token_hex(10).upper()}"


class Clock:
    """The sandbox's clock: the machine's, or one that stands still; both are moved forward on request.

    Args:
        stands_at: where the clock stands until it is moved; None for the machine's.
    """

    def __init__(self, stands_at: datetime | None = None) -> None:
        self._stands_at = None if stands_at is None else stands_at.timestamp()
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return (time.time() if self._stands_at is None else self._stands_at) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds

    def today(self) -> datetime:
        """Return now as an aware UTC date and time."""
        return datetime.fromtimestamp(self.now(), UTC)


REMEMBERED_PAIRS: Final = 16
"""Pairs of one consent that are remembered, so that an expired or used token differs from an unknown one."""
REMEMBERED_CODES: Final = 100_000


@dataclass(slots=True, eq=False)
class IssuedPair:
    """An access and a refresh token as one answer brought them."""

    consent: Consent
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    access_expires_at: float
    expires_in: int
    fp_access: str
    fp_refresh: str
    access_dead: bool = False
    used_at: float | None = None
    used_answer: str | None = None
    successor: IssuedPair | None = None


@dataclass(slots=True, eq=False)
class Consent:
    """One consent of a creator; its refresh tokens end at a fixed time, which a refresh does not extend."""

    creator: Creator
    number: int
    scope: tuple[str, ...]
    refresh_expires_at: float
    alive: bool = True
    pairs: deque[IssuedPair] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Creator:
    """A TikTok account that consented at least once."""

    creator_id: str
    consents: list[Consent] = field(default_factory=list)
    refreshes: int = 0
    under_way: int = 0


@dataclass(slots=True)
class Code:
    """An authorization code that was handed out and not forgotten yet."""

    creator_id: str
    scope: tuple[str, ...]
    expires_at: float
    used: bool = False


class Registry:
    """All creators, codes and pairs of the app."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint
        self.creators: dict[str, Creator] = {}
        self._codes: dict[str, Code] = {}
        self._by_refresh: dict[str, IssuedPair] = {}
        self._by_access: dict[str, IssuedPair] = {}

    def new_code(self, creator_id: str, scope: tuple[str, ...], expires_at: float) -> str:
        """Hand out a code for a creator who has just consented."""
        if len(self._codes) >= REMEMBERED_CODES:
            self._codes.pop(next(iter(self._codes)))
        code = self._mint.code()
        self._codes[code] = Code(creator_id, scope, expires_at)
        return code

    def code(self, text: str) -> Code | None:
        """Find a code."""
        return self._codes.get(text)

    def by_refresh(self, token: str) -> IssuedPair | None:
        """Find the pair of a refresh token, used or not."""
        return self._by_refresh.get(token)

    def by_access(self, token: str) -> IssuedPair | None:
        """Find the pair of an access token, expired or not."""
        return self._by_access.get(token)

    def consent(
        self, creator_id: str, scope: tuple[str, ...], options: SandboxOptions, refresh_expires_at: float
    ) -> Consent:
        """Record a consent; the creator's older consents end if the options say so."""
        creator = self.creators.get(creator_id)
        if creator is None:
            creator = self.creators[creator_id] = Creator(creator_id)
        if options.reconsent == "kills":
            for older in creator.consents:
                older.alive = False
        consent = Consent(creator, len(creator.consents) + 1, scope, refresh_expires_at)
        creator.consents.append(consent)
        return consent

    def issue(self, consent: Consent, *, now: float, expires_in: int, refresh: str | None = None) -> IssuedPair:
        """Issue a pair under a consent.

        Args:
            consent: the consent.
            now: seconds since the epoch.
            expires_in: life of the access token in seconds.
            refresh: the refresh token to keep; None makes a new one.
        """
        access = self._mint.access_token()
        text = refresh or self._mint.refresh_token()
        pair = IssuedPair(consent, access, text, now + expires_in, expires_in, fingerprint(access), fingerprint(text))
        self._by_access[access] = self._by_refresh[text] = pair
        consent.pairs.append(pair)
        if len(consent.pairs) > REMEMBERED_PAIRS:
            self._forget(consent.pairs.popleft())
        return pair

    def refresh(self, old: IssuedPair, options: SandboxOptions, now: float) -> tuple[IssuedPair | None, bool]:
        """Refresh with the refresh token of `old`, whose consent is valid and has not ended.

        Returns:
            The pair of the answer, or None if the token is dead; and whether the pair was issued before.
        """
        in_grace = old.used_at is not None and options.rotation == "grace" and now - old.used_at < options.grace_seconds
        if old.used_at is not None and not in_grace:
            if options.reuse_revokes:
                old.consent.alive = False
            return None, False
        if in_grace and options.grace_answer == "same":
            known = old.successor
            return (known, True) if known is not None and known.used_at is None else (None, False)
        same = options.rotation == "same"
        new = self.issue(old.consent, now=now, expires_in=options.expires_in, refresh=old.refresh if same else None)
        if options.old_access == "dies":
            old.access_dead = True
        if not same:
            old.used_at = now if old.used_at is None else old.used_at
            old.successor = new
        old.consent.creator.refreshes += 1
        return new, False

    def revoke(self, creator_id: str) -> bool:
        """End every consent of a creator; False if there is no such creator."""
        creator = self.creators.get(creator_id)
        if creator is None:
            return False
        for consent in creator.consents:
            consent.alive = False
        return True

    def _forget(self, pair: IssuedPair) -> None:
        self._by_access.pop(pair.access, None)
        if self._by_refresh.get(pair.refresh) is pair:
            del self._by_refresh[pair.refresh]
