"""Alarms that come once for one trouble, and what a person does about grants that TikTok calls gone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from tests.support.world import World
from worker.celery import app
from worker.cli.grants import grants as grants_command
from worker.store import GrantStatus, GrantView

NewWorld = Callable[..., World]


def kinds(world: World) -> list[str]:
    """Return the kinds of all notices, oldest first."""
    return [notice.kind for notice in world.services.store.undelivered_notices()]


def recheck(world: World, monkeypatch: pytest.MonkeyPatch, *options: str, given: str | None = None) -> Result:
    """Run `grants recheck --json` as a person would."""
    for name, value in world.environ.items():
        monkeypatch.setenv(name, value)

    context = CLIContext(app=app, no_color=True, workdir=None)
    return CliRunner().invoke(grants_command, ["recheck", "--json", *options], obj=context, input=given)


def refuse(world: World, grant: GrantView) -> None:
    """Let TikTok call a grant gone at each refresh."""
    world.sandbox.fault("code", creator=grant.creator_id, call="refresh", code=40105, message="no")


def gone(world: World, count: int) -> list[int]:
    """Return grants that TikTok calls gone, each refused once."""
    lost = world.creators(count)
    for grant in lost:
        refuse(world, grant)
        world.services.refresher.refresh(grant.grant_id, force=True)
    return [grant.grant_id for grant in lost]


def test_a_brake_that_flaps_is_one_alarm_and_one_all_clear(new_world: NewWorld) -> None:
    """A stop that returns before the all-clear raises no second alarm; after the all-clear it is a new trouble."""
    world = new_world()
    store = world.services.store
    for _ in range(8):
        assert store.pull_brake("TikTok is in trouble", probe_seconds=30)
        assert store.release_brake()
        world.services.brake.settle()
    assert kinds(world) == ["app_stopped"]

    world.sql("UPDATE brake SET released_at = released_at - 301000")
    for _ in range(2):
        world.services.brake.settle()
    assert kinds(world) == ["app_stopped", "app_resumed"]

    store.pull_brake("again", probe_seconds=30)
    assert kinds(world) == ["app_stopped", "app_resumed", "app_stopped"]


def test_no_all_clear_comes_while_the_app_is_stopped(new_world: NewWorld) -> None:
    """An earlier stop's end does not announce the end of the one that lasts."""
    world = new_world()
    world.services.store.pull_brake("first", probe_seconds=30)
    world.services.store.release_brake()
    world.sql("UPDATE brake SET released_at = released_at - 301000")
    world.services.store.pull_brake("second", probe_seconds=30)

    world.services.brake.settle()

    assert kinds(world) == ["app_stopped"]


def test_a_recheck_brings_back_what_lives_and_asks_nobody(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grants whose refresh works again are active, the others stay suspect, and the status says that some are left."""
    world = new_world()
    lost = gone(world, 9)
    assert world.services.store.brake().held_reason
    world.sandbox.heal()
    for grant_id in lost[3:]:
        refuse(world, world.services.store.grant_by_id(grant_id))

    ran = recheck(world, monkeypatch)

    assert ran.exit_code == 1, ran.output
    assert json.loads(ran.stdout) == {"grants": {"refreshed": 3, "still suspect": 6}, "held": True}
    assert not world.services.store.brake().stopped
    assert {world.services.store.grant_by_id(grant_id).status for grant_id in lost[3:]} == {GrantStatus.SUSPECT}


def test_a_recheck_with_ask_asks_each_creator_once(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused once more is asked after a yes, the hold ends, and a second run finds nothing to do."""
    world = new_world()
    lost = gone(world, 6)
    refused = recheck(world, monkeypatch, "--ask", given="n\n")
    assert refused.exit_code == 1
    assert {world.services.store.grant_by_id(grant_id).status for grant_id in lost} == {GrantStatus.SUSPECT}

    first = recheck(world, monkeypatch, "--ask", "--yes")
    second = recheck(world, monkeypatch, "--ask", "--yes")

    assert json.loads(first.stdout) == {"grants": {"asked": 6}, "held": False}
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert json.loads(second.stdout) == {"grants": {}, "held": False}
    assert {world.services.store.grant_by_id(grant_id).status for grant_id in lost} == {GrantStatus.NEEDS_REAUTH}
    assert sorted(kinds(world)) == ["reauth_needed"] * 6 + ["refusals_held", "refusals_over"]
