"""How much TikTok permits an app to send, and the pace that stays below: pure arithmetic, in requests and seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SECOND: Final = 1.0
MINUTE: Final = 60.0
USE: Final = 0.97
"""Part of the permitted rate that is spent; the rest is room for requests that overtake each other on their way."""
SECOND_GUARD: Final = 0.028
"""How much longer our second is than TikTok's, as a part of it: requests sent a second apart may arrive in less."""
MINUTE_GUARD: Final = 0.03
BURST_SHARE: Final = 0.005
"""Part of a minute's permits that may be given at once to catch up after callers came late."""
ALONE_SHARE: Final = 0.7
"""Part of the quota that all workers together spend while none of them can ask Redis."""
LEAST_RAMP_SHARE: Final = 0.1
"""Part of the pace with which permits begin again after a pause."""


@dataclass(frozen=True)
class Tier:
    """One of TikTok's levels of an app (official doc 1740029171730433, and 1738084416214017 for the Accounts API).

    Attributes:
        per_second: requests of the whole app in a second.
        per_minute: requests of the whole app in a minute.
        per_day: requests of the whole app in a day.
        accounts_per_minute: requests to all endpoints of the Accounts API in a minute.
    """

    name: str
    per_second: int
    per_minute: int
    per_day: int
    accounts_per_minute: int


TIERS: Final = (
    Tier("Basic", 10, 600, 864_000, 600),
    Tier("Advanced", 20, 1200, 1_728_000, 1000),
    Tier("Premium", 30, 1800, 2_592_000, 1000),
    Tier("Ultimate", 50, 3000, 4_320_000, 1000),
)
HIGHEST: Final = TIERS[-1]


@dataclass(frozen=True)
class Pace:
    """The pace of permits that never overfills a sliding window of TikTok's.

    Attributes:
        interval: seconds between two permits in the long run.
        slack: seconds of lateness that permits may catch up by following each other closer.
    """

    interval: float
    slack: float


def sustained_rate(*, per_second: float, per_minute: float, second: float = SECOND, minute: float = MINUTE) -> float:
    """Return the requests a second that both limits permit in the long run."""
    return min(per_second / second, per_minute / minute)


def usable_rate(*, per_second: float, per_minute: float, second: float = SECOND, minute: float = MINUTE) -> float:
    """Return the requests a second that the limiter gives out in the long run.

    The limiter's second is a little longer than TikTok's, and its pace a little slower than the limits.
    """
    return USE * sustained_rate(per_second=per_second, per_minute=per_minute, second=second, minute=minute)


def pace_of(*, per_second: float, per_minute: float, second: float = SECOND, minute: float = MINUTE) -> Pace:
    """Return the pace for these limits.

    In any minute plus a jitter j there are at most `slack/interval + 1 + (minute + j)/interval` permits, which stays
    below the limit even if j is more than a second, at each of TikTok's tiers.

    Args:
        per_second: requests that TikTok permits in a second.
        per_minute: requests that TikTok permits in a minute.
        second: length of TikTok's second, in seconds; other than 1 in tests only.
        minute: length of TikTok's minute, in seconds; other than 60 in tests only.
    """
    interval = 1 / usable_rate(per_second=per_second, per_minute=per_minute, second=second, minute=minute)
    return Pace(interval, interval * math.floor(BURST_SHARE * per_minute))


def alone_interval(*, per_second: float, per_minute: float, workers: int, second: float, minute: float) -> float:
    """Return the seconds between two permits of one worker that cannot ask Redis.

    Args:
        per_second: requests that TikTok permits in a second.
        per_minute: requests that TikTok permits in a minute.
        workers: how many share the quota, as last known; 0 counts as 1.
        second: length of TikTok's second, in seconds.
        minute: length of TikTok's minute, in seconds.
    """
    rate = sustained_rate(per_second=per_second, per_minute=per_minute, second=second, minute=minute)
    return max(workers, 1) / (ALONE_SHARE * rate)


def ramp_share(*, since_pause: float, ramp: float) -> float:
    """Return the part of the pace that is permitted `since_pause` seconds after the end of a pause."""
    if ramp <= 0 or since_pause >= ramp:
        return 1.0
    return max(LEAST_RAMP_SHARE, since_pause / ramp)


def quota_problem(*, per_second: float, per_minute: float, sandbox: bool = False) -> str | None:
    """Return what is wrong with limits that a person gave, in a sentence, or None.

    Args:
        per_second: requests in a second.
        per_minute: requests in a minute.
        sandbox: True for the sandbox, whose limits may have any height.
    """
    for name, value, highest in (
        ("per second", per_second, HIGHEST.per_second),
        ("per minute", per_minute, HIGHEST.per_minute),
    ):
        if not math.isfinite(value) or value <= 0:
            return f"a quota of {value:g} requests {name} permits nothing: give TikTok's figure for the app's level"
        if value > highest and not sandbox:
            return (
                f"a quota of {value:g} requests {name} is above TikTok's highest level "
                f"({HIGHEST.name}: {HIGHEST.per_second} a second, {HIGHEST.per_minute} a minute)"
            )
    return None
