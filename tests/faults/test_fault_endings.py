"""A process is killed between any two steps of revoking a grant or forgetting a creator; another goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from tests.faults.scene import Scene
from worker.errors import NotFoundError
from worker.failpoints import ENDS
from worker.store import GrantStatus
from worker.tokens import token_reader

pytestmark = pytest.mark.slow_suite

REVOKE: Final = ("end_begun", "end_at_tiktok", "end_wiped")
FORGET: Final = ("forget_begun", "end_at_tiktok", "end_wiped", "forget_rows", "forget_done", "forget_journal")


def test_every_step_has_its_kill() -> None:
    """A failpoint that is added needs its test."""
    assert set(REVOKE) | set(FORGET) == ENDS


def finish(scene: Scene, step: Mapping[str, Any], how: str) -> None:
    """Let the same command, or a worker's upkeep, go on."""
    assert scene.worker(step if how == "again" else {"do": "keep_house"}).ended() == 0
    assert scene.store.endings_waiting().oldest_at is None


@pytest.mark.parametrize("how", ["again", "upkeep"])
@pytest.mark.parametrize("point", REVOKE)
def test_a_killed_revocation_is_finished(scene: Scene, point: str, how: str) -> None:
    """From the first step on nobody is served; in the end TikTok knows, and no pair is left."""
    grant = scene.creator()
    scene.revoked.add(grant.creator_id)
    step = {"do": "revoke", "creator": grant.creator_id}

    killed = scene.worker(step, at=f"{point}:kill")
    killed.ended()
    assert killed.was_killed, killed.said()
    with pytest.raises(NotFoundError):
        token_reader(scene.world.services).access_token(grant.creator_id)
    finish(scene, step, how)

    assert scene.sandbox.creator(grant.creator_id)["revoked"]
    assert scene.store.all_pairs() == []
    assert scene.look(grant).status is GrantStatus.REVOKED
    assert [notice.kind for notice in scene.store.undelivered_notices()] == ["revoked"]
    assert scene.judge() == {}


@pytest.mark.parametrize("how", ["again", "upkeep"])
@pytest.mark.parametrize("point", FORGET)
def test_a_killed_removal_is_finished(scene: Scene, point: str, how: str) -> None:
    """In the end TikTok knows, no row of the creator is left, and the tombstone is closed."""
    grant, other = scene.creators(2)
    scene.refresh(grant, force=True).ended()
    step = {"do": "forget", "creator": grant.creator_id}

    killed = scene.worker(step, at=f"{point}:kill")
    killed.ended()
    assert killed.was_killed, killed.said()
    with pytest.raises(NotFoundError):
        token_reader(scene.world.services).access_token(grant.creator_id)
    finish(scene, step, how)

    assert scene.sandbox.creator(grant.creator_id)["revoked"]
    assert [left.creator_id for left in scene.store.grants()] == [other.creator_id]
    assert {pair.creator_id for pair in scene.store.all_pairs()} == {other.creator_id}
    assert scene.store.attempts(grant.grant_id) == []
    assert scene.store.undelivered_notices() == []
    assert scene.store.tombstones([grant.creator_id])[grant.creator_id].finished_at is not None
    scene.grants.remove(grant)
    assert scene.judge() == {}


def test_a_refresh_in_flight_is_waited_for_before_its_creator_is_forgotten(
    scene: Scene, wait_until: Callable[..., None]
) -> None:
    """Its pair, the only one that TikTok still takes under strict rotation, is the one that is revoked."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="post_recv:stop", LEASE_SECONDS="20")
    worker.stopped()
    forgetting = scene.worker({"do": "forget", "creator": grant.creator_id})
    wait_until(lambda: scene.look(grant).status is GrantStatus.REVOKED)

    worker.resume()
    worker.ended()
    forgetting.ended()

    assert scene.sandbox.creator(grant.creator_id)["revoked"]
    assert scene.store.grants() == []
    assert scene.kept() == set()


def test_a_pair_that_comes_after_its_creator_was_forgotten_is_kept_nowhere(scene: Scene) -> None:
    """A worker that stood still for longer than its lease finds no grant, and sets no pair aside."""
    grant = scene.creator()
    worker = scene.refresh(grant, at="post_fsync:stop")
    worker.stopped()
    scene.end_leases()
    assert scene.worker({"do": "forget", "creator": grant.creator_id}).ended() == 0
    assert scene.store.grants() == []

    worker.resume()
    worker.ended()

    assert scene.worker({"do": "enter"}, {"do": "keep_house"}).ended() == 0
    assert scene.kept() == set()
    assert scene.store.all_pairs() == []
    assert "journal.grant_unknown" not in "".join(each.said() for each in scene.workers)
