"""Upkeep: stale attempts are found, superseded pairs wiped, pairs re-sealed, and old history deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.policy.verdicts import AttemptOutcome
from worker.vault.sealing import SealedPair

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def _resealed(pair: SealedPair) -> SealedPair:
    return SealedPair(pair.sealed_access + b" again", pair.sealed_refresh + b" again", 2)


def test_attempts_of_dead_processes_are_stale_once_their_lease_has_ended(fleet: Fleet) -> None:
    """One under way is not stale; one whose lease ran out or went to another is, oldest first."""
    dead = fleet.claim(fleet.add("dead").grant_id, seconds=0)
    passed_on = fleet.claim(fleet.add("passed on").grant_id, seconds=0)
    fleet.claim(passed_on.grant_id)
    replaced = fleet.claim(fleet.add("replaced").grant_id)
    fleet.add("replaced", replace=True)
    fleet.claim(fleet.add("alive").grant_id)
    fleet.save(fleet.claim(fleet.add("done").grant_id), "done")

    stale = fleet.store.stale_attempts(10)

    assert [(attempt.grant_id, attempt.generation) for attempt in stale] == [
        (claim.grant_id, claim.generation) for claim in (dead, passed_on, replaced)
    ]
    assert fleet.store.stale_attempts(1) == stale[:1]
    assert stale[0].owner == "a worker"


def test_superseded_pairs_are_wiped_after_their_time_and_the_current_one_never(fleet: Fleet) -> None:
    """The row stays as history, its sealed columns do not."""
    grant = fleet.add()
    fleet.save(fleet.claim(grant.grant_id), "two")
    fleet.add(replace=True)

    assert fleet.store.wipe_superseded(3600, 10) == 0
    assert fleet.store.wipe_superseded(0, 1) == 1
    assert fleet.store.wipe_superseded(0, 10) == 1
    assert fleet.store.wipe_superseded(0, 10) == 0

    fleet.sql("UPDATE pairs SET superseded_at = stored_at")
    assert fleet.store.wipe_superseded(0, 10) == 0
    assert fleet.current() == b"access ada/2/3"
    assert fleet.sql("SELECT count(*) FROM pairs")[0][0] == 3
    assert fleet.store.key_usage() == {1: 1}


def test_the_kept_pairs_of_a_failing_grant_are_not_wiped(fleet: Fleet) -> None:
    """One of them may be the only one that TikTok still takes."""
    grant = fleet.add()
    fleet.save(fleet.claim(grant.grant_id), "two")
    claim = fleet.claim(grant.grant_id)
    fleet.store.release(
        claim, outcome=AttemptOutcome.IN_DOUBT, next_refresh_at=fleet.soon(), reason="lost", failed=True
    )

    assert fleet.store.wipe_superseded(0, 10) == 0
    assert len(fleet.claim(grant.grant_id).kept) == 2


def test_every_stored_pair_is_read_in_batches(fleet: Fleet) -> None:
    """Each with the place that its bytes are bound to, and none twice."""
    for number in range(5):
        fleet.add(f"creator {number}")
    fleet.save(fleet.claim(1), "two")

    batch, seen = fleet.store.all_pairs(limit=4), []
    while batch:
        seen += [(pair.creator_id, pair.consent, pair.generation) for pair in batch]
        batch = fleet.store.all_pairs(batch[-1].key, limit=4)

    assert seen == [("creator 0", 1, 1), ("creator 0", 1, 2), *((f"creator {n}", 1, 1) for n in range(1, 5))]


def test_re_sealing_replaces_only_what_is_still_there(fleet: Fleet) -> None:
    """A pair that was wiped or re-sealed meanwhile is left alone; what has the new key is not read again."""
    fleet.add("ada")
    fleet.add("bob")
    stored = fleet.store.all_pairs(not_sealed_with=2)
    assert fleet.store.reseal([(stored[0], _resealed(stored[0].sealed))]) == 1

    again = fleet.store.reseal([(pair, _resealed(pair.sealed)) for pair in stored])

    assert again == 1
    assert fleet.current("ada") == b"access ada/1/1 again"
    assert fleet.store.key_usage() == {2: 2}
    assert fleet.store.all_pairs(not_sealed_with=2) == []


def test_history_is_pruned_and_what_is_current_stays(fleet: Fleet) -> None:
    """A grant's newest attempt and its pair are kept however old they are."""
    grant = fleet.add()
    for word in ("two", "three"):
        fleet.save(fleet.claim(grant.grant_id), word)
    fleet.store.wipe_superseded(0, 10)
    fleet.store.raise_alarm("key", "kind", "detail")
    fleet.store.raise_alarm("waiting", "kind", "detail")
    fleet.store.delivery_accepted(fleet.store.undelivered_notices()[0].notice_id, "ops")
    fleet.store.hello("gone", host="h", pid=1, key_ids=[1])

    def prune(seconds: float) -> tuple[int, int, int]:
        store = fleet.store
        return store.prune_attempts(seconds, 10), store.prune_pairs(seconds, 10), store.prune_delivered(seconds)

    assert prune(3600) == (0, 0, 0)
    assert prune(0) == (1, 2, 2)

    assert [attempt.generation for attempt in fleet.store.attempts(grant.grant_id)] == [3]
    assert fleet.current() == b"access three"
    assert [notice.dedupe_key for notice in fleet.store.undelivered_notices()] == ["waiting"]
