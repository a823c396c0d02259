"""The scenarios of the simulation: named courses of events, each with its fleet and quota."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.policy.invitations import EARLIEST_DAYS
from worker.policy.quota import HIGHEST

MILLION: Final = 1_000_000
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY


@dataclass(frozen=True)
class Change:
    """A figure that changes at some second."""

    at: float
    value: float


@dataclass(frozen=True)
class Scenario:
    """A course of events, in seconds from its begin.

    Attributes:
        name: what people type.
        story: what happens, in a sentence.
        creators: size of the fleet; all of it is imported in the first minute, with fresh tokens.
        seconds: how long the scenario runs.
        looked_at: when the fleet has settled, and the load begins to be judged.
        life: life of an access token; `lives` are later changes of it.
        renew_at: fraction of the life at which the renewal window begins.
        per_second: TikTok's limit a second.
        per_minute: TikTok's limit a minute.
        quotas: later changes of both limits, as factors of those above.
        outages: begin and end of each time in which TikTok does not answer.
        consent: seconds after which the creators' consents of the first day end.
        campaign: seconds over which these consents were given, evenly; their ends are as far apart.
        answering: share of the creators who authorize again, evenly over the `notice` before their consent ends.
        notice: for how long before the end creators are asked.
        pulls: True for one pull after each refresh.
    """

    name: str
    story: str
    creators: int
    seconds: float
    looked_at: float
    life: float = DAY
    renew_at: float = 2 / 3
    per_second: float = HIGHEST.per_second
    per_minute: float = HIGHEST.per_minute
    lives: tuple[Change, ...] = ()
    quotas: tuple[Change, ...] = ()
    outages: tuple[tuple[float, float], ...] = ()
    consent: float | None = None
    campaign: float = DAY
    answering: float = 0.0
    notice: float = 30 * DAY
    pulls: bool = True


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "mass-import",
            "a whole fleet is imported in one minute",
            creators=MILLION,
            seconds=5 * DAY,
            looked_at=DAY,
        ),
        Scenario(
            "outage-12h",
            "TikTok is down for twelve hours, after two days",
            creators=MILLION,
            seconds=6 * DAY,
            looked_at=2 * DAY,
            outages=((2 * DAY, 2.5 * DAY),),
        ),
        Scenario(
            "lifetimes-cut",
            "tokens live two hours in place of twenty-four, after two days",
            creators=100_000,
            seconds=4 * DAY,
            looked_at=2 * DAY,
            lives=(Change(2 * DAY, 2 * HOUR),),
        ),
        Scenario(
            "quota-halved",
            "the app loses half of its quota after two days",
            creators=MILLION,
            seconds=4 * DAY,
            looked_at=2 * DAY,
            quotas=(Change(2 * DAY, 0.5),),
        ),
        Scenario(
            "one-year-cliff",
            "consents that were all given within one day end, a year later",
            creators=MILLION,
            seconds=YEAR + 5 * DAY,
            looked_at=DAY,
            consent=YEAR,
            answering=0.8,
        ),
        Scenario(
            "one-year-spread",
            "the same, with invitations over three months",
            creators=20_000,
            seconds=YEAR + 5 * DAY,
            looked_at=DAY,
            consent=YEAR,
            answering=0.8,
            notice=EARLIEST_DAYS * DAY,
        ),
    )
}
