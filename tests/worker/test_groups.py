"""Groups of grants: refreshed together by one thread, each as if it were alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.support.claims import claim_one
from tests.support.world import World
from worker.errors import StoreRefusedError
from worker.journal import Journal
from worker.limiter import Permit
from worker.policy.verdicts import AttemptOutcome
from worker.refresh import call, group
from worker.refresh.group import FEWEST_THREADS, MOST, Group, Pace, Turns, Watch
from worker.store import GrantStatus, GrantView
from worker.tiktok import read_or_salvage

NewWorld = Callable[..., World]
QUICK = 0.001


@pytest.fixture
def quick_world(new_world: NewWorld) -> NewWorld:
    """Make worlds whose calls are expected to take a millisecond, so that groups are large from the first."""

    def make(*arguments: Any, **settings: str) -> World:
        world = new_world(*arguments, **settings)
        world.services.refresher.pace = Pace(QUICK)
        return world

    return make


def ids_of(grants: list[GrantView]) -> list[int]:
    """Return the ids of grants."""
    return [grant.grant_id for grant in grants]


def test_a_message_is_refreshed_in_groups_and_each_grant_once(quick_world: NewWorld) -> None:
    """Every pair is current, every record released, every lease free, and the ids are returned in their order."""
    world = quick_world()
    grants = world.creators(30)

    batch = world.services.refresher.refresh_all(ids_of(grants) * 2)

    assert sorted(batch.refreshed) == sorted(ids_of(grants))
    assert (batch.denied, batch.resumed) == ((), False)
    after = [world.look(grant) for grant in grants]
    assert {(grant.pair_generation, grant.lease_owner, grant.failures) for grant in after} == {(2, None, 0)}
    assert world.services.journal.waiting() == 0
    assert [len(world.refreshes(grant)) for grant in grants] == [1] * 30
    assert world.verdict(*grants).sound


def test_three_transactions_do_for_a_whole_group(quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due and whether the brake is on, the claims, and the pairs: one transaction each, however many grants."""
    world = quick_world()
    world.services.refresher.refresh(world.creator().grant_id)
    world.services.refresher.pace = Pace(QUICK)
    grants, writes = world.creators(10), list[bool]()
    store = world.services.store
    transact = store.transact

    def counted(work: Any, *, writes_too: bool) -> Any:
        writes.append(writes_too)
        return transact(work, writes=writes_too)

    monkeypatch.setattr(store, "transact", lambda work, *, writes: counted(work, writes_too=writes))
    assert len(world.services.refresher.refresh_all(ids_of(grants)).refreshed) == 10

    assert writes == [False, True, True]


@pytest.mark.parametrize(
    ("kind", "how", "outcome", "status"),
    [
        pytest.param("status", {"status": 502}, AttemptOutcome.IN_DOUBT, GrantStatus.ACTIVE, id="502"),
        pytest.param("lost", {}, AttemptOutcome.IN_DOUBT, GrantStatus.ACTIVE, id="lost"),
        pytest.param("code", {"code": 40107}, AttemptOutcome.REFUSED, GrantStatus.SUSPECT, id="refused"),
        pytest.param("wrong_creator", {"creator_id": "x"}, AttemptOutcome.MISFIT, GrantStatus.ACTIVE, id="another's"),
    ],
)
def test_an_unusual_answer_leaves_its_group_alone(
    quick_world: NewWorld, kind: str, how: dict[str, Any], outcome: AttemptOutcome, status: GrantStatus
) -> None:
    """It is judged as if it had come alone, and its neighbours' pairs are stored."""
    world = quick_world(IN_DOUBT_RETRY="never")
    grants = world.creators(5)
    odd = grants[2]
    world.sandbox.fault(kind, creator=odd.creator_id, call="refresh", times=1, **how)

    batch = world.services.refresher.refresh_all(ids_of(grants))

    assert set(batch.refreshed) == set(ids_of(grants)) - {odd.grant_id}
    assert world.services.store.attempts(odd.grant_id)[0].outcome is outcome
    assert world.look(odd).status is status
    assert world.look(odd).lease_owner is None


def test_a_grant_with_an_attempt_in_doubt_is_treated_alone(quick_world: NewWorld) -> None:
    """Journals are looked through for it; nothing of that concerns its neighbours."""
    world = quick_world("same")
    grants = world.creators(4)
    assert claim_one(world.services.store, grants[1].grant_id, owner="dead", lease_seconds=1) is not None
    world.sql("UPDATE grants SET lease_until = 0")

    batch = world.services.refresher.refresh_all(ids_of(grants))

    assert set(batch.refreshed) == set(ids_of(grants))
    assert batch.refreshed[-1] == grants[1].grant_id


def test_no_answer_is_read_before_it_is_synced(quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer's bytes are on disk when the first of its words is read."""
    world, synced, early = quick_world(), set[int](), list[int]()
    grants = world.creators(8)
    real_sync, real_read = Journal.sync, read_or_salvage

    def sync(journal: Journal, written: Any) -> Any:
        record = real_sync(journal, written)
        synced.add(record.number)
        return record

    def read(raw: Any) -> Any:
        early.append(len(synced))
        return real_read(raw)

    monkeypatch.setattr(Journal, "sync", sync)
    monkeypatch.setattr(call, "read_or_salvage", read)
    assert len(world.services.refresher.refresh_all(ids_of(grants)).refreshed) == 8

    assert all(read_after >= place for place, read_after in enumerate(early, start=1))


def test_every_request_of_a_group_has_a_permit_of_its_own(
    quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question brings them all, and none is used twice."""
    world, used = quick_world(), list[int]()
    limiter = world.services.limiter
    depart = limiter.depart

    def noted(permit: Permit | None = None) -> float:
        wait = depart(permit)
        if not wait:
            used.append(id(permit))
        return wait

    monkeypatch.setattr(limiter, "depart", noted)
    grants = world.creators(12)
    assert len(world.services.refresher.refresh_all(ids_of(grants)).refreshed) == 12

    assert len(used) == len(set(used)) == 12


def test_a_thread_has_no_more_in_hand_than_a_group(quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the message is: a process that is killed leaves few attempts open, and nothing heaps up."""
    world = quick_world()
    grants, sizes = world.creators(MOST + 20), list[int]()
    claim_group = world.services.store.claim_group

    def noted(ids: Any, **how: Any) -> Any:
        claims = claim_group(ids, **how)
        sizes.append(len(claims))
        return claims

    monkeypatch.setattr(world.services.store, "claim_group", noted)
    assert len(world.services.refresher.refresh_all(ids_of(grants)).refreshed) == MOST + 20

    assert 1 < max(sizes) <= MOST


def test_what_would_be_sent_late_is_given_back_and_done_in_a_later_group(
    quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes long: its neighbours are claimable by others meanwhile, and this thread takes them up again."""
    world, given_back = quick_world(DEADLINE_SECONDS="1.5", LEASE_SECONDS="8"), list[int]()
    monkeypatch.setattr("worker.refresh.refresher.JUST_IN_TIME_SECONDS", 0.5)
    grants = world.creators(4)
    world.sandbox.fault("slow", creator=grants[0].creator_id, call="refresh", times=1, seconds=1)
    give_back = world.services.store.give_back

    def noted(claims: Any) -> int:
        given_back.extend(claim.grant_id for claim in claims)
        return give_back(claims)

    monkeypatch.setattr(world.services.store, "give_back", noted)
    batch = world.services.refresher.refresh_all(ids_of(grants))

    assert given_back == ids_of(grants[1:])
    assert set(batch.refreshed) == set(ids_of(grants))
    assert [len(world.services.store.attempts(grant.grant_id)) for grant in grants] == [1] * 4
    assert world.services.refresher.pace.group_size == 1


def test_the_neighbours_of_a_call_that_hangs_are_stored_meanwhile(
    quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """A neighbour's pair is current long before the call that hangs has ended."""
    world = quick_world(DEADLINE_SECONDS="4", LEASE_SECONDS="20")
    monkeypatch.setattr("worker.refresh.refresher.NEIGHBOURS_SECONDS", 0.2)
    first, hanging = world.creators(2)
    world.sandbox.fault("slow", creator=hanging.creator_id, call="refresh", times=1, seconds=3)
    thread = threading.Thread(target=world.services.refresher.refresh_all, args=([first.grant_id, hanging.grant_id],))
    thread.start()
    wait_until(lambda: world.look(first).pair_generation == 2)

    assert world.look(hanging).pair_generation == 1
    thread.join()
    assert world.look(hanging).pair_generation == 2
    assert world.services.journal.waiting() == 0


def test_one_watch_concludes_each_late_group_once_and_none_that_ended(wait_until: Callable[..., None]) -> None:
    """A group whose conclusion hangs keeps no other one waiting, and a group that ended in time is left alone."""
    concluded, hang = list[Group](), threading.Event()

    def conclude(group: Group) -> None:
        concluded.append(group)
        if group is stuck:
            hang.wait(30)

    watch, stuck, late, ended = Watch(conclude), Group([]), Group([]), Group([])
    with watch.over(ended, seconds=0.1):
        pass
    with watch.over(stuck, seconds=0.1):
        wait_until(lambda: concluded == [stuck])
        with watch.over(late, seconds=0.1):
            wait_until(lambda: concluded == [stuck, late])
            hang.set()
    with watch.over(ended, seconds=0.1):
        wait_until(lambda: concluded == [stuck, late, ended])


def test_a_database_that_refuses_the_group_gets_the_pairs_one_by_one(
    quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a transaction of its own then, so that a row that spoils the group is left to itself."""
    world, sizes = quick_world(), list[int]()
    save_group = world.services.store.save_group

    def refusing(brought: Any) -> Any:
        sizes.append(len(brought))
        if len(brought) > 1:
            raise StoreRefusedError("a row of the group is unfit")
        return save_group(brought)

    monkeypatch.setattr(world.services.store, "save_group", refusing)
    grants = world.creators(3)

    assert len(world.services.refresher.refresh_all(ids_of(grants)).refreshed) == 3
    assert sizes == [3, 1, 1, 1]
    assert world.services.journal.waiting() == 0


def test_the_brake_lets_one_of_a_group_through_and_its_release_is_reported(quick_world: NewWorld) -> None:
    """The probe is one request; when it succeeds, the caller learns that what waited is due."""
    world = quick_world()
    grants = world.creators(4)
    world.services.store.pull_brake("trouble", probe_seconds=0)
    world.sql("UPDATE brake SET next_probe_at = 0")

    batch = world.services.refresher.refresh_all(ids_of(grants))

    assert batch.resumed
    assert len(batch.refreshed) == 4
    world.services.store.pull_brake("trouble again", probe_seconds=60)
    more = world.creators(3)
    assert world.services.refresher.refresh_all(ids_of(more)).refreshed == ()
    assert [world.refreshes(grant) for grant in more] == [[], [], []]


def test_a_pace_is_slow_at_once_and_quick_step_by_step() -> None:
    """One long call makes the next group small; it takes several short ones to make it large again."""
    pace = Pace(QUICK)
    assert pace.group_size == MOST

    pace.note(1.0)
    assert pace.group_size == 1
    for _ in range(3):
        pace.note(QUICK)
    assert pace.group_size == 1
    for _ in range(40):
        pace.note(QUICK)
    assert pace.group_size == MOST


def test_a_call_that_waited_for_other_threads_leaves_groups_large() -> None:
    """One that took some ten milliseconds among quick ones is one of many, not a sign that TikTok has become slow."""
    pace = Pace(QUICK)
    pace.note(0.02)

    assert pace.group_size == MOST


def test_a_slow_claim_leaves_less_time_for_calls() -> None:
    """The permits of a group are for moments after its claims, and no more are wanted than can be used."""
    pace = Pace(0.01)
    size = pace.group_size
    for _ in range(40):
        pace.note_start(0.05)

    assert pace.start == pytest.approx(0.05 * 1.25, rel=0.01)
    assert pace.group_size < size


def test_many_threads_are_of_use_while_tiktok_is_waited_for_and_few_while_it_is_not() -> None:
    """What counts is how long the quickest of the last calls had nothing to do, beside the work of a refresh."""
    pace = Pace()
    pace.note_work(0.01, 10)
    assert pace.threads > 100

    for _ in range(40):
        pace.note(0.02, 0.0001)
    assert pace.threads == FEWEST_THREADS
    for _ in range(40):
        pace.note(0.2, 0.19)
    assert pace.threads > 100


def test_no_more_threads_take_part_than_are_of_use_and_a_long_turn_does_not_count(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """Threads that are not of use wait until one has ended, also by an error, or takes long because a call hangs."""
    monkeypatch.setattr(group, "LONGEST_TURN_SECONDS", 0.4)
    pace, turns = Pace(QUICK), Turns()
    pace.note_work(1.0, 1)
    pace.note(QUICK, 0.0)
    begun, end = list[int](), threading.Event()

    def take(number: int) -> None:
        with suppress(KeyError), turns.one(pace):
            begun.append(number)
            if number != FEWEST_THREADS:
                end.wait(30)
            raise KeyError

    threads = [threading.Thread(target=take, args=(number,)) for number in range(2 * FEWEST_THREADS)]
    for thread in threads[:FEWEST_THREADS]:
        thread.start()
    wait_until(lambda: len(begun) == FEWEST_THREADS)
    started = time.monotonic()
    for thread in threads[FEWEST_THREADS:]:
        thread.start()
    assert len(begun) == FEWEST_THREADS
    wait_until(lambda: len(begun) == 2 * FEWEST_THREADS)
    assert time.monotonic() - started > 0.1
    end.set()
    for thread in threads:
        thread.join()


def test_turns_one_after_the_other_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that has ended is given back: however many come, none waits until an old one counts no more."""
    monkeypatch.setattr(group, "LONGEST_TURN_SECONDS", 3600)
    pace, turns = Pace(QUICK), Turns()
    pace.note_work(1.0, 1)

    for _ in range(3 * FEWEST_THREADS):
        with turns.one(pace):
            assert turns._taken() == 1
    assert turns._taken() == 0


def test_the_quick_calls_of_a_group_ask_the_limiter_once(
    quick_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The permits are for the moments at which the calls leave, after the claims, so none is late."""
    world, late = quick_world(), list[str]()
    shared = world.services.limiter._shared
    depart, claim_group = shared.depart, world.services.store.claim_group

    def slow_claim(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.03)
        return claim_group(*arguments, **options)

    def noted(permits: list[tuple[str, float]]) -> Any:
        late.extend(name for name, _ in permits)
        return depart(permits)

    monkeypatch.setattr(world.services.store, "claim_group", slow_claim)
    monkeypatch.setattr(shared, "depart", noted)

    for _ in range(20):  # a machine that is busy with other things makes calls late, but not in every group
        late.clear()
        for _ in range(10):
            world.services.refresher.pace.note_start(0.3)
        assert len(world.services.refresher.refresh_all(ids_of(world.creators(3))).refreshed) == 3
        if not late:
            return
    pytest.fail("each of twenty groups had calls that asked again")
