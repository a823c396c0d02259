"""Groups of grants: a worker dies with several in hand, or one of them is refused."""

from __future__ import annotations

import pytest

from tests.faults.databases import refuse_pairs, take_pairs
from tests.faults.kill_points import ORDER
from tests.faults.scene import Scene
from worker.store import GrantStatus

pytestmark = pytest.mark.slow_suite

SETTINGS = {"LEASE_SECONDS": "7", "STORE_SECONDS": "1"}


@pytest.mark.parametrize("point", [point for point, _ in ORDER])
def test_a_killed_group_loses_no_pair(scene: Scene, point: str) -> None:
    """Killed at the second passing of a point, or the first if a group passes it once: the oracle finds nothing."""
    grants = scene.creators(4)
    once = {"pre_claim", "post_claim", "pre_commit", "post_commit"}
    step = {"do": "group", "ids": [grant.grant_id for grant in grants]}
    killed = scene.worker(step, at=f"{point}:kill@{1 if point in once else 2}", **SETTINGS)
    killed.ended()

    assert killed.was_killed
    assert scene.judge() == {}


def test_a_row_that_is_refused_leaves_its_group_and_the_others_are_stored(scene: Scene) -> None:
    """One grant's pair cannot be written: its answer alone stays in the journal."""
    grants = scene.creators(4)
    bad = grants[1]
    refuse_pairs(scene.store, bad.grant_id)
    worker = scene.worker({"do": "group", "ids": [grant.grant_id for grant in grants]}, {"do": "hold"}, **SETTINGS)
    scene.wait_for("refreshed 3 of 4")

    assert [scene.look(grant).pair_generation for grant in grants] == [2, 1, 2, 2]
    assert len(scene.kept()) == 1
    take_pairs(scene.store)
    worker.kill()
    assert scene.judge() == {}
    assert scene.look(bad).status is GrantStatus.ACTIVE


def test_eight_workers_with_the_same_message_refresh_each_grant_once(scene: Scene) -> None:
    """Groups of the same grants in the same order meet in the database, and no grant is sent twice."""
    grants = scene.creators(24)
    step = {"do": "group", "ids": [grant.grant_id for grant in grants]}
    for worker in [scene.worker(step, LEASE_SECONDS="9", STORE_SECONDS="5") for _ in range(8)]:
        worker.ended()

    assert scene.sent() == len(grants)
    assert {scene.look(grant).pair_generation for grant in grants} == {2}
    assert scene.judge() == {}
