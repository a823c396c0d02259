"""What an outage costs: the backlog, the time that it takes to drain, and the tokens that could not be saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.planning.capacity import Crowd, Load
from worker.policy.renewal import STRETCH

HALVINGS: Final = 80


@dataclass(frozen=True)
class Outage:
    """The cost of a time in which nothing can be refreshed.

    Attributes:
        backlog: grants that are due when it ends.
        drain: seconds from its end until none waits any more; infinite if the quota never suffices.
        first_missed: seconds from its start to the end of the first token; None if all tokens outlast it.
        missed: tokens that end during it, which no quota could have saved.
    """

    backlog: float
    drain: float
    first_missed: float | None
    missed: float


def after_outage(load: Load, *, usable: float, seconds: float) -> Outage:
    """Return what an outage of this length costs; refreshes go before pulls, so pulls do not slow the drain."""
    crowds = [crowd for crowd in load.crowds if crowd.creators]
    first = min((load.slack(crowd) for crowd in crowds), default=math.inf)
    return Outage(
        backlog=sum(_demand(load, crowd, seconds, 0) for crowd in crowds),
        drain=_drain(load, crowds, usable, seconds),
        first_missed=first if first <= seconds else None,
        missed=sum(_missed(load, crowd, seconds) for crowd in crowds),
    )


def _missed(load: Load, crowd: Crowd, outage: float) -> float:
    """Return how many tokens end in an outage; the slacks of a crowd are spread evenly over a band."""
    least, band = load.slack(crowd), crowd.life * STRETCH
    over = outage - least
    if over <= 0:
        return 0.0
    mean = over - band / 2 if over >= band else over * over / (2 * band)
    return min(load.rate(crowd) * mean, crowd.creators)


def _demand(load: Load, crowd: Crowd, outage: float, after: float) -> float:
    """Return the refreshes that become due from an outage's begin until `after` seconds after its end.

    Each grant is due once; grants that are refreshed after the outage are due again one period later.
    """
    once = min(crowd.creators, load.rate(crowd) * (outage + after))
    return once + load.rate(crowd) * max(0.0, after - load.period(crowd))


def _drain(load: Load, crowds: Sequence[Crowd], usable: float, outage: float) -> float:
    if load.refreshes >= usable:
        return math.inf if crowds and outage > 0 else 0.0

    def waiting(after: float) -> float:
        return sum(_demand(load, crowd, outage, after) for crowd in crowds) - usable * after

    if waiting(0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while waiting(high) > 0:
        low, high = high, 2 * high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if waiting(middle) > 0 else (low, middle)
    return high
