"""Groups of grants: claimed, stored and given back in one transaction, each grant as if it were alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import pytest
from sqlalchemy import event

from worker.errors import NotFoundError, StoreUnavailableError
from worker.policy.notice_kinds import NEWS
from worker.policy.verdicts import AttemptOutcome
from worker.store import BroughtPair, Claim, GrantStatus, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.store.conftest import Fleet

T = TypeVar("T")
POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

EVERYTHING = [
    "SELECT * FROM grants ORDER BY id",
    "SELECT * FROM pairs ORDER BY grant_id, generation",
    "SELECT * FROM attempts ORDER BY grant_id, generation",
]


def ids_of(fleet: Fleet, count: int) -> list[int]:
    """Add grants that are due and return their ids."""
    return [fleet.add(f"creator {number}").grant_id for number in range(count)]


def claim_all(fleet: Fleet, ids: list[int]) -> list[Claim]:
    """Claim grants that are all to be won."""
    claims = fleet.store.claim_group(ids, owner="a worker", lease_seconds=60)
    assert [claim.grant_id for claim in claims] == ids
    return claims


def brought(fleet: Fleet, claim: Claim, word: str = "new") -> BroughtPair:
    """Return the pair that a claim's attempt brought."""
    return BroughtPair(claim.grant_id, claim.consent, claim.generation, fleet.pair(word), "r1")


def test_a_group_is_claimed_in_the_order_that_was_asked_for(fleet: Fleet) -> None:
    """The most urgent grant goes first, whatever order the database returns the rows in."""
    ids = ids_of(fleet, 5)
    wanted = [ids[3], ids[0], ids[4], ids[0]]

    claims = fleet.store.claim_group(wanted, owner="a worker", lease_seconds=60)

    assert [claim.grant_id for claim in claims] == [ids[3], ids[0], ids[4]]
    assert [(claim.generation, claim.kept, claim.unresolved) for claim in claims] == [(2, (1,), ())] * 3
    assert [claim.creator_id for claim in claims] == ["creator 3", "creator 0", "creator 4"]
    assert {len(fleet.store.attempts(grant_id)) for grant_id in wanted} == {1}


def test_a_group_leaves_out_what_cannot_be_won(fleet: Fleet) -> None:
    """A grant that is leased, not due, ended or unknown keeps none of the others from their claims."""
    leased, later, ended, free = ids_of(fleet, 4)
    fleet.claim(leased)
    fleet.sql("UPDATE grants SET next_refresh_at = next_refresh_at + 3600000 WHERE id = :id", id=later)
    fleet.store.mark_revoked("creator 2")
    ids = [leased, later, ended, 404, free]

    assert fleet.store.claimable(ids).due == (free,)
    claims = fleet.store.claim_group(ids, owner="another", lease_seconds=60)

    assert [claim.grant_id for claim in claims] == [free]
    forced = fleet.store.claim_group(ids, owner="a third", lease_seconds=60, force=True)
    assert [claim.grant_id for claim in forced] == [later]


def test_no_grant_of_a_group_is_won_twice(fleet: Fleet) -> None:
    """Eight threads ask for the same grants at the same moment."""
    ids, barrier = ids_of(fleet, 40), threading.Barrier(8)

    def win(_: int) -> list[Claim]:
        barrier.wait(20)
        return fleet.store.claim_group(ids, owner="a worker", lease_seconds=60)

    with ThreadPoolExecutor(8) as pool:
        won = [claim.grant_id for claims in pool.map(win, range(8)) for claim in claims]

    assert len(won) == len(set(won))
    won += [claim.grant_id for claim in fleet.store.claim_group(ids, owner="the rest", lease_seconds=60)]
    assert sorted(won) == ids
    assert {len(fleet.store.attempts(grant_id)) for grant_id in ids} == {1}


@POSTGRESQL
def test_a_row_that_another_transaction_holds_is_left_out(fleet: Fleet, store_url: str) -> None:
    """Whoever holds the row is at work on that grant: the group does not wait."""
    held, free = ids_of(fleet, 2)
    with psycopg.connect(store_url) as holder:
        holder.execute("SELECT 1 FROM grants WHERE id = %s FOR NO KEY UPDATE", (held,))

        claims = fleet.store.claim_group([held, free], owner="a worker", lease_seconds=60)
        holder.rollback()

    assert [claim.grant_id for claim in claims] == [free]
    assert fleet.store.grant_by_id(held).generation == 1


def test_an_older_attempt_in_doubt_is_returned_for_its_own_grant_alone(fleet: Fleet) -> None:
    """The others of the group have nothing unresolved."""
    doubtful, fine = ids_of(fleet, 2)
    fleet.store.release(
        fleet.claim(doubtful),
        outcome=AttemptOutcome.IN_DOUBT,
        next_refresh_at=fleet.soon(0),
        reason="lost",
        failed=True,
    )

    claims = fleet.store.claim_group([doubtful, fine], owner="a worker", lease_seconds=60)

    assert [claim.unresolved for claim in claims] == [(2,), ()]


def test_a_group_of_pairs_is_stored_as_each_would_be_alone(fleet: Fleet) -> None:
    """Current, late, of an older consent, and of a revoked grant: what became of each is returned in their order."""
    ids = ids_of(fleet, 5)
    claims = claim_all(fleet, ids)
    usual, late, consented, ended, asked = claims
    fleet.sql("UPDATE grants SET lease_until = 0 WHERE id = :id OR id = :other", id=ids[1], other=ids[4])
    fleet.claim(ids[1])
    fleet.add("creator 2", replace=True)
    fleet.store.mark_revoked("creator 3")
    assert fleet.store.ask_reauth(fleet.claim(ids[4]), reason="gone")

    saved = fleet.store.save_group([brought(fleet, claim) for claim in reversed(claims)])

    assert [each.grant_id for each in saved] == ids[::-1]
    assert [(each.moved, each.revived) for each in saved[::-1]] == [
        (True, False), (True, False), (False, False), (False, False), (True, True),
    ]  # fmt: skip
    assert saved[1].status is GrantStatus.REVOKED
    assert fleet.store.grant_by_id(usual.grant_id).lease_owner is None
    assert fleet.store.grant_by_id(late.grant_id).lease_owner == "a worker"
    assert fleet.current("creator 2") == b"access creator 2/2/3"
    assert fleet.store.undelivered_count(without=NEWS) == 0
    assert [fleet.store.attempts(each.grant_id, 10)[-1].outcome for each in (usual, late, consented, ended, asked)] == [
        AttemptOutcome.REFRESHED
    ] * 5


def test_two_pairs_of_one_grant_in_a_group_leave_the_newer_one_current(fleet: Fleet) -> None:
    """The older is kept and superseded; nothing stays open beside the pair that is served."""
    grant_id = ids_of(fleet, 1)[0]
    older, newer = fleet.claim(grant_id, seconds=0), fleet.claim(grant_id, seconds=0)

    fleet.store.save_group([brought(fleet, older, "older"), brought(fleet, newer, "newer")])

    assert fleet.current("creator 0") == b"access newer"
    assert fleet.sql("SELECT generation FROM pairs WHERE superseded_at IS NULL") == [(3,)]
    assert fleet.sql("SELECT count(*) FROM pairs")[0][0] == 3


def test_a_group_that_is_stored_a_second_time_changes_nothing(fleet: Fleet) -> None:
    """The commit's answer was lost, so the group is written again."""
    items = [brought(fleet, claim) for claim in claim_all(fleet, ids_of(fleet, 3))]
    fleet.store.save_group(items)
    before = [fleet.sql(statement) for statement in EVERYTHING]

    again = fleet.store.save_group(items)

    assert [each.moved for each in again] == [True] * 3
    assert before == [fleet.sql(statement) for statement in EVERYTHING]


@pytest.mark.parametrize("spoilt", ["unknown", "refused"])
def test_a_group_with_one_spoilt_row_is_stored_not_at_all(fleet: Fleet, spoilt: str) -> None:
    """Nothing is half stored: the caller may store each of them alone."""
    claims = claim_all(fleet, ids_of(fleet, 3))
    items = [brought(fleet, claim) for claim in claims]
    if spoilt == "unknown":
        items[1] = BroughtPair(404, 1, 2, items[1].pair)
    else:
        items[1] = BroughtPair(
            claims[1].grant_id, 1, 2, items[1].pair, "a\0nul" if fleet.store.kind != "sqlite" else "x"
        )
        if fleet.store.kind == "sqlite":
            fleet.sql(
                "CREATE TRIGGER refuse BEFORE UPDATE ON attempts WHEN NEW.request_id = 'x'"
                " BEGIN SELECT RAISE(ABORT, 'refused by a test'); END"
            )

    with pytest.raises(NotFoundError if spoilt == "unknown" else StoreUnavailableError):
        fleet.store.save_group(items)

    assert fleet.sql("SELECT count(*) FROM pairs")[0][0] == 3
    assert fleet.store.save_group([items[0], items[2]])[0].moved


def test_groups_that_share_grants_wait_for_each_other_and_not_in_a_circle(fleet: Fleet, store_url: str) -> None:
    """Two groups of late pairs name the same grants in opposite orders, over and over: no deadlock costs a try."""
    ids, barrier = ids_of(fleet, 12), threading.Barrier(2)
    rounds = [(claim_all(fleet, ids), _next(fleet, ids)) for _ in range(6)]
    stores = [open_store(store_url), open_store(store_url)]

    def save(place: int) -> None:
        for claims in rounds:
            ordered = claims[place] if place else list(reversed(claims[place]))
            barrier.wait(20)
            stores[place].save_group([brought(fleet, claim) for claim in ordered])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(save, range(2)))

    newest = rounds[-1][1][0].generation
    assert {fleet.store.grant_by_id(grant_id).pair_generation for grant_id in ids} == {newest}
    assert fleet.sql("SELECT DISTINCT generation FROM pairs WHERE superseded_at IS NULL") == [(newest,)]
    if fleet.store.kind == "postgresql":
        assert fleet.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    for store in stores:
        store.close()


@POSTGRESQL
def test_a_group_that_has_to_wait_in_the_middle_holds_nothing_that_another_waits_for(
    fleet: Fleet, store_url: str, wait_until: Callable[..., None]
) -> None:
    """Both groups stop at a row that somebody holds; one has its first rows by then, and the other has none."""
    ids = ids_of(fleet, 12)
    groups = [list(reversed(claim_all(fleet, ids))), _next(fleet, ids)]
    stores = [open_store(store_url), open_store(store_url)]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    with ThreadPoolExecutor(2) as pool, psycopg.connect(store_url) as holder:
        holder.execute("SELECT 1 FROM grants WHERE id = %s FOR NO KEY UPDATE", (ids[6],))
        saved = [
            pool.submit(store.save_group, [brought(fleet, claim) for claim in claims])
            for store, claims in zip(stores, groups, strict=True)
        ]
        wait_until(lambda: fleet.sql(waiting) == [(2,)], 20)
        holder.rollback()
        assert [len(each.result()) for each in saved] == [12, 12]

    assert fleet.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == [(0,)]
    for store in stores:
        store.close()


def _next(fleet: Fleet, ids: list[int]) -> list[Claim]:
    fleet.sql("UPDATE grants SET lease_until = 0")
    claims = claim_all(fleet, ids)
    fleet.sql("UPDATE grants SET lease_until = 0")
    return claims


def test_what_was_not_sent_is_given_back_together(fleet: Fleet) -> None:
    """The attempts are forgotten, the leases are free, and the lease of an heir is left alone."""
    ids = ids_of(fleet, 4)
    claims = claim_all(fleet, ids)
    fleet.sql("UPDATE grants SET lease_until = 0 WHERE id = :id", id=ids[0])
    heir = fleet.claim(ids[0])

    assert fleet.store.give_back(claims[:3]) == 2

    assert fleet.store.claimable(ids).due == (ids[1], ids[2])
    assert fleet.store.grant_by_id(ids[0]).lease_until == heir.lease_until
    assert [len(fleet.store.attempts(grant_id)) for grant_id in ids] == [1, 0, 0, 1]


@POSTGRESQL
def test_a_group_costs_as_many_statements_as_a_single_grant(fleet: Fleet) -> None:
    """Beside its BEGIN: one for what is due and how the brake stands, one to claim, and two to store."""
    for ids in (ids_of(fleet, 1), [fleet.add(f"another {number}").grant_id for number in range(20)]):
        assert _counted(fleet, partial(fleet.store.claimable, ids))[1] == 2
        claims, to_claim = _counted(fleet, partial(claim_all, fleet, ids))
        pairs = [brought(fleet, claim) for claim in claims]
        assert (len(pairs), to_claim) == (len(ids), 2)
        assert _counted(fleet, partial(fleet.store.save_group, pairs))[1] == 3


def _counted(fleet: Fleet, step: Callable[[], T]) -> tuple[T, int]:
    """Return what a step returns, and how many statements it has sent."""
    engine, sent = fleet.store._engine(), list[str]()

    def note(*arguments: Any) -> None:
        sent.append(arguments[2])

    event.listen(engine, "before_cursor_execute", note)
    try:
        return step(), len(sent)
    finally:
        event.remove(engine, "before_cursor_execute", note)
