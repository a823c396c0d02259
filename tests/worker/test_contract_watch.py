"""The contract watch over a whole daemon: TikTok changes its contract while a fleet is refreshed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.world import World
from worker.cli.checks import contract
from worker.sandbox.options import SandboxOptions
from worker.store import GrantView
from worker.telemetry import Fact

NewWorld = Callable[..., World]


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    """A daemon, with a sandbox whose contract is as usual before and after."""
    world = new_world()
    usual = SandboxOptions()
    contract = {name: getattr(usual, name) for name in ("expires_in", "refresh_expires_in", "answer_style")}
    world.sandbox.change(**contract, rotation="strict")
    yield world
    world.sandbox.change(**contract, rotation="strict")


def refresh(world: World, grants: list[GrantView]) -> None:
    """Refresh every grant, each by another of two processes."""
    processes = (world.services, world.another())
    for number, grant in enumerate(grants):
        world.make_due(grant)
        assert processes[number % 2].refresher.refresh(grant.grant_id, force=True).kind == "refreshed"


def announced(world: World) -> list[dict[str, Any] | None]:
    """Return the data of the notices of changes."""
    notices = world.services.store.undelivered_notices()
    return [notice.data for notice in notices if notice.kind == "contract_changed"]


def test_a_shorter_life_is_planned_for_at_once_and_announced_once(world: World) -> None:
    """24 hours become two: the first answers plan their own grants, and the headroom counts the whole fleet."""
    grants = world.creators(6)
    refresh(world, grants)
    before = world.services.headroom.plan().headroom
    assert announced(world) == []
    facts: list[Fact] = []
    object.__setattr__(world.services.ground, "hook", facts.append)

    world.sandbox.change(expires_in=7200)
    refresh(world, grants[:4])

    (data,) = announced(world)
    assert data == {"term": "access_seconds", "before": "86400", "now": "7200"}
    after = world.services.headroom.plan().headroom
    assert after == pytest.approx(before / 12, rel=0.05)
    for grant in grants[:4]:
        now = world.look(grant)
        assert (now.next_refresh_at - now.issued_at).total_seconds() < 7200
    found = contract(world.services)
    assert (found.state, "access tokens live 2 h" in found.detail) == ("warn", True)
    refresh(world, grants)
    assert len(announced(world)) == 1
    assert [fact.level for fact in facts if fact.name == "contract.changed"] in ([], ["warning"])


@pytest.mark.parametrize(
    ("change", "terms"),
    [
        ({"rotation": "same"}, {"refresh_token_rotates": "no"}),
        ({"expires_in": 172_800}, {"access_seconds": "172800"}),
        ({"answer_style": "early"}, {"fields": ""}),
        ({"expires_in": 600, "rotation": "same"}, {"access_seconds": "600", "refresh_token_rotates": "no"}),
    ],
)
def test_each_change_of_the_sandboxs_contract_is_announced(
    world: World, change: dict[str, Any], terms: dict[str, str]
) -> None:
    """Each term by itself, and nothing else with it."""
    grants = world.creators(3)
    refresh(world, grants)

    world.sandbox.change(**change)
    refresh(world, grants)
    refresh(world, grants)

    found = {data["term"]: data["now"] for data in announced(world) if data}
    assert {term: "" if term == "fields" else value for term, value in found.items()} == terms


def test_a_scope_that_the_app_lost_is_announced_and_one_creators_choice_is_not(world: World) -> None:
    """What is stored follows each answer at once; the contract changes with the third creator."""
    grants = world.creators(4)
    refresh(world, grants)
    for grant in grants[:2]:
        narrow(world, grant)
    refresh(world, grants[:1])
    refresh(world, grants[3:])
    assert announced(world) == []

    for grant in grants:
        narrow(world, grant)
    refresh(world, grants)

    assert [data and (data["term"], data["now"]) for data in announced(world)] == [("scope user.info.stats", "no")]
    assert {world.look(grant).scope for grant in grants} == {"user.info.basic"}


def narrow(world: World, grant: GrantView) -> None:
    """Let TikTok's next answers about a creator lack a scope."""
    world.sandbox.control("scopes", {"creator": grant.creator_id, "scope": "user.info.basic"})
