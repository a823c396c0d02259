"""Keys in use: taken into use only when all processes hold them, and out of use only when no pair needs them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from worker.errors import ReauthNeededError
from worker.store import GrantStatus

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

LIVING = 600.0


def test_a_key_has_one_sentinel(fleet: Fleet) -> None:
    """The first is kept, so that a wrong key of the same number is found out."""
    assert fleet.store.adopt_key(7, b"first", living_seconds=LIVING) == ()
    assert fleet.store.adopt_key(7, b"second", living_seconds=LIVING) == ()

    assert fleet.store.sentinels() == {7: b"first"}


def test_a_key_that_a_living_process_lacks_is_not_taken_into_use(fleet: Fleet) -> None:
    """Those that lack it are named; one that is gone or long silent holds up nobody."""
    fleet.store.hello("old", host="h", pid=1, key_ids=[1, 12])
    fleet.store.hello("new", host="h", pid=2, key_ids=[1, 2])

    assert fleet.store.adopt_key(2, b"two", living_seconds=LIVING) == ("old",)
    assert fleet.store.sentinels() == {}
    assert fleet.store.adopt_key(2, b"two", living_seconds=0) == ()
    fleet.store.retire_key(2)
    fleet.store.goodbye("old")
    assert fleet.store.adopt_key(2, b"two", living_seconds=LIVING) == ()
    assert fleet.store.sentinels() == {2: b"two"}


def test_a_process_that_lacks_a_key_in_use_is_not_on_the_list(fleet: Fleet) -> None:
    """It gets their ids; a process that was on the list before is taken off."""
    fleet.store.hello("late", host="h", pid=1, key_ids=[1])
    fleet.store.adopt_key(3, b"three", living_seconds=0)

    assert fleet.store.hello("late", host="h", pid=1, key_ids=[1, 2]) == {3}
    assert fleet.store.workers_seen(60) == []
    assert fleet.store.hello("late", host="h", pid=1, key_ids=[1, 3]) == frozenset()
    assert [worker.instance_id for worker in fleet.store.workers_seen(60)] == ["late"]


def test_of_a_new_key_and_a_process_without_it_one_gives_way(fleet: Fleet) -> None:
    """However the two fall together, there is never a key in use that a process on the list lacks."""
    for round_ in range(10):
        barrier = threading.Barrier(2)

        def enter(name: str, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(20)
            return not fleet.store.hello(name, host="h", pid=1, key_ids=[1])

        def adopt(_: str, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(20)
            return not fleet.store.adopt_key(2, b"two", living_seconds=LIVING)

        with ThreadPoolExecutor(2) as pool:
            entered = pool.submit(enter, f"process {round_}")
            adopted = pool.submit(adopt, "")
            assert entered.result() != adopted.result()
        fleet.store.goodbye(f"process {round_}")
        fleet.store.retire_key(2)


def test_a_key_is_retired_when_no_pair_needs_it(fleet: Fleet) -> None:
    """A pair of the key keeps it in use; a wiped one does not."""
    grant = fleet.add()
    fleet.store.adopt_key(1, b"one", living_seconds=LIVING)
    assert not fleet.store.retire_key(1)
    assert fleet.store.sentinels() == {1: b"one"}

    fleet.store.mark_revoked(fleet.store.grant_by_id(grant.grant_id).creator_id)

    assert fleet.store.key_usage() == {}
    assert fleet.store.retire_key(1)
    assert fleet.store.sentinels() == {}


def test_a_process_reports_what_it_seals_with_and_what_its_journal_needs(fleet: Fleet) -> None:
    """A key is retired by what processes said last."""
    fleet.store.hello("one", host="h", pid=1, key_ids=[1, 2], sealing_key_id=2, journal_key_ids={1})
    fleet.store.hello("two", host="h", pid=2, key_ids=[2])
    one, two = fleet.store.workers_seen(60)

    assert (one.sealing_key_id, one.journal_key_ids) == (2, frozenset({1}))
    assert (two.sealing_key_id, two.journal_key_ids) == (None, frozenset())


def test_a_lost_key_costs_only_what_it_sealed(fleet: Fleet) -> None:
    """The creator whose current pair it sealed is asked once; a grant that lost an older pair goes on."""
    lost, older, other = (fleet.add(name) for name in ("lost", "older", "other"))
    fleet.save(fleet.claim(older.grant_id), "newer")
    fleet.sql("UPDATE pairs SET key_id = 2")
    fleet.sql("UPDATE pairs SET key_id = 1 WHERE grant_id = :id", id=lost.grant_id)
    fleet.sql("UPDATE pairs SET key_id = 1 WHERE grant_id = :id AND generation = 1", id=older.grant_id)
    for key_id in (1, 2):
        fleet.store.adopt_key(key_id, b"sealed", living_seconds=60)

    first = fleet.store.abandon_key(1, "the key is lost", living_seconds=60)
    again = fleet.store.abandon_key(1, "the key is lost", living_seconds=60)

    assert (first.pairs, first.asked, first.held_by) == (2, 1, ())
    assert (again.pairs, again.asked) == (0, 0)
    assert set(fleet.store.key_usage()) == set(fleet.store.sentinels()) == {2}
    assert fleet.store.grant("lost").status is GrantStatus.NEEDS_REAUTH
    assert [notice.creator_id for notice in fleet.store.undelivered_notices()] == ["lost"]
    with pytest.raises(ReauthNeededError):
        fleet.store.current_pair("lost")
    for name in ("older", "other"):
        assert fleet.store.grant(name).status is GrantStatus.ACTIVE
        assert fleet.current(name)
    assert fleet.claim(other.grant_id)
    assert fleet.claim(older.grant_id).kept == (2,)


def test_a_key_that_a_living_process_holds_is_not_lost(fleet: Fleet) -> None:
    """That process is named, and nothing is wiped; one that has been silent for long holds nothing any more."""
    fleet.add("ada")
    fleet.store.hello("host:1:aa", host="host", pid=1, key_ids=[1], sealing_key_id=1)

    assert fleet.store.abandon_key(1, "lost", living_seconds=60).held_by == ("host:1:aa",)
    assert fleet.store.key_usage() == {1: 1}
    fleet.sql("UPDATE workers SET last_seen_at = last_seen_at - 100000")
    assert fleet.store.abandon_key(1, "lost", living_seconds=60).pairs == 1
