"""One grant of which TikTok speaks as if the whole app were wrong: it alone fails, and the others go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.world import World
from worker.store import GrantStatus

NewWorld = Callable[..., World]


def poison(world: World, code: int) -> int:
    """Return a grant whose refreshes TikTok always refuses with this code, the most urgent of all."""
    grant = world.creator()
    world.sandbox.fault("code", creator=grant.creator_id, call="refresh", code=code, message="no")
    world.sql("UPDATE grants SET access_expires_at = access_expires_at - 3600000")  # it is the only one yet
    return grant.grant_id


def due_again(world: World) -> None:
    """Let half an hour pass for the brake, the attempts and everything that waits."""
    world.sql("UPDATE brake SET next_probe_at = next_probe_at - 1800000")
    world.sql("UPDATE attempts SET finished_at = finished_at - 1800000")
    world.sql("UPDATE grants SET next_refresh_at = next_refresh_at - 1800000")


def play_scan(world: World) -> list[str]:
    """Do what one scan hands out, as workers do; return what became of each."""
    services = world.services
    ids = [grant_id for message in services.scanner.refreshes() for grant_id in message.ids]
    return [services.refresher.refresh(grant_id).kind for grant_id in ids]


@pytest.mark.parametrize("code", [40109, 40002, 40113, 40101])
def test_one_poison_grant_does_not_stop_the_others(new_world: NewWorld, code: int) -> None:
    """In a quiet hour it may stop the app; the first healthy grant that comes due releases the brake for good."""
    world = new_world()
    bad = poison(world, code)
    for _ in range(6):
        world.services.refresher.refresh(bad, force=True)
    good = world.creators(12)
    for _ in range(2):
        due_again(world)
        play_scan(world)

    assert {world.look(grant).pair_generation for grant in good} == {2}
    assert not world.services.store.brake().stopped
    world.services.refresher.refresh(bad, force=True)
    assert not world.services.store.brake().stopped
    assert world.services.store.grant_by_id(bad).status is GrantStatus.ACTIVE


@pytest.mark.parametrize("code", [40109, 40113])
def test_a_poison_grant_has_an_alarm_of_its_own(new_world: NewWorld, code: int) -> None:
    """After the third failure in a row one notice names it, and only one."""
    world = new_world()
    bad, other = poison(world, code), world.creator()
    assert world.services.refresher.refresh(other.grant_id).kind == "refreshed"
    for _ in range(5):
        assert world.services.refresher.refresh(bad, force=True).kind == "failed"

    notices = world.services.store.undelivered_notices()
    assert [(notice.kind, notice.grant_id) for notice in notices] == [("stuck", bad)]
    assert str(code) in notices[0].detail


def test_a_wrong_secret_in_a_busy_fleet_stops_the_app_at_the_second_grant(new_world: NewWorld) -> None:
    """One grant might have come from another app; a second shows that the fault is in ours."""
    world = new_world()
    grants = world.creators(5)
    assert world.services.refresher.refresh(grants[0].grant_id).kind == "refreshed"
    world.sandbox.control("app", {"secret": "rotated"})

    kinds = [world.services.refresher.refresh(grant.grant_id).kind for grant in grants[1:]]

    assert kinds == ["failed", "failed", "braked", "braked"]
    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["app_stopped"]


def test_a_denied_permit_does_not_cost_the_probe(new_world: NewWorld) -> None:
    """While the brake is on and the quota is spent, the probe is still there when a permit is."""
    world = new_world()
    grant = world.creator()
    world.services.store.pull_brake("trouble", probe_seconds=0)
    world.services.limiter.punish("minute", 60)

    assert world.services.refresher.refresh(grant.grant_id).kind == "denied"
    assert world.services.store.may_refresh(probe_seconds=60)
