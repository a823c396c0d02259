"""Whose an imported pair is: TikTok is asked before the pair is used, and what it says decides."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.world import SCOPE, World
from worker.consent.import_lines import Source
from worker.consent.importer import Importer, ImportReport
from worker.errors import NotFoundError
from worker.store import AttemptOutcome, GrantStatus, GrantView
from worker.tiktok import TokenInfo
from worker.tokens import token_reader
from worker.vault import Token

NewWorld = Callable[..., World]


def bring_in(world: World, token: dict[str, Any], creator_id: str | None = None, **change: Any) -> GrantView:
    """Import one pair of the sandbox, under its own creator's id or another; it is due at once."""
    known_as = str(creator_id or token["open_id"])
    fields: dict[str, Any] = {"creator_id": known_as, "scope": ""} | change
    fields |= {name: token[name] for name in ("access_token", "refresh_token", "expires_in")}
    services, report = world.services, ImportReport()
    importer = Importer(store=services.store, sealer=services.sealer, renew_at=2 / 3)
    importer.run(Source(io.BytesIO(json.dumps(fields).encode())), report=report)
    assert report.created == 1
    services.store.request_refresh(known_as)
    return services.store.grant(known_as)


def given(world: World, count: int = 1) -> list[dict[str, Any]]:
    """Let creators consent at the sandbox, and return their tokens."""
    return world.sandbox.grants(count, prefix=f"c{secrets.token_hex(4)}-", scope=SCOPE)


def count_asks(world: World, monkeypatch: pytest.MonkeyPatch) -> list[TokenInfo]:
    """Return a list that grows by what TikTok told each time that it was asked for an owner."""
    told: list[TokenInfo] = []
    ask = world.services.tiktok.token_info

    def counted(token: Token) -> TokenInfo:
        told.append(ask(token))
        return told[-1]

    monkeypatch.setattr(world.services.tiktok, "token_info", counted)
    return told


def test_an_imported_pair_is_asked_about_once_and_then_refreshed(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first refresh TikTok tells the owner and the scopes; before the second nothing is asked."""
    world = new_world()
    asks, grant = count_asks(world, monkeypatch), bring_in(world, given(world)[0])
    assert grant.unproven_since is not None

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    world.make_due(grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert [info.creator_id for info in asks] == [grant.creator_id]
    assert len(world.refreshes(grant)) == 2
    assert world.look(grant).unproven_since is None
    assert [attempt.outcome for attempt in world.services.store.attempts(grant.grant_id)] == ["refreshed", "refreshed"]


def test_a_grant_that_was_authorized_is_never_asked_about(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A normal refresh costs one call."""
    world = new_world()
    asks, grant = count_asks(world, monkeypatch), world.creator()

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert world.services.puller.pull(grant.grant_id).kind == "pulled"
    assert asks == []


def test_the_pair_of_another_creator_is_told_and_nothing_is_spent(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One alarm, no refresh, no pull and no hand-out; the owner's pair still works afterwards."""
    world = new_world()
    token = given(world)[0]
    asks, grant = count_asks(world, monkeypatch), bring_in(world, token, "somebody-else")
    services = world.services

    first = services.refresher.refresh(grant.grant_id)
    services.store.request_refresh("somebody-else")
    second = services.refresher.refresh(grant.grant_id, force=True)
    services.store.request_pull("somebody-else")
    pulled = services.puller.pull(grant.grant_id)

    assert (first.kind, second.kind, pulled.kind) == ("failed", "failed", "failed")
    assert f"belongs to creator {token['open_id']}" in first.reason
    assert len(asks) == 1
    assert world.sandbox.creator(token["open_id"])["refreshes"] == 0
    (notice,) = services.store.undelivered_notices()
    assert (notice.kind, notice.creator_id) == ("wrong_owner", "somebody-else")
    held = world.look(grant)
    assert (held.belongs_to, held.status, held.lease_owner) == (token["open_id"], GrantStatus.ACTIVE, None)
    assert held.next_refresh_at > services.store.ping()
    with pytest.raises(NotFoundError, match="as TikTok says"):
        token_reader(services).access_token("somebody-else")
    right = bring_in(world, token)
    assert services.refresher.refresh(right.grant_id).kind == "refreshed"


def test_revoking_another_creators_pair_ends_nobodys_consent(new_world: NewWorld) -> None:
    """The tokens are wiped here, and the owner's consent lives on at TikTok."""
    world = new_world()
    token = given(world)[0]
    bring_in(world, token, "somebody-else")

    assert world.services.authorizer.revoke("somebody-else") is False

    assert world.services.store.grant("somebody-else").status is GrantStatus.REVOKED
    right = bring_in(world, token)
    assert world.services.refresher.refresh(right.grant_id).kind == "refreshed"


def test_an_imported_pair_of_its_own_creator_is_revoked_at_tiktok(new_world: NewWorld) -> None:
    """Revoking an imported grant ends the consent like that of any other."""
    world = new_world()
    token = given(world)[0]
    grant = bring_in(world, token)

    assert world.services.authorizer.revoke(grant.creator_id) is True

    assert world.sandbox.creator(grant.creator_id)["revoked"]


@pytest.mark.parametrize("code", [40102, 40105, 40001, 40002, 40008])
def test_an_owner_that_tiktok_will_not_tell_costs_the_grant_nothing(new_world: NewWorld, code: int) -> None:
    """An access token that has ended, or an endpoint that is refused, cannot be asked: the refresh goes ahead."""
    world = new_world()
    grant = bring_in(world, given(world)[0])
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=code, message="no")

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert not world.services.store.brake().stopped


def test_an_ended_pair_of_another_creator_waits_aside_under_the_owners_id(new_world: NewWorld) -> None:
    """What the refresh brought is kept aside, and the alarm names the creator to whom TikTok gave it."""
    world = new_world()
    token = given(world)[0]
    grant = bring_in(world, token, "somebody-else")
    world.sandbox.fault("code", creator=token["open_id"], call="token_info", code=40102, message="expired")

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    (notice,) = world.services.store.undelivered_notices()
    assert notice.kind == "misfit"
    assert token["open_id"] in notice.detail


def test_trouble_at_token_info_puts_a_first_refresh_off_once(new_world: NewWorld) -> None:
    """The first trouble waits for a second try; at the second the refresh goes ahead without the proof."""
    world = new_world()
    grant = bring_in(world, given(world)[0])
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=50000, message="busy")

    first = world.services.refresher.refresh(grant.grant_id)
    put_off = world.look(grant)
    second = world.services.refresher.refresh(grant.grant_id, force=True)

    assert (first.kind, second.kind) == ("failed", "refreshed")
    assert (put_off.status, put_off.failures, put_off.lease_owner) == (GrantStatus.ACTIVE, 1, None)
    assert world.services.store.attempts(grant.grant_id)[1].outcome is AttemptOutcome.NOT_SENT


def test_the_first_pull_of_an_import_brings_all_that_the_creator_granted(new_world: NewWorld) -> None:
    """A file without scopes is no reason to pull two fields: TikTok tells the scopes with the owner."""
    world = new_world()
    grant = bring_in(world, given(world)[0])
    world.services.store.request_pull(grant.creator_id)

    assert world.services.puller.pull(grant.grant_id).kind == "pulled"

    (snapshot,) = world.services.store.snapshots(grant.grant_id)
    assert {"display_name", "followers_count", "videos_count"} <= set(snapshot.data)
    assert world.look(grant).scope == SCOPE
