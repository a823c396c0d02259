"""How long a spent quota asks us to wait, and which quota it was.

TikTok recovers from its limit per second in the next second, from the one per minute after a suspension of five
minutes, and from the one per day at 00:00 UTC (official doc 1740029171730433). It documents no Retry-After header;
where one comes it is honoured within bounds. A spent day is asked about every hour until it is over: an answer that
was counted to the day before, or a clock that is wrong, must not cost a whole day.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from worker.errors import QuotaScope

SECOND_WAIT: Final = 1.0
MINUTE_WAIT: Final = 300.0
ACCOUNT_WAIT: Final = 60.0
BUSY_WAIT: Final = 60.0
"""For HTTP 429 without a word on the limit and without a Retry-After that can be read."""

DAY_MARGIN: Final = 30.0
"""Seconds after midnight: TikTok's clock and ours differ a little."""
LEAST_WAIT: Final = 1.0
MOST_WAIT: Final = 3600.0
ACCOUNT_CODES: Final = frozenset({40132, 40133})

WORDS: Final[tuple[tuple[QuotaScope, re.Pattern[str]], ...]] = (
    ("second", re.compile(r"\bqps\b|per[ _-]second|/s\b", re.IGNORECASE)),
    ("minute", re.compile(r"\bqpm\b|per[ _-]minute|temporarily|restricted|/min", re.IGNORECASE)),
    ("day", re.compile(r"\bqpd\b|per[ _-]day|\bdaily\b|/day", re.IGNORECASE)),
)


def quota_wait(*, code: int, message: str, retry_after: str | None, now: datetime) -> tuple[QuotaScope, float]:
    """Judge an answer that says a quota is spent by its code.

    Args:
        code: TikTok's code, such as 40100.
        message: TikTok's message; the limit that it names first counts, and without one the limit per minute.
        retry_after: the Retry-After header; a longer wait than ours is honoured up to an hour.
        now: aware UTC.

    Returns:
        The broken limit and the seconds to wait.
    """
    scope: QuotaScope = "account" if code in ACCOUNT_CODES else (_named(message) or "minute")
    seconds = {"second": SECOND_WAIT, "minute": MINUTE_WAIT, "account": ACCOUNT_WAIT, "day": _until_midnight(now)}[
        scope
    ]
    return scope, max(seconds, header_seconds(retry_after, now) or 0.0)


def busy_wait(*, message: str, retry_after: str | None, now: datetime) -> tuple[QuotaScope, float]:
    """Judge HTTP 429: the header decides, within one second and one hour; without one, what the message names."""
    named = _named(message)
    seconds = header_seconds(retry_after, now)
    if seconds is not None:
        return named or "minute", seconds
    if named is None:
        return "minute", BUSY_WAIT
    return quota_wait(code=0, message=message, retry_after=None, now=now)


def header_seconds(text: str | None, now: datetime) -> float | None:
    """Read a Retry-After header, as seconds or as an HTTP date, clamped to one second and one hour; else None."""
    if text is None:
        return None
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        sane = text if len(text) <= len(str(MOST_WAIT)) else ("0" if text.startswith("-") else str(MOST_WAIT))
        return _clamped(float(sane))
    moment = _date(text)
    return None if moment is None else _clamped((moment - now).total_seconds())


def _clamped(seconds: float) -> float:
    return min(max(seconds, LEAST_WAIT), MOST_WAIT)


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _named(message: str) -> QuotaScope | None:
    found = [(match.start(), scope) for scope, words in WORDS if (match := words.search(message))]
    return min(found)[1] if found else None


def _until_midnight(now: datetime) -> float:
    """Return the seconds until the day is surely over, an hour at most."""
    today = now.astimezone(UTC)
    midnight = today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return min((midnight - today).total_seconds() + DAY_MARGIN, MOST_WAIT)
