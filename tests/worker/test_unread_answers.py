"""Answers with a pair and without its owner: TikTok is asked for the owner, and if that fails they are kept aside."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.support.world import World
from worker.errors import InDoubtError
from worker.policy.verdicts import AttemptOutcome

NewWorld = Callable[..., World]
NAMELESS = [
    pytest.param("extra", {"fields": {"open_id": None}}, id="without-it"),
    pytest.param("cut", {"at": -100}, id="cut-before-it"),
]


def aside(world: World) -> list[Path]:
    """Return the journal records that are kept aside."""
    return list((world.services.settings.journal_dir / "set-aside").glob("*"))


@pytest.mark.parametrize(("fault", "how"), NAMELESS)
def test_a_pair_without_its_creator_is_stored_once_tiktok_has_named_its_owner(
    new_world: NewWorld, fault: str, how: dict[str, Any]
) -> None:
    """Both tokens are in hand, and the new access token names its owner; nothing is lost under strict rotation."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault(fault, creator=grant.creator_id, call="refresh", times=1, **how)

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert world.verdict(grant).lost == ()
    assert world.services.journal.waiting() == 0
    assert aside(world) == []
    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"


@pytest.mark.parametrize(("fault", "how"), NAMELESS)
def test_a_pair_whose_owner_stays_unknown_is_kept_aside(new_world: NewWorld, fault: str, how: dict[str, Any]) -> None:
    """Nothing is stored under a guess, the bytes stay sealed in the journal's folder, and one alarm reports them."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault(fault, creator=grant.creator_id, call="refresh", times=1, **how)
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=51010, message="busy")

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert world.look(grant).pair_generation == 1
    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    assert len(aside(world)) == 1
    assert world.services.journal.waiting() == 0
    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["misfit"]


def test_a_pair_that_tiktok_says_is_anothers_is_never_stored(new_world: NewWorld) -> None:
    """What the access token's own word says counts as much as the answer's."""
    world = new_world()
    grant, other = world.creators(2)
    world.sandbox.fault("extra", creator=grant.creator_id, call="refresh", times=1, fields={"open_id": None})
    world.sandbox.fault(
        "extra", creator=grant.creator_id, call="token_info", times=1, fields={"creator_id": other.creator_id}
    )

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert (world.look(grant).pair_generation, world.look(other).pair_generation) == (1, 1)
    assert len(aside(world)) == 1


def test_a_pair_with_an_id_that_is_none_is_kept_aside(new_world: NewWorld) -> None:
    """An id that cannot be one is no missing id: nobody is asked, and nothing is released."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("extra", creator=grant.creator_id, call="refresh", times=1, fields={"open_id": "a b"})

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert len(aside(world)) == 1
    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["misfit"]


def test_an_exchange_without_its_creator_is_kept_aside(new_world: NewWorld) -> None:
    """There is no creator yet to whom it could belong; the person gets an error, and the bytes are kept."""
    world = new_world()
    world.sandbox.fault("extra", call="token", times=1, fields={"open_id": None})
    link = urlsplit(world.services.authorizer.url())
    redirect = world.sandbox.consent_url(state=parse_qs(link.query)["state"][0])

    with pytest.raises(InDoubtError):
        world.services.authorizer.exchange(redirect)

    assert len(aside(world)) == 1


def test_the_first_refusal_of_two_secrets_is_released(new_world: NewWorld) -> None:
    """Both answers were journaled, and neither waits there once the outcome is stored."""
    world = new_world(TIKTOK_APP_SECRET_NEXT="rotated")
    grant = world.creator()
    world.sandbox.control("app", {"secret": "rotated"})

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert world.services.journal.waiting() == 0


def test_a_second_secret_needs_a_permit_of_its_own(new_world: NewWorld) -> None:
    """At one request a second the other secret is sent a second after the first, and not with it."""
    world = new_world(TIKTOK_APP_SECRET_NEXT="rotated", QUOTA_PER_SECOND="1", QUOTA_PER_MINUTE="60")
    grant = world.creator()
    world.sandbox.control("app", {"secret": "rotated"})
    began = time.monotonic()

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert time.monotonic() - began >= 0.9


def test_a_second_read_of_an_account_needs_a_permit_of_its_own(new_world: NewWorld) -> None:
    """If a scope is missing, the read with fewer fields comes a second later at one request a second."""
    world = new_world(QUOTA_PER_SECOND="1", QUOTA_PER_MINUTE="60")
    grant = world.creator()
    grant_id = world.services.store.request_pull(grant.creator_id)
    world.sandbox.fault("code", creator=grant.creator_id, call="account", times=1, code=40130, message="scope")
    began = time.monotonic()

    assert world.services.puller.pull(grant_id).kind == "pulled"

    assert time.monotonic() - began >= 0.9


def test_a_secret_that_could_not_be_tried_judges_nobody(new_world: NewWorld) -> None:
    """With no permit before the lease ends the grant goes back, unblamed, and the other secret is first next time."""
    world = new_world(
        TIKTOK_APP_SECRET_NEXT="rotated",
        QUOTA_PER_SECOND="1",
        QUOTA_PER_MINUTE="1",
        LEASE_SECONDS="22",
        DEADLINE_SECONDS="2",
        STORE_SECONDS="2",
    )
    grant = world.creator()
    world.sandbox.control("app", {"secret": "rotated"})

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert world.look(grant).failures == 0
    assert not world.services.store.brake().stopped
    assert world.services.journal.waiting() == 0
