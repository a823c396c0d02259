"""The limiter's side in Redis: its keys, its scripts, and answers that are None or False where Redis gave none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import redis

from worker.limiter.address import connect
from worker.policy import quota

PREFIX: Final = "evertoken:limit:"
STATE: Final = f"{PREFIX}app"
SECOND: Final = f"{PREFIX}second"
EXPECTED: Final = f"{PREFIX}expected"
WORKERS: Final = f"{PREFIX}workers"
SILENT_SECONDS: Final = 3.0
"""After so long without a word a worker may be one that cannot reach Redis, and its share is left to it."""
FORGET_SECONDS: Final = 60.0
QUIET_SECONDS: Final = 2.0
"""No permits after Redis came back: longer than a second of TikTok's, and than any worker takes to find back."""
LEAD_SECONDS: Final = 0.4
"""How far ahead the moment of a permit may be."""
HORIZON_SECONDS: Final = 5.0
"""How far ahead the denied are told places in the queue."""
EXPECTATION_SECONDS: Final = 30.0
KEEP_SECONDS: Final = 90_000.0
"""Life of the state after its last use: longer than the longest pause."""
GUARD_STEP: Final = 0.05
GUARD_MOST: Final = 1.0
GUARD_LIFE_SECONDS: Final = 3600.0
"""A broken second lengthens ours by GUARD_STEP, up to GUARD_MOST in all; that fades within this time."""


@dataclass(frozen=True)
class Windows:
    """TikTok's limits and the lengths of their windows; lengths other than TikTok's are for tests.

    Attributes:
        per_second: requests of the app in a second.
        per_minute: requests of the app in a minute.
        per_account_minute: requests in a minute for one account on one call.
        second: seconds of a second.
        minute: seconds of a minute.
    """

    per_second: float
    per_minute: float
    per_account_minute: int
    second: float = quota.SECOND
    minute: float = quota.MINUTE


@dataclass(frozen=True)
class Answer:
    """What Redis said to who asked for a permit.

    Attributes:
        wait: 0 for a permit, or seconds.
        epoch: which life of Redis's memory answered.
        pause: seconds for which nobody is permitted anything; 0 for not.
        permit: names the permit, where there is one.
        lead: seconds until the moment that the permit is for.
    """

    wait: float
    epoch: str
    pause: float
    permit: str
    lead: float


@dataclass(frozen=True)
class Roster:
    """Who shares the quota.

    Attributes:
        workers: how many processes.
        place: one's own among them, from 0.
    """

    workers: int
    place: int


@dataclass(frozen=True)
class LimiterStatus:
    """How the limiter stands, for people.

    Attributes:
        shared: True where Redis answers; False where this process keeps to its own share.
        workers: processes that share the quota, as last known.
        paused_seconds: how long nothing is permitted because TikTok said that a limit was broken; 0 for not.
        usable_per_second: requests a second that the limiter gives out at its full pace.
    """

    shared: bool
    workers: int
    paused_seconds: float
    usable_per_second: float


class Shared:
    """Redis, as the limiter speaks to it; never raises for Redis's sake."""

    def __init__(self, url: str, windows: Windows, *, reserve_seconds: float) -> None:
        """Make one; it connects at its first use.

        Args:
            url: as in the setting.
            windows: TikTok's limits.
            reserve_seconds: within which time the refreshes expected are to be sent.
        """
        pace = quota.pace_of(
            per_second=windows.per_second,
            per_minute=windows.per_minute,
            second=windows.second,
            minute=windows.minute,
        )
        self._second_limit = max(1, int(windows.per_second))
        self._second_window = _micro(windows.second * (1 + quota.SECOND_GUARD))
        self._figures: list[str | int | float] = [
            *(_micro(seconds) for seconds in (pace.interval, pace.slack)),
            self._second_limit,
            self._second_window,
            windows.per_account_minute,
            _micro(windows.minute * (1 + quota.MINUTE_GUARD)),
            *(_micro(seconds) for seconds in (QUIET_SECONDS, HORIZON_SECONDS, reserve_seconds)),
            quota.LEAST_RAMP_SHARE,
            _micro(GUARD_LIFE_SECONDS),
            round(KEEP_SECONDS * 1000),
            _micro(LEAD_SECONDS * windows.second),
        ]
        self._client = connect(url)
        self._permit, self._punish, self._depart, self._hello = (
            self._client.register_script(files(__package__).joinpath(name).read_text(encoding="utf-8"))
            for name in ("permit.lua", "punish.lua", "depart.lua", "hello.lua")
        )

    def permit(self, *, lane: str, call: str, account: str, epoch: str, was_alone: bool) -> Answer | None:
        """Ask for one permit; one round trip.

        Args:
            lane: `refresh` or `pull`.
            call: path of the call.
            account: whose call it is.
            epoch: which life of Redis's memory this process last spoke to; empty where none.
            was_alone: True where it gave permits of its own since.
        """
        keys = [STATE, SECOND, f"{PREFIX}account:{call}:{account}", EXPECTED]
        try:
            wait, answered, pause, permit, lead = self._permit(keys, [lane, epoch, int(was_alone), *self._figures])
        except (redis.RedisError, OSError):
            return None
        return Answer(int(wait) / 1e6, str(answered), int(pause) / 1e6, str(permit), int(lead) / 1e6)

    def hello(self, worker: str) -> Roster | None:
        """Say that a worker is there."""
        figures = [_micro(SILENT_SECONDS), _micro(FORGET_SECONDS), quota.ALONE_SHARE, round(KEEP_SECONDS * 1000)]
        try:
            workers, place = self._hello([STATE, WORKERS], [worker, *figures])
        except (redis.RedisError, OSError):
            return None
        return Roster(int(workers), int(place))

    def depart(self, permit: str) -> float | None:
        """Let a permit count from now on; return 0, or the seconds to wait before it is used."""
        try:
            return float(self._depart([SECOND], [permit, self._second_limit, self._second_window])) / 1e6
        except (redis.RedisError, OSError):
            return None

    def punish(self, *, seconds: float, ramp: float, widen: bool) -> bool:
        """Pause everyone.

        Args:
            seconds: for how long.
            ramp: how long permits then rise to the full pace, in seconds.
            widen: True where the second was broken: ours is lengthened.
        """
        figures = [
            *(_micro(each) for each in (seconds, ramp, GUARD_STEP if widen else 0.0, GUARD_MOST, GUARD_LIFE_SECONDS)),
            round(KEEP_SECONDS * 1000),
        ]
        return _answered(lambda: self._punish([STATE], figures))

    def expect(self, refreshes: int) -> bool:
        """Note how many refreshes are due."""
        return _answered(lambda: self._client.set(EXPECTED, max(refreshes, 0), px=round(EXPECTATION_SECONDS * 1000)))

    def answers(self) -> bool:
        """Return whether Redis answers."""
        return _answered(self._client.ping)

    def leave(self, worker: str) -> None:
        """Give a worker's share back."""
        _answered(lambda: self._client.zrem(WORKERS, worker))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _answered(command: Callable[[], object]) -> bool:
    try:
        command()
    except (redis.RedisError, OSError):
        return False
    return True


def _micro(seconds: float) -> int:
    return round(seconds * 1_000_000)
