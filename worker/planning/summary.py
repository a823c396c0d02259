"""The summary of a simulated course: its main figures, and whether it went well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.planning.capacity import Crowd, Load
from worker.planning.course import Course
from worker.planning.outage import after_outage
from worker.planning.scenarios import Scenario
from worker.planning.simulation_fleet import STEP
from worker.policy import quota

PROBE_STEPS: Final = 1
"""Steps after an outage's end until a probe notices that it is over."""


@dataclass(frozen=True)
class Summary:
    """The figures of one course, from the scenario's `looked_at` on.

    Attributes:
        refreshed: pairs brought.
        mean: refreshes in a minute, on average.
        busiest: refreshes in the busiest minute.
        most_waiting: the most grants that waited at once.
        drained_after: seconds from the end of the last outage until none waited; None without an outage, or if
            some still waited at the end.
        drain_computed: the same as the planner computes it.
        lost_to_outage: access tokens that ended while TikTok was down: no quota could have saved them.
        lost: access tokens that ended at any other time.
        dark: creators without a valid token at the end, except those who must authorize again.
        asked: creators to authorize again at the end.
        stopped: seconds for which the whole app was stopped by the brake, outages left out.
        pulled: pulls made.
    """

    refreshed: int
    mean: float
    busiest: int
    most_waiting: int
    drained_after: float | None
    drain_computed: float | None
    lost_to_outage: int
    lost: int
    dark: int
    asked: int
    stopped: float
    pulled: int

    @property
    def sound(self) -> bool:
        """True if no token ended that could have been saved, and the brake stopped nothing without need."""
        return self.lost == 0 and self.dark == 0 and self.stopped == 0

    @property
    def unevenness(self) -> float:
        """The busiest minute divided by the mean."""
        return self.busiest / self.mean if self.mean else 1.0


def summarize(scenario: Scenario, course: Course) -> Summary:
    """Return the figures of a course."""
    seen = slice(int(scenario.looked_at / STEP), None)
    refreshed = course.refreshed[seen]
    down = {step for begin, end in scenario.outages for step in range(int(begin / STEP), int(end / STEP) + PROBE_STEPS)}
    darkened = enumerate(course.darkened)
    lost_to_outage = sum(count for step, count in darkened if step in down)
    drained, computed = _drain(scenario, course)
    return Summary(
        refreshed=sum(refreshed),
        mean=sum(refreshed) / len(refreshed),
        busiest=max(refreshed),
        most_waiting=max(course.waiting[seen]),
        drained_after=drained,
        drain_computed=computed,
        lost_to_outage=lost_to_outage,
        lost=sum(course.darkened) - lost_to_outage,
        dark=course.dark[-1],
        asked=course.asked[-1],
        stopped=STEP * sum(braked for step, braked in enumerate(course.braked) if step not in down),
        pulled=sum(course.pulled[seen]),
    )


def load_of(scenario: Scenario) -> Load:
    """Return the load of a scenario after all its changes."""
    life = scenario.lives[-1].value if scenario.lives else scenario.life
    return Load((Crowd(scenario.creators, life),), scenario.renew_at, None if scenario.pulls else 0.0)


def usable_of(scenario: Scenario) -> float:
    """Return the requests a second that the limiter gives out after all changes."""
    factor = scenario.quotas[-1].value if scenario.quotas else 1.0
    return quota.usable_rate(per_second=scenario.per_second * factor, per_minute=scenario.per_minute * factor)


def _drain(scenario: Scenario, course: Course) -> tuple[float | None, float | None]:
    if not scenario.outages:
        return None, None
    begin, end = scenario.outages[-1]
    computed = after_outage(load_of(scenario), usable=usable_of(scenario), seconds=end - begin).drain
    over = int(end / STEP)
    empty = next((step for step in range(over, len(course.waiting)) if not course.waiting[step]), None)
    return (None if empty is None else (empty - over + 1) * STEP), computed
