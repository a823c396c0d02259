"""A worker's own share of the quota, used while Redis does not answer."""

from __future__ import annotations

import math
from typing import Final

from worker.limiter.shared import Windows
from worker.policy import quota

LEAST_DISTANCE: Final = 0.75
"""Two permits of neighbouring turns are at least this part of a turn apart in time."""


class Alone:
    """Gives one permit a turn; the caller holds a lock.

    The workers' turns interleave: the time of day is cut into turns of the same length for all, and each worker's turn
    begins at its own offset. Workers whose clocks agree send one after the other; others are spread by chance.

    Attributes:
        entered: True between `enter` and `leave`.
        gave: True if it has given a permit since `enter`.
    """

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._not_before = math.inf
        self._last_at = self._wanted_until = -math.inf
        self._last_turn: float = math.nan
        self.entered = self.gave = False
        self._given: dict[str, list[float]] = {}

    def enter(self, *, not_before: float) -> None:
        """Begin to use the own share; the first permit comes after this time of the monotonic clock, in seconds."""
        self._not_before, self._last_turn, self.entered, self.gave = not_before, math.nan, True, False

    def leave(self) -> None:
        """Stop using the own share, because Redis answers again."""
        self.entered = self.gave = False

    def take(
        self, *, now: float, wall: float, lane: str, key: str, workers: int, place: int, ramp_share: float
    ) -> float:
        """Return 0 for a permit, or the seconds until one is likely.

        Args:
            now: monotonic seconds.
            wall: seconds since the epoch.
            lane: a pull waits for one turn after a refresh was denied.
            key: the account and the call.
            workers: how many share the quota, as last known.
            place: this worker's place among them, from 0.
            ramp_share: part of the pace that is permitted after a pause.
        """
        interval = quota.alone_interval(
            per_second=self._windows.per_second,
            per_minute=self._windows.per_minute,
            workers=workers,
            second=self._windows.second,
            minute=self._windows.minute,
        )
        start = place / max(workers, 1)
        turn = math.floor(wall / interval - start)
        if math.isnan(self._last_turn):
            self._last_turn = turn  # this turn has begun, so workers that lose Redis together start one after the other
        waits = [
            self._not_before - now,
            self._last_at + LEAST_DISTANCE * interval / ramp_share - now,
            self._account_wait(key, now, workers),
        ]
        if turn == self._last_turn:
            waits.append((turn + 1 + start) * interval - wall)
        if lane == "pull":
            waits.append(self._wanted_until - now)
        wait = max(waits)
        if wait > 0:
            if lane == "refresh":
                self._wanted_until = now + wait + interval / 2
            return wait
        self._last_turn, self._last_at, self.gave = turn, now, True
        window = self._windows.minute * (1 + quota.MINUTE_GUARD)
        self._given = {name: times for name, times in self._given.items() if times[-1] + window > now}
        self._given.setdefault(key, []).append(now)
        return 0.0

    def _account_wait(self, key: str, now: float, workers: int) -> float:
        """Return the seconds until this account has a permit left on this call."""
        window = self._windows.minute * (1 + quota.MINUTE_GUARD)
        share = max(1, int(quota.ALONE_SHARE * self._windows.per_account_minute / max(workers, 1)))
        times = self._given.get(key, [])[-share:]
        return times[0] + window - now if len(times) == share else 0.0
