"""The stored fleet as the planner takes it, and what the doctor says of its headroom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from worker.cli.checks import Finding, State
from worker.policy import quota
from worker.policy.capacity import WANTED_HEADROOM, Crowd, Load, plan
from worker.policy.forecast import Due

if TYPE_CHECKING:
    from worker.services import Services

SHORTEST_LIFE: Final = 60.0
"""Seconds; a life that is shorter than a minute is counted as one."""


def stored_fleet(services: Services, *, slice_seconds: int) -> tuple[tuple[Crowd, ...], list[Due]]:
    """Return the fleet in the database, by its tokens' lives, and when it is due.

    Args:
        services: whose store is read.
        slice_seconds: length of the slices in which due times are counted.
    """
    dues = [
        Due(max(float(part.life_seconds), SHORTEST_LIFE), part.slice, part.grants)
        for part in services.store.load(slice_seconds=slice_seconds)
    ]
    counts: dict[float, int] = {}
    for due in dues:
        counts[due.life] = counts.get(due.life, 0) + due.grants
    return tuple(Crowd(count, life) for life, count in sorted(counts.items())), dues


def headroom(services: Services) -> Finding:
    """Look whether the quota carries the fleet with room to spare, one pull after each refresh."""
    settings = services.settings
    crowds, _ = stored_fleet(services, slice_seconds=3600)
    told = plan(
        Load(crowds, settings.renew_at),
        usable=quota.usable_rate(per_second=settings.quota_per_second, per_minute=settings.quota_per_minute),
    )
    state: State = "ok" if told.headroom >= WANTED_HEADROOM else "warn" if told.fits else "fail"
    return Finding("capacity", state, told.sentence)
