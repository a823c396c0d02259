"""The quota's headroom: what the stored fleet needs, against what the limiter gives out."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from operator import attrgetter
from typing import Final

from worker.errors import StoreUnavailableError
from worker.planning.capacity import DAY, Crowd, Load, Plan, plan
from worker.planning.forecast import Due
from worker.policy import quota
from worker.store import AccountCosts, Store

LOOK_SECONDS: Final = 300.0
"""How long a figure is reused before the fleet is counted again, which reads every grant once."""
SLICE_SECONDS: Final = 3600
COST_DAYS: Final = 7
"""Full UTC days whose pulls say what a creator costs: within a week every list was read to its end."""
SHORTEST_LIFE: Final = 60.0
"""Seconds; a life that is shorter than a minute is counted as one."""
SAME_LIFE: Final = 0.98
"""Two lives belong to one crowd if the shorter is at least this part of the longer."""


class Headroom:
    """Computes how many times the fleet's refreshes and pulls fit into the quota."""

    def __init__(
        self,
        *,
        store: Store,
        renew_at: float,
        per_second: float,
        per_minute: float,
        pull_seconds: float | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count nothing yet.

        Args:
            store: where the fleet is.
            renew_at: fraction of the life at which the renewal window begins.
            per_second: the quota of a second.
            per_minute: the quota of a minute.
            pull_seconds: longest time between two pulls of a creator; None if pulls only follow refreshes.
            monotonic: clock of this process, in seconds.
        """
        self._store = store
        self._renew_at = renew_at
        self._usable = quota.usable_rate(per_second=per_second, per_minute=per_minute)
        self._pull_seconds = pull_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._factor, self._looked_at = math.nan, -math.inf

    def plan(self) -> Plan:
        """Count the fleet and plan for it.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        crowds = crowds_of(stored_dues(self._store, slice_seconds=SLICE_SECONDS))
        load = Load(crowds, self._renew_at)
        if load.creators:
            # Pulls between refreshes are added. A refresh delays the next of them; leaving that out errs safely. What
            # pulls took lately counts if it is more: a list of videos is many requests.
            pulls = load.refreshes / load.creators + 1 / (self._pull_seconds or math.inf)
            load = Load(
                crowds,
                self._renew_at,
                pulls_per_day=max(pulls * DAY, requests_per_day(self._store.account_costs(days=COST_DAYS))),
            )
        return plan(load, usable=self._usable)

    def factor(self) -> float:
        """Return the headroom, at most some minutes old: infinite without a fleet, NaN if the database is away."""
        with self._lock:
            now = self._monotonic()
            if now >= self._looked_at + LOOK_SECONDS:
                self._looked_at = now
                try:
                    self._factor = self.plan().headroom
                except StoreUnavailableError:
                    self._factor = math.nan
            return self._factor


def stored_dues(store: Store, *, slice_seconds: int) -> list[Due]:
    """Return when the stored fleet is due, by its tokens' lives.

    The stored life of an imported pair may be only what was left of it. So first pairs count with the life that most
    refreshes brought or, if there was no refresh yet, with the longest life of a first pair.

    Args:
        store: where the fleet is.
        slice_seconds: length of the slices in which due times are counted.
    """
    parts = store.load(slice_seconds=slice_seconds)
    lives: Counter[int] = Counter()
    for part in parts:
        if part.refreshed:
            lives[part.life_seconds] += part.grants
    usual = lives.most_common(1)[0][0] if lives else max((part.life_seconds for part in parts), default=0)
    return [
        Due(max(float(part.life_seconds if part.refreshed else usual), SHORTEST_LIFE), part.slice, part.grants)
        for part in parts
    ]


def requests_per_day(costs: Iterable[AccountCosts]) -> float:
    """Return how many requests a creator's account data took on the most expensive of some days; 0 if none is known."""
    by_day: dict[date, list[AccountCosts]] = {}
    for cost in costs:
        by_day.setdefault(cost.day, []).append(cost)
    return max(
        (sum(each.requests for each in found) / max(each.creators for each in found) for found in by_day.values()),
        default=0.0,
    )


def crowds_of(dues: Iterable[Due]) -> tuple[Crowd, ...]:
    """Return the fleet by its tokens' lives, shortest first; lives that are nearly equal count as the shortest."""
    counts: dict[float, int] = {}
    life = 0.0
    for due in sorted(dues, key=attrgetter("life")):
        life = life if due.life * SAME_LIFE <= life else due.life
        counts[life] = counts.get(life, 0) + due.grants
    return tuple(Crowd(count, life) for life, count in sorted(counts.items()))
