"""The planner: whether a quota carries a fleet, with what headroom, and what the renewal fraction trades.

It treats refreshes as a steady stream, which the jitter makes them: a fleet of n whose tokens live L and are renewed
at the fraction f sends n / (L * f) refreshes a second. The simulation shows how near that comes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from worker.policy import quota
from worker.policy.renewal import STRETCH

DAY: Final = 86_400.0
WANTED_HEADROOM: Final = 2.0
"""Below this the quota has no room for an outage's backlog, for growth, or for lives that TikTok shortens."""
USUAL_LATENCY: Final = 0.5
"""Seconds that a call to TikTok is taken to last where nobody measured it."""
RENEWAL_FRACTIONS: Final = (0.3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.85)
LIVES: Final = (86_400.0, 7_200.0)
"""Lives of access tokens: of the Accounts API today, and of Login Kit since November 2026."""


@dataclass(frozen=True)
class Crowd:
    """Creators whose access tokens live equally long.

    Attributes:
        creators: how many.
        life: seconds from the issue of an access token to its end.
    """

    creators: int
    life: float


@dataclass(frozen=True)
class Load:
    """What is asked of the quota.

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
        """Return the least seconds from the renewal window's begin to the end of the token."""
        return crowd.life * (1 - self.renew_at - STRETCH / 2)


@dataclass(frozen=True)
class Plan:
    """Whether a quota carries a load.

    Attributes:
        refreshes: refreshes a second that the fleet needs.
        pulls: pulls a second that are wanted.
        usable: requests a second that the limiter gives out.
        headroom: how many times the load fits into the quota; infinite without a load.
        refresh_headroom: the same for refreshes alone, which go before pulls.
        survived: seconds of outage after which the first token ends; 0 where refreshes alone do not fit, None without
            a fleet.
        first_missed: seconds until the first token ends where refreshes alone do not fit; None where they do.
        threads: calls that run at once when the whole quota is spent, by the latency.
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
    def fits(*, renew_at: float, lives: Sequence[float] = LIVES) -> list[Fit]:
    """Return how many creators fit into each of TikTok's levels, with and without pulls.

    All endpoints of the Accounts API together have a limit of their own (official doc 1738084416214017), which is
    below the app's in the higher levels; whether calls for tokens count against it is not said, so the lower counts.
    """
    return [_fit(tier, life, renew_at, pulls=pulls) for tier in quota.TIERS for life in lives for pulls in (False, True)]


def _fit(tier: quota.Tier, life: float, renew_at: float, *, pulls: bool) -> Fit:
    creators, without = (
        most_creators(
            usable=quota.usable_rate(per_second=tier.per_second, per_minute=per_minute),
            life=life,
            renew_at=renew_at,
            pulls_per_day=None if pulls else 0.0,
        )
        for per_minute in (min(tier.per_minute, tier.accounts_per_minute), tier.per_minute)
    )
    return Fit(
        tier=tier.name,
        per_minute=min(tier.per_minute, tier.accounts_per_minute),
        life=life,
        pulls=pulls,
        creators=creators,
        comfortable=math.floor(creators / WANTED_HEADROOM),
        without_accounts_limit=without,
    )
