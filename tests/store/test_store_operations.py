"""Notices, the brake, the register of processes, and the counts of the fleet."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from worker.policy.verdicts import AttemptOutcome, FleetEvidence
from worker.store import BrakeState

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

HOUR = timedelta(hours=1)


def test_an_alarm_is_raised_once(fleet: Fleet) -> None:
    """A second one with its key is not written, whether the first was delivered or not."""
    assert fleet.store.raise_alarm("disk", "journal_full", "no room")
    assert not fleet.store.raise_alarm("disk", "journal_full", "no room")
    fleet.store.delivery_accepted(fleet.store.undelivered_notices()[0].notice_id, "ops")
    assert not fleet.store.raise_alarm("disk", "journal_full", "no room")


def test_a_pending_notice_is_held_by_one_deliverer_at_a_time(fleet: Fleet) -> None:
    """Four deliverers at once share the notices out; what is held comes back after its time."""
    for number in range(12):
        fleet.store.raise_alarm(f"alarm {number}", "kind", "detail")
    fleet.store.route_notices({"ops": None})
    barrier = threading.Barrier(4)

    def take(_: int) -> list[int]:
        barrier.wait(20)
        return [notice.notice_id for notice, _ in fleet.store.claim_deliveries("ops", 12)]

    with ThreadPoolExecutor(4) as pool:
        taken = [notice_id for column in pool.map(take, range(4)) for notice_id in column]

    assert len(taken) == len(set(taken)) == 12
    assert fleet.store.claim_deliveries("ops", 12) == []
    fleet.store.delivery_failed(taken[0], "ops", problem="HTTP 500", next_try_at=fleet.soon(-1))
    due = [(notice.notice_id, failures) for notice, failures in fleet.store.claim_deliveries("ops", 12)]
    assert due == [(taken[0], 1)]


def test_the_brake_is_pulled_once_with_one_alarm(fleet: Fleet) -> None:
    """Of many workers that see the trouble one stops the app and writes the notice."""
    barrier = threading.Barrier(4)

    def pull(number: int) -> bool:
        barrier.wait(20)
        return fleet.store.pull_brake(f"reason {number}", probe_seconds=60)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(pull, range(4))) == [False, False, False, True]

    state = fleet.store.brake()
    assert state.stopped
    notices = fleet.store.undelivered_notices()
    assert [(notice.kind, notice.detail) for notice in notices] == [("app_stopped", state.reason)]


def test_a_stopped_app_lets_one_probe_through_at_a_time(fleet: Fleet) -> None:
    """A probe is won once in its time, and everybody goes again after the release."""
    assert fleet.store.may_refresh(probe_seconds=60)
    fleet.store.pull_brake("trouble", probe_seconds=0)

    assert fleet.store.may_refresh(probe_seconds=60)
    assert not fleet.store.may_refresh(probe_seconds=60)
    assert fleet.store.release_brake()
    assert not fleet.store.release_brake()
    assert fleet.store.may_refresh(probe_seconds=60)
    assert fleet.store.brake() == BrakeState(None, None, None)
    assert fleet.store.pull_brake("trouble again", probe_seconds=60)
    assert fleet.store.undelivered_count() == 1  # the same trouble, until its all-clear


def test_processes_are_seen_while_they_say_hello(fleet: Fleet) -> None:
    """A later hello keeps the start."""
    fleet.store.hello("one", host="h", pid=1, key_ids={2, 1})
    fleet.store.hello("two", host="h", pid=2, key_ids=[])
    first = fleet.store.workers_seen(60)[0]

    fleet.store.hello("one", host="h", pid=1, key_ids={1, 2, 3})
    fleet.store.goodbye("two")

    seen = fleet.store.workers_seen(60)
    assert [(worker.instance_id, worker.key_ids) for worker in seen] == [("one", frozenset({1, 2, 3}))]
    assert seen[0].started_at == first.started_at
    assert seen[0].last_seen_at >= first.last_seen_at
    assert fleet.store.workers_seen(0) == []


def test_the_fleet_is_counted_by_what_people_ask(fleet: Fleet) -> None:
    """Fresh, due, overdue, expired, in doubt and waiting for their creators."""
    now = fleet.store.ping()
    life: dict[str, Any] = {"issued_at": now - 20 * HOUR, "access_expires_at": now + 4 * HOUR}
    fleet.add("fresh", next_refresh_at=now + HOUR, **life)
    fleet.add("due", next_refresh_at=now - HOUR, **life)
    fleet.add("overdue", issued_at=now - 23 * HOUR, access_expires_at=now + HOUR, next_refresh_at=now - 2 * HOUR)
    fleet.add("expired", issued_at=now - 25 * HOUR, access_expires_at=now - HOUR)
    fleet.add("revoked")
    fleet.store.mark_revoked("revoked")
    fleet.store.ask_reauth(fleet.claim(fleet.add("asked").grant_id), reason="gone")
    fleet.store.suspect(
        fleet.claim(fleet.add("suspect", **life).grant_id),
        outcome=AttemptOutcome.REFUSED,
        next_refresh_at=now + HOUR,
        reason="refused",
    )
    lost = fleet.claim(fleet.add("lost", **life).grant_id)
    fleet.store.release(lost, outcome=AttemptOutcome.IN_DOUBT, next_refresh_at=now + HOUR, reason="lost", failed=True)
    fleet.claim(fleet.add("dead", next_refresh_at=now + HOUR, **life).grant_id, seconds=0)
    fleet.claim(fleet.add("under way", next_refresh_at=now + HOUR, **life).grant_id)

    status = fleet.store.fleet_status()

    assert (status.total, status.needs_reauth) == (10, 1)
    assert status.by_status == {"active": 7, "suspect": 1, "needs_reauth": 1, "revoked": 1}
    assert (status.fresh, status.due, status.overdue, status.expired) == (5, 2, 1, 1)
    assert status.in_doubt == 3
    assert status.retrying == 2  # the lost one and the suspect one; who must authorize again is not tried
    assert status.least_seconds_left is not None
    assert -3700 < status.least_seconds_left < -3500
    assert 7100 < status.oldest_due_seconds < 7300


def test_an_empty_fleet_has_nothing_to_say(fleet: Fleet) -> None:
    """No grant, no least time left."""
    status = fleet.store.fleet_status()

    assert (status.total, status.least_seconds_left, status.oldest_due_seconds) == (0, None, 0.0)


def test_evidence_counts_the_attempts_that_ended_lately(fleet: Fleet) -> None:
    """Refusals and stops count grants, so one that is tried again and again is one; older ends do not count."""
    fleet.save(fleet.claim(fleet.add("refreshed").grant_id), "new")
    refused = fleet.add("refused")
    for _ in range(3):
        fleet.store.suspect(
            fleet.claim(refused.grant_id),
            outcome=AttemptOutcome.REFUSED,
            next_refresh_at=fleet.soon(),
            reason="refused",
        )
    for outcome, times in (
        (AttemptOutcome.NOT_SENT, 2),
        (AttemptOutcome.IN_DOUBT, 1),
        (AttemptOutcome.STOPPED, 3),
        (AttemptOutcome.BACKED_OFF, 1),
    ):
        grant = fleet.add(outcome.value)
        for _ in range(times):
            claim = fleet.claim(grant.grant_id)
            fleet.store.release(claim, outcome=outcome, next_refresh_at=fleet.soon(), reason="r", failed=True)
    fleet.claim(fleet.add("under way").grant_id)

    evidence = fleet.store.evidence(window_seconds=300)

    assert evidence == FleetEvidence(refreshed=1, refused=1, stopped=1, troubled=3, troubled_grants=2, unsent=2)
    assert fleet.store.evidence(window_seconds=300, without=refused.grant_id).refused == 0
    fleet.sql("UPDATE attempts SET finished_at = finished_at - 400000")
    assert fleet.store.evidence(window_seconds=300) == FleetEvidence(0, 0, 0, 0, 0)
