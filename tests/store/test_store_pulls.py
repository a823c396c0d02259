"""Pulls: one at a time for each creator, and a later wish outlives an earlier pull."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import RevokedError
from worker.store import AccountPage, Progress, PullClaim

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def _claim(fleet: Fleet, grant_id: int, *, seconds: float = 60) -> PullClaim:
    claim = fleet.store.claim_pull(grant_id, owner="a worker", lease_seconds=seconds)
    assert claim is not None
    return claim


def _save(fleet: Fleet, claim: PullClaim, data: dict[str, Any], *, keep: int = 2) -> None:
    """Store a snapshot and end the pull, with no further one planned."""
    page = AccountPage("business/get/", Progress("account"), snapshot=data)
    saved = fleet.store.save_page(claim, page, lease_seconds=60, snapshots=keep)
    assert saved is not None
    fleet.store.end_pull(saved.claim, next_pull_at=None)


def test_a_pull_is_claimed_once_and_brings_the_current_pair(fleet: Fleet) -> None:
    """Two workers never pull the same creator at the same time."""
    grant = fleet.add()

    claim = _claim(fleet, grant.grant_id)

    assert claim.pair.sealed.sealed_access == b"access ada/1/1"
    assert (claim.pair.creator_id, claim.pull_failures) == ("ada", 0)
    assert fleet.store.claim_pull(grant.grant_id, owner="b", lease_seconds=60) is None
    assert not fleet.store.is_pull_due(grant.grant_id)
    assert fleet.store.due_pulls(10) == []


def test_a_pull_lease_that_ran_out_is_won_by_the_next(fleet: Fleet) -> None:
    """A dead puller holds a creator no longer than its lease."""
    grant = fleet.add()
    _claim(fleet, grant.grant_id, seconds=0)

    assert fleet.store.due_pulls(10) == [grant.grant_id]
    assert _claim(fleet, grant.grant_id)


def test_a_snapshot_ends_the_wish_and_only_so_many_are_kept(fleet: Fleet) -> None:
    """The newest come first; the data is stored as TikTok named it."""
    grant = fleet.add()
    other = fleet.add("bob")
    _save(fleet, _claim(fleet, other.grant_id), {"followers": 1})
    for followers in range(4):
        fleet.store.request_pull("ada")
        _save(fleet, _claim(fleet, grant.grant_id), {"followers": followers, "name": "Ädä"})

    stored = fleet.store.snapshots(grant.grant_id, 10)

    assert [snapshot.data for snapshot in stored] == [{"followers": n, "name": "Ädä"} for n in (3, 2)]
    after = fleet.store.grant("ada")
    assert (after.next_pull_at, after.pull_failures) == (None, 0)
    assert after.pulled_at is not None
    assert len(fleet.store.snapshots(other.grant_id)) == 1


def test_a_pull_wanted_again_meanwhile_stays_wanted(fleet: Fleet) -> None:
    """A refreshed pair that came during the pull brings its own."""
    grant = fleet.add()
    claim = _claim(fleet, grant.grant_id)
    fleet.sql("UPDATE grants SET next_pull_at = next_pull_at + 1")

    _save(fleet, claim, {})

    assert fleet.store.grant("ada").next_pull_at is not None


def test_a_deferred_pull_waits_and_counts_its_failures(fleet: Fleet) -> None:
    """It is tried again at its time, or not at all until somebody asks again."""
    grant = fleet.add()
    at = fleet.soon(90)

    fleet.store.defer_pull(_claim(fleet, grant.grant_id), next_pull_at=at, failed=True)

    after = fleet.store.grant("ada")
    assert (after.next_pull_at, after.pull_failures) == (at, 1)
    assert fleet.store.due_pulls(10) == []
    assert fleet.store.request_pull("ada") == grant.grant_id
    fleet.store.defer_pull(_claim(fleet, grant.grant_id), next_pull_at=None, failed=False)
    assert (fleet.store.grant("ada").next_pull_at, fleet.store.grant("ada").pull_failures) == (None, 1)


def test_a_late_puller_does_not_free_the_lease_of_its_heir(fleet: Fleet) -> None:
    """What it brought is stored, and the pull under way goes on alone."""
    grant = fleet.add()
    late = _claim(fleet, grant.grant_id, seconds=0)
    _claim(fleet, grant.grant_id)

    fleet.store.defer_pull(late, next_pull_at=late.wanted_at, failed=True)

    assert not fleet.store.is_pull_due(grant.grant_id)


def test_a_revoked_creator_is_not_pulled(fleet: Fleet) -> None:
    """Nothing is read of a creator whose grant was revoked."""
    grant = fleet.add()
    fleet.store.mark_revoked("ada")

    with pytest.raises(RevokedError):
        fleet.store.request_pull("ada")
    assert fleet.store.claim_pull(grant.grant_id, owner="a", lease_seconds=60) is None


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_after_a_bulk_write_sqlite_is_left_to_others_for_as_long(fleet: Fleet) -> None:
    """Bulk writes of a process never follow each other at once, so that a refresh of another process gets its turn."""
    spans: list[tuple[float, float]] = []

    def work(_connection: object) -> None:
        began = time.monotonic()
        threading.Event().wait(0.02)
        spans.append((began, time.monotonic()))

    threads = [
        threading.Thread(target=fleet.store.transact, args=(work,), kwargs={"writes": True, "bulk": True})
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(spans) == 5
    for before, after in itertools.pairwise(spans):
        assert after[0] - before[1] >= before[1] - before[0]
