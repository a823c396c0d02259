"""The watch over refreshing itself: due grants that nobody refreshes are reported, once, and so is the end of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.world import World

NewWorld = Callable[..., World]


def kinds(world: World) -> list[str]:
    """Return the kinds of all notices, oldest first."""
    return [notice.kind for notice in world.services.store.undelivered_notices()]


def fall_behind(world: World, seconds: int) -> None:
    """Let every grant have been due, and every attempt over, for this long."""
    ago = seconds * 1000
    world.sql(f"UPDATE grants SET next_refresh_at = (SELECT max(updated_at) FROM grants) - {ago}")  # noqa: S608 - a number
    world.sql(f"UPDATE attempts SET finished_at = finished_at - {ago}")  # noqa: S608 - a number


def test_due_grants_that_nobody_refreshes_are_one_alarm_and_one_all_clear(new_world: NewWorld) -> None:
    """The alarm comes once however long it lasts; a refresh brings the all-clear, and the next time is new trouble."""
    world = new_world()
    grant = world.creator()
    watch = world.services.idleness.watch
    watch()
    assert kinds(world) == []

    fall_behind(world, 400)
    for _ in range(3):
        watch()
    assert kinds(world) == ["refreshes_idle"]

    world.services.refresher.refresh(grant.grant_id)
    for _ in range(3):
        watch()
    assert kinds(world) == ["refreshes_idle", "refreshes_go_on"]

    fall_behind(world, 400)
    watch()
    assert kinds(world) == ["refreshes_idle", "refreshes_go_on", "refreshes_idle"]


def test_a_backlog_that_is_worked_on_is_no_alarm(new_world: NewWorld) -> None:
    """Grants that wait for their turn after an outage are due for long, and refreshing goes on all the same."""
    world = new_world()
    waiting, refreshed = world.creators(2)
    fall_behind(world, 4000)
    world.services.refresher.refresh(refreshed.grant_id)

    world.services.idleness.watch()

    assert world.services.store.due_seconds() > 300
    assert world.look(waiting).pair_generation == waiting.pair_generation
    assert kinds(world) == []


def test_a_stopped_app_is_no_second_alarm(new_world: NewWorld) -> None:
    """What the brake holds back has its alarm; when the brake is off and still nothing happens, this one comes."""
    world = new_world()
    world.creator()
    fall_behind(world, 400)
    world.services.store.pull_brake("TikTok refuses the app", probe_seconds=30)
    world.services.idleness.watch()
    assert kinds(world) == ["app_stopped"]

    world.services.store.release_brake()
    world.services.idleness.watch()
    assert kinds(world) == ["app_stopped", "refreshes_idle"]


def test_a_spent_quota_is_no_alarm(new_world: NewWorld) -> None:
    """TikTok said when to come back, so that nothing is tried until then is as it should be."""
    world = new_world()
    world.creator()
    fall_behind(world, 400)
    world.services.limiter.punish("day", 3600)

    world.services.idleness.watch()

    assert kinds(world) == []


def test_how_late_refreshes_are_is_a_metric(new_world: NewWorld) -> None:
    """It is the seconds of the grant that has been due longest, and 0 if none is."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id, force=True)
    assert world.services.refresh_late() == 0

    fall_behind(world, 400)
    assert 400 <= world.services.refresh_late() < 460
