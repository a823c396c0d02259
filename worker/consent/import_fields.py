"""Reading the fields of one imported line: old and new names, durations and instants; pure.

TikTok's answers of several years name the same things differently (`creator_id`, `expires`, `refresh_expires`; then
`open_id`, `expires_in`, `refresh_token_expires_in`), and so do the files that were made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from worker.policy.renewal import UNKNOWN_LIFE
from worker.vault import Token

LONGEST_TOKEN: Final = 8_192
TOKEN_STARTS: Final = ("act.", "rft.")
LONGEST_CREATOR_ID: Final = 128
LONGEST_ACCESS_LIFE: Final = timedelta(days=366)
LONGEST_REFRESH_LIFE: Final = timedelta(days=3_660)
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
OLDEST: Final = datetime(2016, 9, 1, tzinfo=UTC)
"""Before this there was no TikTok, so an earlier instant is a mistake."""
_MILLISECONDS_FROM: Final = 100_000_000_000

CREATOR: Final = ("creator_id", "open_id", "business_id")
LIFE: Final = ("expires_in", "expires", "access_token_expires_in")
REFRESH_LIFE: Final = ("refresh_token_expires_in", "refresh_expires_in", "refresh_expires")
ISSUED_AT: Final = ("issued_at", "created_at", "obtained_at")
EXPIRES_AT: Final = ("expires_at", "access_token_expires_at")
REFRESH_EXPIRES_AT: Final = ("refresh_token_expires_at", "refresh_expires_at")


class BadLineError(Exception):
    """A line cannot be imported; the text names fields and never their content."""


@dataclass(frozen=True)
class ImportedPair:
    """One line's pair with its dates.

    Attributes:
        age_known: False where the line told neither when the pair was issued nor when it ends.
        dated: True where the line told when the pair was issued: an issue time, or an end and a life.
    """

    creator_id: str
    access_token: Token
    refresh_token: Token
    scope: str
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    age_known: bool
    dated: bool


def read_pair(fields: Mapping[str, Any], now: datetime) -> ImportedPair:
    """Return what a line's fields say; names that are unknown here are ignored.

    A pair whose line tells no issue time and no end is taken as issued now, with its age marked as unknown.
    A time without a zone is UTC.

    Raises:
        BadLineError: which field is wrong and how.
    """
    life = _seconds(fields, LIFE, LONGEST_ACCESS_LIFE)
    issued_at = _instant(fields, ISSUED_AT)
    expires_at = _instant(fields, EXPIRES_AT)
    if issued_at is not None and issued_at > now + CLOCK_TOLERANCE:
        raise BadLineError("the issue time lies in the future")
    age_known = issued_at is not None or expires_at is not None
    dated = issued_at is not None or (expires_at is not None and life is not None)
    if issued_at is None:
        issued_at = now if expires_at is None else min(now, expires_at - (life or UNKNOWN_LIFE))
    if expires_at is None:
        expires_at = issued_at + (life or UNKNOWN_LIFE)
    if expires_at <= issued_at:
        raise BadLineError("the access token ends before it was issued")
    if expires_at - issued_at > LONGEST_ACCESS_LIFE:
        raise BadLineError("the access token's life is longer than a year")
    refresh_expires_at = _instant(fields, REFRESH_EXPIRES_AT)
    refresh_life = _seconds(fields, REFRESH_LIFE, LONGEST_REFRESH_LIFE)
    if refresh_expires_at is None and refresh_life is not None:
        refresh_expires_at = issued_at + refresh_life
    if refresh_expires_at is not None and refresh_expires_at <= now:
        raise BadLineError("the refresh token has ended; the creator must authorize again")
    creator_id, scope = _creator_id(fields), _scope(fields.get("scope"))
    access_token, refresh_token = _token(fields, "access_token"), _token(fields, "refresh_token")
    _refuse_tokens_elsewhere(creator_id, scope, access_token, refresh_token)
    return ImportedPair(
        creator_id=creator_id,
        access_token=access_token,
        refresh_token=refresh_token,
        scope=scope,
        issued_at=issued_at,
        access_expires_at=expires_at,
        refresh_expires_at=refresh_expires_at,
        age_known=age_known,
        dated=dated,
    )


def _pick(fields: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, Any] | None:
    """Return name and value of the first of these fields that is there and not empty."""
    return next(((name, fields[name]) for name in names if _is_there(fields.get(name))), None)


def _creator_id(fields: Mapping[str, Any]) -> str:
    found: set[str] = set()
    for name in CREATOR:
        value = fields.get(name)
        if not _is_there(value):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadLineError(f"{name} is not a text")
        found.add(str(value).strip())
    if not found:
        raise BadLineError("creator_id (or open_id, business_id) is missing")
    if len(found) > 1:
        raise BadLineError("creator_id, open_id and business_id differ")
    creator_id = found.pop()
    if not creator_id or len(creator_id) > LONGEST_CREATOR_ID or not _is_plain(creator_id):
        raise BadLineError(f"the creator's id is not 1 to {LONGEST_CREATOR_ID} plain characters")
    return creator_id


def _token(fields: Mapping[str, Any], name: str) -> Token:
    value = fields.get(name)
    if not _is_there(value):
        raise BadLineError(f"{name} is missing")
    if not isinstance(value, str):
        raise BadLineError(f"{name} is not a text")
    text = value.strip()
    if not text or len(text) > LONGEST_TOKEN or not _is_plain(text):
        raise BadLineError(f"{name} is not 1 to {LONGEST_TOKEN} plain characters")
    return Token(text)


def _refuse_tokens_elsewhere(creator_id: str, scope: str, *tokens: Token) -> None:
    """Refuse a line with a token where a creator or a scope is wanted: those are stored and shown as they are."""
    for name, text in (("the creator's id", creator_id), ("scope", scope)):
        parts = text.split(",")
        if any(part.startswith(TOKEN_STARTS) or Token(part) in tokens for part in parts if part):
            raise BadLineError(f"{name} looks like a token; two columns may have changed places")


def _is_there(value: object) -> bool:
    return value is not None and value != ""


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _scope(value: object) -> str:
    if not _is_there(value):
        return ""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) and _is_plain(part) for part in parts):
        raise BadLineError("scope is neither a text nor a list of texts")
    return ",".join(sorted(set(parts)))


def _seconds(fields: Mapping[str, Any], names: tuple[str, ...], longest: timedelta) -> timedelta | None:
    picked = _pick(fields, names)
    if picked is None:
        return None
    seconds = _number(picked[1])
    if seconds is None or not 0 < seconds <= longest.total_seconds():
        raise BadLineError(f"{picked[0]} is not a number of seconds from 1 to {longest.days} days")
    return timedelta(seconds=seconds)


def _instant(fields: Mapping[str, Any], names: tuple[str, ...]) -> datetime | None:
    picked = _pick(fields, names)
    if picked is None:
        return None
    name, value = picked
    number = _number(value)
    if number is not None:
        if number >= _MILLISECONDS_FROM:
            raise BadLineError(f"{name} looks like milliseconds; seconds since 1970 or ISO 8601 are taken")
        instant = datetime.fromtimestamp(max(number, 0), tz=UTC)
    else:
        try:
            instant = datetime.fromisoformat(value.strip())
            instant = (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, AttributeError, OverflowError):
            raise BadLineError(f"{name} is neither ISO 8601 nor seconds since 1970") from None
    if instant < OLDEST:
        raise BadLineError(f"{name} lies before {OLDEST.year}")
    return instant


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
