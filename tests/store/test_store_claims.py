"""Claims: one committed statement decides who may refresh a grant, and for how long."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import APP_ID
from tests.store.conftest import sealed
from tests.support.claims import claim_one
from worker.policy.verdicts import AttemptOutcome
from worker.store import Claim, GrantStatus, open_store

if TYPE_CHECKING:
    from tests.store.conftest import Fleet


def test_a_claim_raises_the_generation_and_writes_the_attempt_down(fleet: Fleet) -> None:
    """The committed claim is the record of intent that outlives the process."""
    grant = fleet.add()

    claim = fleet.claim(grant.grant_id, force=False)

    assert (claim.consent, claim.generation, claim.pair_generation) == (1, 2, 1)
    assert claim.lease_until - claim.claimed_at == timedelta(seconds=60)
    attempt = fleet.store.attempts(grant.grant_id)[0]
    assert (attempt.generation, attempt.outcome, attempt.owner) == (2, None, "a worker")
    after = fleet.store.grant_by_id(grant.grant_id)
    assert (after.generation, after.lease_owner, after.lease_until) == (2, "a worker", claim.lease_until)


def test_a_held_lease_is_respected_even_by_force(fleet: Fleet) -> None:
    """Force ignores the schedule and never another's lease."""
    grant = fleet.add()
    fleet.claim(grant.grant_id)

    assert claim_one(fleet.store, grant.grant_id, owner="b", lease_seconds=60, force=True) is None
    assert not fleet.store.claimable([grant.grant_id]).due


def test_a_grant_that_is_not_due_is_claimed_only_by_force(fleet: Fleet) -> None:
    """The schedule on the row decides."""
    grant = fleet.add(next_refresh_at=fleet.soon(3600))

    assert claim_one(fleet.store, grant.grant_id, owner="a", lease_seconds=60) is None
    assert fleet.claim(grant.grant_id, force=True).generation == 2


def test_a_grant_that_is_unknown_or_ended_is_never_claimed(fleet: Fleet) -> None:
    """Only active and suspect grants are refreshed."""
    grant = fleet.add()
    fleet.store.mark_revoked("ada")

    assert claim_one(fleet.store, grant.grant_id, owner="a", lease_seconds=60, force=True) is None
    assert claim_one(fleet.store, 999, owner="a", lease_seconds=60, force=True) is None


def test_a_lease_that_ran_out_is_won_by_the_next(fleet: Fleet) -> None:
    """A dead process holds its grant no longer than its lease; its attempt stays unresolved."""
    grant = fleet.add()
    dead = fleet.claim(grant.grant_id, seconds=0)

    heir = fleet.claim(grant.grant_id, force=False)

    assert heir.generation == dead.generation + 1
    assert heir.unresolved == (dead.generation,)
    assert fleet.lease_left(dead) == 0
    assert not fleet.store.extend_lease(dead, 60)


def test_a_lease_is_extended_only_while_it_is_held(fleet: Fleet) -> None:
    """A heartbeat distinguishes a lost lease from a held one."""
    claim = fleet.claim(fleet.add().grant_id, seconds=30)

    assert fleet.store.extend_lease(claim, 90)
    assert 85 < fleet.lease_left(claim) <= 90
    assert fleet.store.give_back([claim])
    assert not fleet.store.extend_lease(claim, 90)


def test_an_unclaimed_attempt_leaves_no_doubt_and_no_number_twice(fleet: Fleet) -> None:
    """Nothing was sent, so the attempt is forgotten; its number is not given again."""
    grant = fleet.add()
    first = fleet.claim(grant.grant_id)

    assert fleet.store.give_back([first]) == 1

    assert fleet.store.attempts(grant.grant_id) == []
    second = fleet.claim(grant.grant_id, force=False)
    assert (second.generation, second.unresolved) == (first.generation + 1, ())


def test_unclaiming_after_the_lease_went_to_another_takes_nothing_from_them(fleet: Fleet) -> None:
    """A late process frees its own attempt and not the heir's lease."""
    grant = fleet.add()
    late = fleet.claim(grant.grant_id, seconds=0)
    heir = fleet.claim(grant.grant_id)

    assert fleet.store.give_back([late]) == 0

    assert fleet.lease_left(heir) > 0


def test_attempts_in_doubt_are_unresolved_until_a_newer_pair_is_stored(fleet: Fleet) -> None:
    """What TikTok gave after a doubtful attempt settles that doubt."""
    grant = fleet.add()
    doubtful = fleet.claim(grant.grant_id)
    fleet.store.release(
        doubtful, outcome=AttemptOutcome.IN_DOUBT, next_refresh_at=fleet.soon(0), reason="lost", failed=True
    )
    refused = fleet.claim(grant.grant_id)
    fleet.store.release(
        refused, outcome=AttemptOutcome.BACKED_OFF, next_refresh_at=fleet.soon(0), reason="busy", failed=True
    )

    third = fleet.claim(grant.grant_id)
    assert third.unresolved == (doubtful.generation,)
    assert fleet.save(third, "new")
    assert fleet.claim(grant.grant_id).unresolved == ()


def test_a_claim_brings_the_current_pair_and_knows_every_kept_one_of_its_consent(fleet: Fleet) -> None:
    """Each may be the one that TikTok still takes; the older ones are read when the current one was refused."""
    grant = fleet.add()
    fleet.save(fleet.claim(grant.grant_id), "two")
    fleet.save(fleet.claim(grant.grant_id), "three")

    claim = fleet.claim(grant.grant_id)

    assert claim.sealed == sealed("three")
    assert claim.kept == (3, 2, 1)
    assert [(version.generation, version.sealed) for version in fleet.store.kept_versions(claim)] == [
        (3, sealed("three")),
        (2, sealed("two")),
        (1, sealed("ada/1/1")),
    ]
    fleet.store.give_back([claim])
    fleet.add(replace=True)
    assert fleet.claim(grant.grant_id).kept == (5,)


def test_of_many_threads_one_wins_each_grant(fleet: Fleet) -> None:
    """Eight claimers start together on each grant, many times over."""
    rounds, claimers = 30, 8
    grants = [fleet.add(f"creator {number}").grant_id for number in range(rounds)]
    barrier = threading.Barrier(claimers)

    def claim_all(_: int) -> list[Claim | None]:
        won = []
        for grant_id in grants:
            barrier.wait(20)
            won.append(claim_one(fleet.store, grant_id, owner="a", lease_seconds=60))
        return won

    with ThreadPoolExecutor(claimers) as pool:
        columns = list(pool.map(claim_all, range(claimers)))

    for number, grant_id in enumerate(grants):
        winners = [column[number] for column in columns if column[number] is not None]
        assert len(winners) == 1
        assert len(fleet.store.attempts(grant_id)) == 1


def _claim_in_process(url: str, grants: list[int], barrier: Barrier, results: Any) -> None:
    store = open_store(url, pool_size=1, app_id=APP_ID)
    for grant_id in grants:
        barrier.wait(20)
        if claim_one(store, grant_id, owner="a", lease_seconds=60) is not None:
            results.put(grant_id)
    store.close()


@pytest.mark.slow_suite
def test_of_many_processes_one_wins_each_grant(fleet: Fleet, store_url: str) -> None:
    """The lease holds between processes too, which share nothing but the database."""
    grants = [fleet.add(f"creator {number}").grant_id for number in range(25)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=_claim_in_process, args=(store_url, grants, barrier, results)) for _ in range(3)
    ]

    for process in processes:
        process.start()
    won = sorted(results.get(timeout=60) for _ in grants)
    for process in processes:
        process.join(30)

    assert won == grants
    assert results.empty()
    results.close()
    results.join_thread()


def test_a_claim_against_a_new_consent_never_leaves_the_old_attempt_in_charge(fleet: Fleet) -> None:
    """Whichever commits first, the new consent ends without a lease of the older one's attempt being current."""
    rounds = 20
    grants = [fleet.add(f"creator {number}") for number in range(rounds)]
    barrier = threading.Barrier(2)
    claims: list[Claim | None] = []

    def claim_each() -> None:
        for grant in grants:
            barrier.wait(20)
            claims.append(claim_one(fleet.store, grant.grant_id, owner="a", lease_seconds=60))

    def consent_each() -> None:
        for grant in grants:
            item = fleet.consent(grant.creator_id, next_refresh_at=fleet.soon(3600))
            barrier.wait(20)
            fleet.keep([item], replace=True)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(claim_each), pool.submit(consent_each)]:
            done.result(60)

    for grant, claim in zip(grants, claims, strict=True):
        after = fleet.store.grant_by_id(grant.grant_id)
        assert (after.consent, after.status) == (2, GrantStatus.ACTIVE)
        assert after.pair_generation == after.generation
        if claim is not None:
            assert claim.consent == 1
            assert claim.generation < after.generation
            assert not fleet.save(claim, "late")
            assert fleet.current(grant.creator_id) == f"access {grant.creator_id}/2/{after.generation}".encode()
