"""One event for each outcome of a refresh, logged once and without a secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.world import World
from worker.telemetry import Fact

NewWorld = Callable[..., World]

OUTCOMES: dict[str, tuple[str, dict[str, Any], str]] = {
    "saved": ("", {}, "refresh.saved"),
    "in doubt": ("status", {"status": 502}, "refresh.in_doubt"),
    "cut": ("cut", {"at": 20}, "refresh.in_doubt"),
    "refused": ("code", {"code": 40107}, "refresh.refused"),
    "busy": ("code", {"code": 40100}, "refresh.backed_off"),
    "another creator": ("wrong_creator", {"creator_id": "somebody"}, "refresh.misfit"),
}


def listening(world: World) -> list[Fact]:
    """Return the list that takes the facts of a world's services from now on."""
    facts: list[Fact] = []
    world.services.hook = facts.append
    return facts


@pytest.mark.parametrize(("kind", "how", "name"), OUTCOMES.values(), ids=OUTCOMES)
def test_an_outcome_is_one_event(new_world: NewWorld, kind: str, how: dict[str, Any], name: str) -> None:
    """Whatever TikTok does, one fact says how the attempt ended, and names the grant."""
    world = new_world(IN_DOUBT_RETRY="never")
    facts = listening(world)
    grant = world.creator()
    if kind:
        world.sandbox.fault(kind, creator=grant.creator_id, call="refresh", times=1, **how)

    world.services.refresher.refresh(grant.grant_id)

    outcomes = [fact for fact in facts if fact.name.startswith("refresh.")]
    assert [(fact.name, fact.fields["grant_id"]) for fact in outcomes] == [(name, grant.grant_id)]
    assert "CANARY" not in repr(facts)


def test_a_pair_that_does_not_open_is_one_event(new_world: NewWorld) -> None:
    """Nothing was sent, and the row is named."""
    world = new_world()
    facts = listening(world)
    grant = world.creator()
    world.sql("UPDATE pairs SET sealed_refresh = sealed_access")

    world.services.refresher.refresh(grant.grant_id)

    assert [(fact.name, fact.fields["grant_id"]) for fact in facts] == [("refresh.unreadable", grant.grant_id)]


def test_an_older_pair_that_does_not_open_is_reported_and_skipped(new_world: NewWorld) -> None:
    """The current token is refused and the one before it is damaged: that is logged, and the next one is tried."""
    world = new_world("same")
    facts = listening(world)
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)
    world.sandbox.fault("refresh_token", creator=grant.creator_id, call="refresh", times=1, value="rft.false")
    world.services.refresher.refresh(grant.grant_id, force=True)
    world.sql("UPDATE pairs SET sealed_refresh = sealed_access WHERE generation = 2")

    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"

    reported = [fact for fact in facts if fact.name.endswith("unreadable")]
    assert [(fact.name, fact.fields["grant_id"], fact.fields["generation"]) for fact in reported] == [
        ("pair.unreadable", grant.grant_id, 2)
    ]
    assert world.look(grant).failures == 0
    assert world.services.store.undelivered_notices() == []


def test_what_was_not_sent_is_one_event(new_world: NewWorld, free_port: int) -> None:
    """TikTok cannot be reached at all."""
    world = new_world(TIKTOK_BASE_URL=f"http://127.0.0.1:{free_port}/open_api")
    facts = listening(world)
    grant = world.creator()

    world.services.refresher.refresh(grant.grant_id)

    assert [fact.name for fact in facts if fact.name.startswith("refresh.")] == ["refresh.not_sent"]


def test_nothing_to_do_is_no_event(new_world: NewWorld) -> None:
    """A duplicate message leaves no line behind."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)
    facts = listening(quiet := World(world.sandbox, world.environ))

    quiet.services.refresher.refresh(grant.grant_id)

    assert facts == []
    quiet.close()
