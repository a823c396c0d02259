"""Make the texts that TikTok hands out: tokens, codes, account ids and request ids."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Final

RANDOM_HEX_BYTES: Final = 24


class Mint:
    """Makes texts that look like TikTok's; none is ever made twice.

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
        """Make a request id: a UTC stamp (YYYYMMDDhhmmss) first, then noise."""
        return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime())}{secrets.token_hex(10).upper()}"


class Clock:
    """The sandbox's clock: the machine's, moved forward on request."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time() + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._ahead += seconds

    def today(self) -> datetime:
        """Return now as an aware UTC date and time."""
        return datetime.fromtimestamp(self.now(), UTC)
