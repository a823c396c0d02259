"""The stored fleet as the planner takes it, and what the doctor says of its headroom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.cli.checks import Finding, State
from worker.planning.capacity import WANTED_HEADROOM, Crowd
from worker.planning.headroom import crowds_of, stored_dues

if TYPE_CHECKING:
    from worker.planning.forecast import Due
    from worker.services import Services


def stored_fleet(services: Services, *, slice_seconds: int) -> tuple[tuple[Crowd, ...], list[Due]]:
    """Return the fleet in the database, by its tokens' lives, and when it is due.

    Args:
        services: whose store is read.
        slice_seconds: length of the slices in which due times are counted.
    """
    dues = stored_dues(services.store, slice_seconds=slice_seconds)
    return crowds_of(dues), dues


def headroom(services: Services) -> Finding:
    """Look whether the quota carries the fleet with room to spare, one pull after each refresh."""
    told = services.headroom.plan()
    state: State = "ok" if told.headroom >= WANTED_HEADROOM else "warn" if told.fits else "fail"
    return Finding("capacity", state, told.sentence)
