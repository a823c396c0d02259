"""What strikes the whole fleet: TikTok is down or refuses, a backup is restored, a clock is wrong, beat was away."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.faults.aging import milliseconds, run_sql
from tests.faults.scene import Scene
from worker.store import GrantStatus, GrantView
from worker.tokens import token_reader

pytestmark = pytest.mark.slow_suite

SERVE = {"do": "serve", "threads": 2}
YEAR = 366 * 86_400
APP_STOPPED = "app_stopped"
REFUSALS_HELD = "refusals_held"
REFUSALS_OVER = "refusals_over"


def kinds_of_notices(scene: Scene) -> list[str]:
    """Return the kinds of the notices that wait."""
    return [notice.kind for notice in scene.store.undelivered_notices()]


def age_tokens(scene: Scene, grant: GrantView, left: timedelta) -> None:
    """Let a grant's access token end in this time."""
    ends = milliseconds(scene.store.ping() + left)
    run_sql(scene.store, "UPDATE grants SET access_expires_at = :ends WHERE id = :id", ends=ends, id=grant.grant_id)


def test_an_outage_of_tiktok_stops_the_app_once_and_marks_nobody(scene: Scene, wait_until: Callable[..., None]) -> None:
    """Every call meets a 503: one alarm, one probe at a time, and when it is over every grant is refreshed."""
    grants = scene.creators(12)
    scene.sandbox.fault("status", call="refresh", status=503)
    worker = scene.worker(SERVE, IN_DOUBT_RETRY="never")
    wait_until(lambda: scene.store.brake().stopped, 20)
    sent = scene.sent()
    scene.world.make_due(grants[0])
    worker.finish()

    assert scene.sent() <= sent + 2, "calls under way when the brake was pulled"
    assert kinds_of_notices(scene) == [APP_STOPPED]
    assert {scene.look(grant).status for grant in grants} == {GrantStatus.ACTIVE}
    assert scene.judge() == {}
    assert {scene.look(grant).status for grant in grants} == {GrantStatus.ACTIVE}


@pytest.mark.parametrize("retry_after", ["1", "soon", None], ids=str)
def test_a_storm_of_refusals_for_the_quota_slows_the_app_down(
    scene: Scene, retry_after: str | None, wait_until: Callable[..., None]
) -> None:
    """Every answer is a 429: after the first nobody sends for a while, and no grant has a failure."""
    grants = scene.creators(8)
    scene.sandbox.fault("status", call="refresh", status=429, retry_after=retry_after)
    worker = scene.worker({"do": "serve", "threads": 1})
    wait_until(lambda: "denied" in [note.kind for note in scene.notes()])
    worker.finish()

    assert scene.sent() == 1
    assert {scene.look(grant).failures for grant in grants} == {0}
    assert scene.judge() == {}


def test_many_creators_gone_at_once_are_held_back_and_nobody_is_asked(scene: Scene) -> None:
    """TikTok calls an unlikely share of grants gone: the others go on, one alarm is raised, and nobody is asked."""
    grants = scene.creators(9)
    for grant in grants[2:]:
        scene.revoke(grant)
    for _ in range(3):
        scene.refresh(*grants, force=True).ended()

    assert not scene.store.brake().stopped
    assert scene.store.brake().held_reason
    assert kinds_of_notices(scene) == [REFUSALS_HELD]
    assert GrantStatus.NEEDS_REAUTH not in {scene.look(grant).status for grant in grants}
    assert [scene.look(grant).pair_generation for grant in grants[:2]] == [4, 4]


def test_a_restored_backup_of_yesterday_marks_nobody_and_serves_what_lives(scene: Scene) -> None:
    """The restored refresh tokens are all used up: the fleet is suspect, one alarm is raised, and nobody is asked."""
    grants = scene.creators(8)
    restore_backup(scene, *grants)
    for _ in range(3):
        scene.refresh(*grants, force=True).ended()

    assert scene.store.brake().held_reason is not None
    assert {scene.look(grant).status for grant in grants} == {GrantStatus.SUSPECT}
    assert kinds_of_notices(scene) == [REFUSALS_HELD]
    for grant in grants:
        assert token_reader(scene.world.services).access_token(grant.creator_id, min_validity=60)


def test_healthy_grants_go_on_beside_restored_ones_with_one_alarm_and_one_all_clear(scene: Scene) -> None:
    """A restore that lost some refreshes is one alarm; when the lost pairs are found, the hold ends by itself."""
    grants = scene.creators(20)
    lost, healthy = grants[:8], grants[8:]
    bring_back = restore_backup(scene, *lost)
    scene.refresh(*grants, force=True).ended()
    scene.refresh(*healthy, force=True).ended()
    scene.refresh(*lost, force=True).ended()
    assert {scene.look(grant).failures for grant in healthy} == {0}
    assert {scene.look(grant).status for grant in lost} == {GrantStatus.SUSPECT}
    assert kinds_of_notices(scene) == [REFUSALS_HELD]

    bring_back()
    scene.refresh(*lost, force=True).ended()
    scene.world.services.brake.settle()

    assert scene.store.brake().held_reason is None
    assert {scene.look(grant).status for grant in lost} == {GrantStatus.ACTIVE}
    assert kinds_of_notices(scene) == [REFUSALS_HELD, REFUSALS_OVER]


def restore_backup(scene: Scene, *grants: GrantView) -> Callable[[], None]:
    """Refresh grants and take the database back to before that; return what brings the newer pairs in again."""
    scene.refresh(*grants).ended()
    ids = ", ".join(str(grant.grant_id) for grant in grants)
    run_sql(
        scene.store,
        f"CREATE TABLE newer AS SELECT * FROM pairs WHERE generation > 1 AND grant_id IN ({ids})",  # noqa: S608 - our own ids
        f"DELETE FROM pairs WHERE generation > 1 AND grant_id IN ({ids})",  # noqa: S608 - as above
        f"DELETE FROM attempts WHERE grant_id IN ({ids})",  # noqa: S608 - as above
        f"UPDATE grants SET generation = 1, pair_generation = 1 WHERE id IN ({ids})",  # noqa: S608 - as above
    )

    def bring_back() -> None:
        run_sql(
            scene.store,
            "INSERT INTO pairs SELECT * FROM newer",
            f"UPDATE grants SET pair_generation = 2 WHERE id IN ({ids})",  # noqa: S608 - as above
        )

    return bring_back


def test_a_restored_backup_with_its_journals_is_brought_up_to_date(scene: Scene) -> None:
    """What the database lost and a journal still holds is stored again."""
    grant = scene.creator()
    scene.refresh(grant, at="post_commit:kill").ended()
    run_sql(
        scene.store,
        "DELETE FROM pairs WHERE generation > 1",
        "UPDATE attempts SET outcome = NULL, finished_at = NULL",
        "UPDATE grants SET pair_generation = 1",
    )
    scene.worker({"do": "replay"}).ended()

    assert scene.look(grant).pair_generation == 2
    assert scene.judge() == {}


@pytest.mark.parametrize("seconds", [YEAR, -YEAR, 3600, -3600], ids=str)
def test_a_worker_whose_clock_is_wrong_refreshes_all_the_same(scene: Scene, seconds: int) -> None:
    """Leases, due times and lives go by the database's clock and by clocks that nobody sets."""
    right, wrong = scene.creators(2)
    skewed = scene.worker({"do": "shift_clock", "seconds": seconds}, {"do": "refresh", "ids": [wrong.grant_id]})
    assert scene.kinds(skewed) == ["refreshed"]
    assert scene.kinds(scene.refresh(right)) == ["refreshed"]

    views = [scene.look(grant) for grant in (right, wrong)]
    assert abs((views[0].issued_at - views[1].issued_at).total_seconds()) < 30
    assert abs((views[0].next_refresh_at - views[1].next_refresh_at).total_seconds()) < 30
    assert scene.judge() == {}


def test_after_a_day_without_beat_the_grants_with_the_least_time_left_go_first(scene: Scene) -> None:
    """Everything is due at once: those that are about to end go first, ended ones next, then the rest by time left."""
    grants = scene.creators(6)
    left = [7200, 60, -3600, 3600, 300, -60]
    for grant, seconds in zip(grants, left, strict=True):
        age_tokens(scene, grant, timedelta(seconds=seconds))
    worker = scene.worker({"do": "serve", "threads": 1, "seconds": 1.5})
    worker.ended()

    names = {grant.creator_id: seconds for grant, seconds in zip(grants, left, strict=True)}
    order = [names[entry.creator or ""] for entry in scene.sandbox.entries() if entry.creator in names]
    assert order[len(grants) :] == [60, 300, -3600, -60, 3600, 7200]
    assert scene.judge() == {}


def test_a_scope_that_was_taken_away_is_stored_and_logged_once(scene: Scene) -> None:
    """The pair is stored with the narrower scope, and the log says which one is gone."""
    grant = scene.creator()
    scene.sandbox.fault("scope", creator=grant.creator_id, call="refresh", times=2, value="user.info.basic")
    worker = scene.worker(
        {"do": "refresh", "ids": [grant.grant_id]}, {"do": "refresh", "ids": [grant.grant_id], "force": True}
    )

    assert scene.kinds(worker) == ["refreshed", "refreshed"]
    assert scene.look(grant).scope == "user.info.basic"
    assert worker.said().count("grant.scope_narrowed") == 1
    assert scene.judge() == {}


def test_a_row_that_does_not_open_is_reported_and_the_batch_goes_on(scene: Scene) -> None:
    """Its sealed bytes were damaged: nothing is sent for it, its creator is not marked, one alarm is raised."""
    poison, good = scene.creators(2)
    run_sql(
        scene.store,
        "UPDATE pairs SET sealed_refresh = :bytes WHERE grant_id = :id",
        bytes=b"\0" * 80,
        id=poison.grant_id,
    )
    worker = scene.worker(
        {"do": "refresh", "ids": [poison.grant_id, good.grant_id]},
        {"do": "refresh", "ids": [poison.grant_id], "force": True, "times": 2},
    )

    assert scene.kinds(worker) == ["failed", "refreshed", "failed", "failed"]
    assert scene.world.refreshes(poison) == []
    assert kinds_of_notices(scene) == ["unreadable"]
    assert scene.look(poison).status is GrantStatus.ACTIVE


def test_every_combination_of_rotations_can_be_asked_of_the_stand_in(scene: Scene) -> None:
    """The four modes that the tests stand on are really different."""
    seen = {}
    for rotation, answer in (("strict", "same"), ("grace", "same"), ("grace", "another"), ("same", "same")):
        scene.sandbox.change(rotation=rotation, grace_answer=answer)
        grant = scene.creator()
        scene.refresh(grant, at="post_recv:kill").ended()
        scene.end_leases()
        scene.refresh(grant).ended()
        lines = scene.world.refreshes(grant)
        seen[rotation, answer] = (lines[-1].code, len({entry.fp_new_refresh for entry in lines} - {None}))

    assert seen == {
        ("strict", "same"): (40107, 1),
        ("grace", "same"): (0, 1),
        ("grace", "another"): (0, 2),
        ("same", "same"): (0, 1),
    }


def test_a_running_fleet_follows_a_contract_that_changes_under_it(
    scene: Scene, wait_until: Callable[..., None]
) -> None:
    """Lives become a fraction and rotation ends while two workers refresh: no token expires, one notice for each."""
    scene.sandbox.change(expires_in=60)
    grants = scene.creators(5)
    workers = [scene.worker({"do": "serve", "seconds": 40}) for _ in range(2)]
    try:
        wait_until(lambda: all(scene.look(grant).pair_generation >= 2 for grant in grants), 30)

        scene.sandbox.change(expires_in=6, rotation="same")
        for grant in grants:
            scene.world.make_due(grant)
        wait_until(lambda: len(_changes(scene)) >= 2, 30)
        wait_until(lambda: all(scene.look(grant).pair_generation >= 4 for grant in grants), 30)
        for worker in workers:
            assert worker.finish() == 0
        assert _changes(scene) == {"access_seconds": "6", "refresh_token_rotates": "no"}
        assert scene.judge() == {}
        assert sum(each.said().count('"contract.changed"') for each in workers) == len(_changes(scene))
    finally:
        scene.sandbox.change(expires_in=86_400, rotation="strict")


def _changes(scene: Scene) -> dict[str, str]:
    """Return what was announced of the contract; each term once."""
    found = [notice.data for notice in scene.store.undelivered_notices() if notice.kind == "contract_changed"]
    assert len({each["term"] for each in found if each}) == len(found)
    return {each["term"]: each["now"] for each in found if each}
