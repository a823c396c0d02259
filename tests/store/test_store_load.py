"""The load to come, on both databases."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from worker.store import LoadSlice

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

HOUR = timedelta(hours=1)


def test_load_counts_grants_by_life_and_by_when_they_are_due(fleet: Fleet) -> None:
    """What is due is in the first slice; lives are counted apart; grants that are not refreshed are left out."""
    now = fleet.store.ping()
    fleet.add("late", next_refresh_at=now - HOUR)
    fleet.add("soon", next_refresh_at=now + 0.5 * HOUR)
    fleet.add("later", next_refresh_at=now + 2.5 * HOUR)
    fleet.add("later too", next_refresh_at=now + 2.6 * HOUR)
    fleet.add("short", access_expires_at=now + 2 * HOUR, issued_at=now, next_refresh_at=now + 1.5 * HOUR)
    fleet.add("gone", next_refresh_at=now)
    fleet.store.mark_revoked("gone")

    load = fleet.store.load(slice_seconds=3600)

    assert load == [
        LoadSlice(7200, 1, 1, refreshed=False),
        LoadSlice(86_400, 0, 2, refreshed=False),
        LoadSlice(86_400, 2, 2, refreshed=False),
    ]


def test_load_counts_refreshed_pairs_apart_from_the_first_of_a_consent(fleet: Fleet) -> None:
    """A refresh makes a pair a refreshed one; a failed attempt or a new consent does not."""
    for creator_id in ("refreshed", "replaced"):
        fleet.save(fleet.claim(fleet.add(creator_id).grant_id), "next")
    later = fleet.store.ping() + timedelta(seconds=1)
    fleet.add("replaced", replace=True, issued_at=later, access_expires_at=later + 24 * HOUR)
    fleet.claim(fleet.add("tried").grant_id)

    counts = {part.refreshed: 0 for part in fleet.store.load(slice_seconds=3600)}
    for part in fleet.store.load(slice_seconds=3600):
        counts[part.refreshed] += part.grants

    assert counts == {True: 1, False: 2}


def test_an_empty_fleet_has_no_load(fleet: Fleet) -> None:
    """Nothing is due in an empty fleet."""
    assert fleet.store.load(slice_seconds=3600) == []
