"""The planner: whether a quota carries a fleet, with what headroom, and what the renewal fraction trades.

It treats refreshes as a steady stream, since the jitter spreads them: a fleet of n grants whose tokens live L seconds
and are renewed at the fraction f sends n / (L * f) refreshes a second. The simulation shows how accurate that is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.policy import quota
from worker.policy.renewal import STRETCH

DAY: Final = 86_400.0
WANTED_HEADROOM: Final = 2.0
"""Below this the quota has no room for an outage's backlog, for growth, or for lives that TikTok shortens."""
USUAL_LATENCY: Final = 0.5
"""Assumed seconds of a call to TikTok if nobody measured it."""
RENEWAL_FRACTIONS: Final = (0.3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.85)
LIVES: Final = (86_400.0, 7_200.0)
"""Lives of access tokens: of the Accounts API today, and of Login Kit since November 2026."""


@dataclass(frozen=True)
class Crowd:
    """Creators whose access tokens have the same life.

    Attributes:
        creators: how many.
        life: seconds from the issue of an access token to its end.
    """

    creators: int
    life: float


@dataclass(frozen=True)
class Load:
    """The requests that a fleet needs.

    Attributes:
        crowds: the fleet.
        renew_at: fraction of the life at which the renewal window begins.
        pulls_per_day: pulls of one creator in a day; None for one after each refresh.
    """

    crowds: tuple[Crowd, ...]
    renew_at: float
    pulls_per_day: float | None = None

    @property
    def creators(self) -> int:
        """How many creators there are."""
        return sum(crowd.creators for crowd in self.crowds)

    @property
    def refreshes(self) -> float:
        """Refreshes a second."""
        return sum(self.rate(crowd) for crowd in self.crowds)

    @property
    def pulls(self) -> float:
        """Pulls a second."""
        if self.pulls_per_day is None:
            return self.refreshes
        return self.creators * self.pulls_per_day / DAY

    def period(self, crowd: Crowd) -> float:
        """Return the mean seconds between two refreshes of one creator."""
        return crowd.life * self.renew_at

    def rate(self, crowd: Crowd) -> float:
        """Return a crowd's refreshes a second."""
        return crowd.creators / self.period(crowd)

    def slack(self, crowd: Crowd) -> float:
        """Return the fewest seconds from the begin of the renewal window to the end of the token."""
        return crowd.life * (1 - self.renew_at - STRETCH / 2)


@dataclass(frozen=True)
class Plan:
    """Whether a quota carries a load.

    Attributes:
        refreshes: refreshes a second that the fleet needs.
        pulls: pulls a second that the fleet needs.
        usable: requests a second that the limiter gives out.
        headroom: how many times the load fits into the quota; infinite without a load.
        refresh_headroom: the same for refreshes alone, which go before pulls.
        survived: seconds of outage after which the first token ends; 0 if refreshes alone do not fit, None without
            a fleet.
        first_missed: seconds until the first token ends, if refreshes alone do not fit; None if they do.
        threads: calls that run at once when the whole quota is used, by the latency.
    """

    refreshes: float
    pulls: float
    usable: float
    headroom: float
    refresh_headroom: float
    survived: float | None
    first_missed: float | None
    threads: int

    @property
    def fits(self) -> bool:
        """True if the quota carries refreshes and pulls."""
        return self.headroom >= 1

    @property
    def sentence(self) -> str:
        """The meaning of the figures in a sentence, for people."""
        needed, usable = 60 * (self.refreshes + self.pulls), 60 * self.usable
        figures = (
            f"the fleet needs {needed:,.1f} requests a minute ({60 * self.refreshes:,.1f} refreshes and "
            f"{60 * self.pulls:,.1f} pulls) and the quota gives {usable:,.1f}"
        )
        if self.first_missed is not None:
            hours = self.first_missed / 3600
            return f"{figures}: refreshes alone do not fit, and the first token expires after {hours:,.1f} hours"
        if not self.fits:
            return f"{figures}: refreshes fit, pulls do not"
        if self.headroom < WANTED_HEADROOM:
            return f"{figures}: it fits, but the headroom is {self.headroom:.2f} and should be {WANTED_HEADROOM:g}"
        return f"{figures}: it fits" + (f", {self.headroom:.1f} times over" if math.isfinite(self.headroom) else "")


@dataclass(frozen=True)
class Trade:
    """What a renewal fraction costs and buys.

    Attributes:
        renew_at: the fraction.
        per_day: refreshes of one creator in a day.
        survived: seconds of outage after which the first token ends.
        creators: how many fit into the quota.
    """

    renew_at: float
    per_day: float
    survived: float
    creators: int


@dataclass(frozen=True)
class Fit:
    """How many creators fit into one of TikTok's levels.

    Attributes:
        tier: name of the level.
        per_minute: requests that it permits in a minute to the Accounts API, or to all of TikTok if that is less.
        life: life of an access token, in seconds.
        pulls: True for one pull after each refresh, False for none.
        creators: how many fit if the whole quota is used.
        comfortable: how many fit with `WANTED_HEADROOM`.
        without_accounts_limit: how many fit if only the limits of the whole app count.
    """

    tier: str
    per_minute: int
    life: float
    pulls: bool
    creators: int
    comfortable: int
    without_accounts_limit: int


def plan(load: Load, *, usable: float, latency: float = USUAL_LATENCY) -> Plan:
    """Return whether the quota carries the load.

    Args:
        load: fleet, renewal fraction and pulls.
        usable: requests a second that the limiter gives out, as from `quota.usable_rate`.
        latency: seconds that one call to TikTok takes.
    """
    refreshes, pulls = load.refreshes, load.pulls
    slack = min((load.slack(crowd) for crowd in load.crowds if crowd.creators), default=None)
    overloaded = refreshes > usable
    return Plan(
        refreshes=refreshes,
        pulls=pulls,
        usable=usable,
        headroom=usable / (refreshes + pulls) if refreshes + pulls else math.inf,
        refresh_headroom=usable / refreshes if refreshes else math.inf,
        survived=0.0 if overloaded else slack,
        # The queue grows by the excess. Its head has waited a slack when the queue is as long as a slack's arrivals.
        first_missed=slack / (1 - usable / refreshes) if overloaded and slack is not None else None,
        threads=max(1, math.ceil(usable * latency)),
    )


def trades(load: Load, *, usable: float) -> list[Trade]:
    """Return for each renewal fraction what it costs in requests and buys in hours of outage."""
    fleet = [crowd for crowd in load.crowds if crowd.creators] or [Crowd(1, LIVES[0])]
    found = []
    for fraction in RENEWAL_FRACTIONS:
        there = Load(tuple(fleet), fraction, load.pulls_per_day)
        found.append(
            Trade(
                renew_at=fraction,
                per_day=there.refreshes * DAY / there.creators,
                survived=min(there.slack(crowd) for crowd in fleet),
                creators=_fitting(usable, (there.refreshes + there.pulls) / there.creators),
            )
        )
    return found


def most_creators(*, usable: float, life: float, renew_at: float, pulls_per_day: float | None) -> int:
    """Return how many creators with tokens of this life fit into the quota."""
    one = Load((Crowd(1, life),), renew_at, pulls_per_day)
    return _fitting(usable, one.refreshes + one.pulls)


def fits(*, renew_at: float, lives: Sequence[float] = LIVES) -> list[Fit]:
    """Return how many creators fit into each of TikTok's levels, with and without pulls.

    All endpoints of the Accounts API together have a separate limit (official doc 1738084416214017), which is below the
    app's in the higher levels. TikTok does not say whether calls for tokens count against it, so the lower one is used.
    """
    return [
        _fit(tier, life, renew_at, pulls=pulls) for tier in quota.TIERS for life in lives for pulls in (False, True)
    ]


def _fitting(usable: float, cost: float) -> int:
    """Return how many creators fit if each costs this many requests a second; rounding loses none who fits exactly."""
    return math.floor(round(usable / cost, 6))


def _fit(tier: quota.Tier, life: float, renew_at: float, *, pulls: bool) -> Fit:
    lower = min(tier.per_minute, tier.accounts_per_minute)
    creators, without = (
        most_creators(
            usable=quota.usable_rate(per_second=tier.per_second, per_minute=per_minute),
            life=life,
            renew_at=renew_at,
            pulls_per_day=None if pulls else 0.0,
        )
        for per_minute in (lower, tier.per_minute)
    )
    return Fit(tier.name, lower, life, pulls, creators, math.floor(creators / WANTED_HEADROOM), without)
