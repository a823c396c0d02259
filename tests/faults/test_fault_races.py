"""Workers meet each other, stand still, or are ended, in the middle of a refresh."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import NewScene
from tests.faults.kill_points import ORDER
from tests.faults.scene import Scene
from worker.policy.verdicts import AttemptOutcome
from worker.store import GrantStatus

pytestmark = [pytest.mark.slow_suite, pytest.mark.over_tls]


def test_eight_workers_on_the_same_grants_refresh_each_once(scene: Scene) -> None:
    """Every message comes to every worker, three times over; TikTok hears of each grant once."""
    grants = scene.creators(12)
    ids = [grant.grant_id for grant in grants]
    step = {"do": "refresh", "ids": ids, "threads": 3, "times": 3}
    for worker in [scene.worker(step, STORE_SECONDS="5", LEASE_SECONDS="7") for _ in range(8)]:
        worker.ended()

    assert scene.sent() == len(grants)
    assert {scene.look(grant).pair_generation for grant in grants} == {2}
    assert scene.judge() == {}


def test_a_worker_that_stood_still_before_sending_sends_nothing(scene: Scene, wait_until: Callable[..., None]) -> None:
    """Stopped for longer than its lease, it finds the lease too short, and the other worker's pair stays."""
    grant = scene.creator()
    stopped = scene.refresh(grant, at="pre_send:stop")
    stopped.stopped()
    wait_until(lambda: scene.store.claimable([grant.grant_id]).due)

    assert scene.kinds(scene.refresh(grant, STORE_SECONDS="5", LEASE_SECONDS="7")) == ["refreshed"]
    stopped.resume()

    assert scene.kinds(stopped) == ["skipped"]
    assert scene.sent() == 1
    assert scene.judge() == {}


@pytest.mark.parametrize("rotation", ["strict", "grace"])
def test_a_worker_that_stood_still_after_sending_still_stores_its_pair(
    new_scene: NewScene, rotation: str, wait_until: Callable[..., None]
) -> None:
    """The late answer is stored whatever was found out meanwhile; the grant is active and nobody is asked."""
    scene = new_scene(rotation)
    grant = scene.creator()
    stopped = scene.refresh(grant, at="post_recv:stop")
    stopped.stopped()
    wait_until(lambda: scene.store.claimable([grant.grant_id]).due)
    other = scene.refresh(grant, STORE_SECONDS="5", LEASE_SECONDS="7")

    assert scene.kinds(other) == (["failed"] if rotation == "strict" else ["refreshed"])
    assert scene.look(grant).status is (GrantStatus.SUSPECT if rotation == "strict" else GrantStatus.ACTIVE)
    stopped.resume()
    stopped.ended()

    assert scene.look(grant).status is GrantStatus.ACTIVE
    assert scene.judge() == {}


@pytest.mark.parametrize("stopped_at", ["before-reading", "while-waiting"])
def test_an_answer_that_came_while_its_worker_stood_still_is_read_past_the_deadline(
    scene: Scene, stopped_at: str, wait_until: Callable[..., None]
) -> None:
    """The whole answer lies in the kernel when the worker goes on, long after the call's deadline: it is stored."""
    grant = scene.creator()
    if stopped_at == "before-reading":
        worker = scene.refresh(grant, at="post_send:stop")
        worker.stopped()
    else:
        scene.sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=0.3, times=1)
        worker = scene.refresh(grant)
        wait_until(scene.sent)
        worker.stop()
    wait_until(lambda: scene.sent() and scene.store.claimable([grant.grant_id]).due)
    worker.resume()

    assert scene.kinds(worker) == ["refreshed"]
    assert scene.sent() == 1
    assert scene.judge() == {}


@pytest.mark.parametrize("rotation", ["strict", "grace"])
def test_a_worker_killed_while_tiktok_answers(new_scene: NewScene, rotation: str) -> None:
    """TikTok has rotated and its answer is still on the way: nobody reads it, and the ladder is climbed once."""
    scene = new_scene(rotation)
    grant = scene.creator()
    scene.sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=0.4, times=1)
    worker = scene.refresh(grant)
    while not scene.sent():
        assert worker.status is None
    worker.kill()

    assert scene.judge() == {}
    expected = GrantStatus.NEEDS_REAUTH if rotation == "strict" else GrantStatus.ACTIVE
    assert scene.look(grant).status is expected


@pytest.mark.parametrize("point", [point for point, _ in ORDER])
def test_a_worker_that_is_asked_to_end_finishes_what_it_began(scene: Scene, point: str) -> None:
    """SIGTERM at any point of the way: the refresh under way is finished, nothing is open and nothing is lost."""
    first, second = scene.creators(2)
    worker = scene.worker({"do": "serve", "threads": 1}, at=f"{point}:stop@1")
    worker.stopped()
    os.kill(worker.pid, signal.SIGTERM)
    worker.resume()

    assert worker.ended() == 0
    assert [note.kind for note in scene.notes() if note.what == "done"][:1] in (["refreshed"], ["skipped"])
    assert scene.store.stale_attempts(10) == []
    assert scene.judge() == {}
    assert scene.look(first).status is scene.look(second).status is GrantStatus.ACTIVE


def test_a_new_consent_while_a_refresh_is_in_flight_stays_current(scene: Scene) -> None:
    """The answer of the older consent is kept as a version, and the new consent's pair is served."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="post_recv:stop")
    worker.stopped()
    scene.consent_again(grant)()
    worker.resume()

    assert scene.kinds(worker) == ["superseded"]
    after = scene.look(grant)
    assert (after.consent, after.pair_generation) == (2, after.generation)
    assert len(scene.world.stored()[grant.creator_id]) == 3
    assert scene.judge() == {}


def test_a_refusal_of_an_older_consent_changes_nothing(scene: Scene) -> None:
    """The old refresh token is refused because the creator has just authorized again: nobody is asked."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="pre_send:stop")
    worker.stopped()
    scene.consent_again(grant)()
    worker.resume()
    worker.ended()

    after = scene.look(grant)
    assert (after.consent, after.status, after.failures) == (2, GrantStatus.ACTIVE, 0)
    assert scene.judge() == {}


def test_a_grant_revoked_while_a_refresh_is_in_flight_is_not_served_again(scene: Scene) -> None:
    """The pair that comes late is kept until it is revoked too, and no reader gets it."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="post_recv:stop")
    worker.stopped()
    scene.store.mark_revoked(grant.creator_id)
    scene.revoked.add(grant.creator_id)
    worker.resume()

    assert scene.kinds(worker) == ["superseded"]
    assert scene.look(grant).status is GrantStatus.REVOKED
    assert scene.look(grant).pair_generation == 1
    assert scene.judge() == {}


def test_two_deployments_on_one_database_share_its_leases(scene: Scene, tmp_path: Path) -> None:
    """Each has a journal of its own; a grant is claimed by one."""
    grants = scene.creators(6)
    workers = [scene.refresh(*grants, threads=2, JOURNAL_DIR=str(tmp_path / f"journal-{n}")) for n in range(2)]
    for worker in workers:
        worker.ended()

    assert scene.sent() == len(grants)
    assert scene.judge() == {}


def test_a_copied_journal_is_replayed_without_harm(scene: Scene, tmp_path: Path) -> None:
    """The same record from two folders: the second time changes nothing."""
    grant = scene.creator()
    scene.refresh(grant, at="pre_commit:kill").ended()
    copy = tmp_path / "copied"
    shutil.copytree(scene.journal_dir, copy)
    copy.chmod(0o700)
    scene.worker({"do": "replay"}).ended()
    before = scene.look(grant)
    scene.worker({"do": "replay"}, JOURNAL_DIR=str(copy)).ended()

    assert scene.look(grant).pair_generation == before.pair_generation == 2
    assert list(copy.glob("*.segment")) == []
    assert scene.judge() == {}


def test_a_pair_whose_worker_died_right_after_the_commit_is_pulled_once(
    scene: Scene, wait_until: Callable[..., None]
) -> None:
    """The wish for a pull is in the same commit as the pair, and one pull fulfils it."""
    grant = scene.creator()
    scene.refresh(grant, at="post_commit:kill").ended()

    def pulled() -> bool:
        pulls = [scene.worker({"do": "pull", "ids": scene.store.due_pulls(10)}) for _ in range(3)]
        for pull in pulls:
            pull.ended()
        return bool(scene.store.snapshots(grant.grant_id))

    wait_until(pulled, 60)  # the quota may have had no permit at once
    pulled()

    assert len(scene.store.snapshots(grant.grant_id)) == 1
    assert scene.judge() == {}


def test_a_lost_answer_ends_the_attempt_within_its_lease(scene: Scene) -> None:
    """An attempt in doubt is over before anybody else may claim its grant."""
    grant = scene.creator()
    scene.sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=5, times=50)
    scene.refresh(grant, LEASE_SECONDS="5").ended()
    attempt = scene.store.attempts(grant.grant_id)[0]

    assert attempt.outcome is AttemptOutcome.IN_DOUBT
    assert attempt.finished_at is not None
    assert (attempt.finished_at - attempt.claimed_at).total_seconds() < 5
    assert scene.sent() >= 2, "while the lease lasts, the call is repeated"
    assert scene.judge() == {}
