"""When to renew: at a fraction of the life that TikTok gave, spread by a jitter that is drawn once and stored.

A grant's refreshes have a fixed period, so a fleet that is spread over one period stays spread. The first refresh after
a consent or an import is spread evenly over the whole period: the load of a thousand grants that come in one minute is
level within one life. Later refreshes deviate from the fraction by a small stretch that differs from grant to grant, so
that grants which an outage pushed together drift apart again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

GOLDEN_RATIO_FRACTION: Final = 0.6180339887498949
STRETCH: Final = 0.06
"""Width of the band, in parts of the life, over which grants of equal age are spread around `renew_at`."""
EMERGENCY_SHARE: Final = 0.1
"""The last part of an access token's life, in which back-off shrinks."""
DECORRELATION: Final = 7919
FLOOR: Final = timedelta(seconds=1)
UNKNOWN_LIFE: Final = timedelta(hours=1)
"""Life assumed for an access token whose answer gave none: short, so that the next answer soon gives one."""


@dataclass(frozen=True)
class Decision:
    """When to act next, and why, in words for a log or a timeline."""

    at: datetime
    reason: str


def draw_jitter(number: int) -> float:
    """Return the jitter of the grant with this number, in [0, 1); neighbouring numbers land far apart.

    Multiples of the golden ratio fill the interval more evenly than random draws, and give the same value again after a
    restart or a restore.
    """
    return (number * GOLDEN_RATIO_FRACTION) % 1.0


def first_refresh(
    *, issued_at: datetime, expires_at: datetime, now: datetime, renew_at: float, jitter: float
) -> Decision:
    """Return when a grant that has just been authorized or imported is refreshed first.

    Args:
        issued_at: start of the access token's life.
        expires_at: end of its life.
        now: the time of storing; a token may have been imported late in its life.
        renew_at: fraction of the life at which the renewal window begins.
        jitter: the grant's own number in [0, 1).
    """
    latest = next_refresh(issued_at=issued_at, expires_at=expires_at, renew_at=renew_at, jitter=jitter).at
    if latest <= now:
        return Decision(now, "the renewal window has begun already")
    return Decision(
        max(now + FLOOR, now + (latest - now) * jitter),
        "first refresh, spread over what is left before the window",
    )


def next_refresh(*, issued_at: datetime, expires_at: datetime, renew_at: float, jitter: float) -> Decision:
    """Return when a grant that has just been refreshed is due again.

    Args:
        issued_at: start of the access token's life.
        expires_at: end of it.
        renew_at: fraction of the life at which the renewal window begins.
        jitter: the grant's own number in [0, 1).
    """
    life = max(expires_at - issued_at, FLOOR)
    share = min(max(renew_at + STRETCH * (_second_draw(jitter) - 0.5), 0.0), 1.0 - EMERGENCY_SHARE)
    return Decision(issued_at + max(life * share, FLOOR), f"renewal window begins at {share:.0%} of the life")


def emergency_at(*, issued_at: datetime, expires_at: datetime) -> datetime:
    """Return when the emergency window of an access token begins."""
    return expires_at - (expires_at - issued_at) * EMERGENCY_SHARE


def _second_draw(jitter: float) -> float:
    """Return a number in [0, 1) that is not correlated with the jitter's place in the period.

    With the same draw for both, grants late in the first period would also have the longest periods, and each round
    would end with many grants at once.
    """
    return (jitter * DECORRELATION) % 1.0


def life_ends(*, issued_at: datetime, seconds: int | None) -> datetime:
    """Return when a life of this many seconds ends; None counts as `UNKNOWN_LIFE`."""
    return issued_at + (UNKNOWN_LIFE if seconds is None else timedelta(seconds=seconds))
