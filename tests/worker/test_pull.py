"""Pulling account data, against the sandbox, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.world import World
from worker.store import AccountPage, GrantStatus, Progress
from worker.vault.redaction import Echoes

NewWorld = Callable[..., World]


def wanting(world: World) -> int:
    """Return the id of a creator whose account data is wanted."""
    grant = world.creator()
    return world.services.store.request_pull(grant.creator_id)


def test_a_pull_keeps_what_tiktok_answered(new_world: NewWorld) -> None:
    """The snapshot holds the fields that the scopes allow, and the next pull is wanted a day later."""
    world = new_world()
    grant_id = wanting(world)

    assert world.services.puller.pull(grant_id).kind == "pulled"

    snapshot = world.services.store.snapshots(grant_id)[0]
    assert {"display_name", "followers_count"} <= set(snapshot.data)
    again = world.services.store.grant_by_id(grant_id).next_pull_at
    assert again is not None
    assert timedelta(hours=23) < again - world.services.store.ping() <= timedelta(days=1)
    assert world.services.puller.pull(grant_id).kind == "skipped"


def test_with_an_interval_a_pull_wants_the_next_one(new_world: NewWorld) -> None:
    """Pulls then come without refreshes; one that was asked for meanwhile keeps its time."""
    world = new_world(PULL_SECONDS="600")
    grant_id, now = wanting(world), world.services.store.ping()

    assert world.services.puller.pull(grant_id).kind == "pulled"

    planned = world.services.store.grant_by_id(grant_id).next_pull_at
    assert planned is not None
    assert timedelta(seconds=590) < planned - now < timedelta(seconds=660)
    assert world.services.puller.pull(grant_id).kind == "skipped"
    world.sql("UPDATE grants SET next_pull_at = 1")
    assert world.services.puller.pull(grant_id).kind == "pulled"


def test_a_pull_is_wanted_after_each_refresh(new_world: NewWorld) -> None:
    """Storing a pair wants the account data, in the same transaction."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)

    assert world.services.store.due_pulls(10) == [grant.grant_id]
    assert world.services.puller.pull(grant.grant_id).kind == "pulled"


def test_a_revoked_access_token_is_refreshed_first(new_world: NewWorld) -> None:
    """A read that meets a dead token marks nobody: the grant is due, and the refresh decides."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)
    world.sandbox.fault("code", creator=grant.creator_id, call="account", times=1, code=40105, message="revoked")

    assert world.services.puller.pull(grant.grant_id).kind == "refresh_first"

    assert world.services.store.claimable([grant.grant_id]).due
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert world.services.puller.pull(grant.grant_id).kind == "pulled"


def test_reads_that_refuse_every_token_are_backed_off(new_world: NewWorld) -> None:
    """A refresh that did not help is not repeated for a read: the read waits longer each time, and ends well."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)
    world.sandbox.fault("code", creator=grant.creator_id, call="account", times=3, code=40105, message="revoked")
    assert world.services.puller.pull(grant.grant_id).kind == "refresh_first"
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    for failures in (2, 3):
        assert world.services.puller.pull(grant.grant_id).kind == "failed"
        after = world.look(grant)
        assert after.pull_failures == failures
        assert after.next_pull_at is not None
        assert after.next_pull_at > world.services.store.ping() + timedelta(seconds=1)
        assert not world.services.store.claimable([grant.grant_id]).due
        world.services.store.request_pull(grant.creator_id)

    assert world.services.puller.pull(grant.grant_id).kind == "pulled"
    assert world.look(grant).pull_failures == 0
    assert len(world.refreshes(grant)) == 2


@pytest.mark.parametrize(
    ("kind", "how", "status"),
    [
        pytest.param("code", {"code": 40107}, GrantStatus.SUSPECT, id="refused"),
        pytest.param("status", {"status": 502}, GrantStatus.ACTIVE, id="in-doubt"),
    ],
)
def test_a_read_does_not_bring_a_second_look_forward(
    new_world: NewWorld, kind: str, how: dict[str, Any], status: GrantStatus
) -> None:
    """A grant whose refresh failed keeps the time of its next attempt, whatever a read learns about its old token."""
    world = new_world(IN_DOUBT_RETRY="never")
    grant = world.creator()
    world.services.store.request_pull(grant.creator_id)
    world.sandbox.fault(kind, creator=grant.creator_id, call="refresh", times=1, **how)
    world.sandbox.fault("code", creator=grant.creator_id, call="account", times=1, code=40105, message="revoked")
    world.services.refresher.refresh(grant.grant_id)
    before = world.look(grant)

    assert world.services.puller.pull(grant.grant_id).kind == "refresh_first"

    after = world.look(grant)
    assert (after.status, after.next_refresh_at) == (status, before.next_refresh_at)
    assert after.next_refresh_at > world.services.store.ping()


def test_an_ended_access_token_is_not_sent(new_world: NewWorld) -> None:
    """A creator whose token has ended is left to the refresh; TikTok sees nothing."""
    world = new_world()
    grant = world.creator()
    world.services.store.request_pull(grant.creator_id)
    world.sql("UPDATE grants SET access_expires_at = 1000")
    world.sql("UPDATE pairs SET access_expires_at = 1000")
    before = world.sandbox.stats()["calls"].get("business/get/")

    assert world.services.puller.pull(grant.grant_id).kind == "refresh_first"
    assert world.sandbox.stats()["calls"].get("business/get/") == before


def test_a_refusal_that_is_not_repeated_costs_no_field(new_world: NewWorld) -> None:
    """TikTok's word that a scope is missing is tried before it is believed."""
    world = new_world()
    grant_id = wanting(world)
    creator = world.services.store.grant_by_id(grant_id).creator_id
    world.sandbox.fault("code", creator=creator, call="account", times=1, code=40130, message="scope")

    assert world.services.puller.pull(grant_id).kind == "pulled"
    assert "followers_count" in world.services.store.snapshots(grant_id)[0].data
    assert world.services.store.narrowed_of(creator) == []


def test_trouble_of_tiktoks_puts_a_pull_off(new_world: NewWorld) -> None:
    """A failed pull comes again later, and never touches the grant's standing."""
    world = new_world()
    grant_id = wanting(world)
    creator = world.services.store.grant_by_id(grant_id).creator_id
    world.sandbox.fault("status", creator=creator, call="account", times=1, status=503)

    assert world.services.puller.pull(grant_id).kind == "failed"

    after = world.services.store.grant_by_id(grant_id)
    assert after.pull_failures == 1
    assert after.next_pull_at is not None
    assert after.next_pull_at > world.services.store.ping() + timedelta(seconds=1)
    assert after.failures == 0


def test_old_snapshots_make_room(new_world: NewWorld) -> None:
    """No more snapshots are kept for a creator than the settings say."""
    world = new_world(SNAPSHOTS_KEPT="2")
    grant_id = wanting(world)
    creator = world.services.store.grant_by_id(grant_id).creator_id
    for _ in range(3):
        world.services.store.request_pull(creator)
        world.services.puller.pull(grant_id)

    assert len(world.services.store.snapshots(grant_id)) == 2


def test_a_limit_of_the_reads_endpoint_holds_no_refresh_back(new_world: NewWorld) -> None:
    """40016 speaks of one endpoint: the pull waits five minutes without a failure, and refreshes go on."""
    world = new_world()
    wanted, due = wanting(world), world.creator()
    world.sandbox.fault("code", call="account", times=1, code=40016, message="too many requests")

    assert world.services.puller.pull(wanted).kind == "failed"

    grant = world.services.store.grant_by_id(wanted)
    assert grant.next_pull_at is not None
    assert 290 < (grant.next_pull_at - world.services.store.ping()).total_seconds() <= 300
    assert world.services.refresher.refresh(due.grant_id).kind == "refreshed"


def test_odd_account_data_spoils_no_query(new_world: NewWorld) -> None:
    """A name with NUL and half a character is stored so that every row can be read, by SQL as by our commands."""
    world = new_world()
    grant_id = wanting(world)
    claim = world.services.store.claim_pull(grant_id, owner="test", lease_seconds=60)
    assert claim is not None
    data = Echoes(()).fit_to_store({"display_name": "a\x00b\ud800", "n": 1})
    page = AccountPage("business/get/", Progress("account"), snapshot=data)
    assert world.services.store.save_page(claim, page, lease_seconds=60, snapshots=5) is not None

    query = "SELECT data->>'display_name' FROM snapshots"
    names = world.services.store.transact(
        lambda connection: connection.exec_driver_sql(query).scalars().all(), writes=False
    )
    assert names == ["a\ufffdb\ufffd"]
    assert world.services.store.snapshots(grant_id)[0].data == data
