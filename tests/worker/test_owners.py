"""Owners of imported pairs: TikTok is asked for the owner before the pair is used, and its answer decides."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.claims import claim_one
from tests.support.world import SCOPE, World
from worker.consent.import_lines import Source
from worker.consent.importer import Importer, ImportReport
from worker.errors import NotFoundError, UsageError
from worker.journal import JournalEntry
from worker.policy.verdicts import AttemptOutcome
from worker.store import GrantCondition, GrantStatus, GrantView
from worker.tiktok import REFRESH_CALL, TokenInfo
from worker.timeline import what_next
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
    """Return a list that grows by TikTok's answer each time that it is asked for an owner."""
    answers: list[TokenInfo] = []
    ask = world.services.tiktok.token_info

    def counted(token: Token) -> TokenInfo:
        answers.append(ask(token))
        return answers[-1]

    monkeypatch.setattr(world.services.tiktok, "token_info", counted)
    return answers


def test_an_imported_pair_is_asked_about_once_and_then_refreshed(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first refresh TikTok is asked for the owner and the scopes; before the second it is not."""
    world = new_world()
    asks, grant = count_asks(world, monkeypatch), bring_in(world, given(world)[0])
    assert grant.unproven_since is not None
    assert world.services.store.fleet_status().unproven == 1

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


def test_the_pair_of_another_creator_is_reported_and_nothing_is_spent(
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
    following = what_next(held, [], now=services.store.ping(), renew_at=2 / 3)
    assert (following.refresh_at, token["open_id"] in following.refresh_why) == (None, True)
    assert (services.store.fleet_status().held, services.store.fleet_status().unproven) == (1, 0)
    assert [each.creator_id for each in services.store.grants(condition=GrantCondition.HELD)] == ["somebody-else"]
    with pytest.raises(NotFoundError, match="as TikTok says"):
        token_reader(services).access_token("somebody-else")
    right = bring_in(world, token)
    assert services.refresher.refresh(right.grant_id).kind == "refreshed"


def test_revoking_another_creators_pair_ends_nobodys_consent(new_world: NewWorld) -> None:
    """The tokens are wiped here, and the owner's consent lives on at TikTok."""
    world = new_world()
    token = given(world)[0]
    bring_in(world, token, "somebody-else")

    assert world.services.revocation.revoke("somebody-else") is False

    assert world.services.store.grant("somebody-else").status is GrantStatus.REVOKED
    right = bring_in(world, token)
    assert world.services.refresher.refresh(right.grant_id).kind == "refreshed"


def test_an_imported_pair_of_its_own_creator_is_revoked_at_tiktok(new_world: NewWorld) -> None:
    """Revoking an imported grant ends the consent like that of any other."""
    world = new_world()
    token = given(world)[0]
    grant = bring_in(world, token)

    assert world.services.revocation.revoke(grant.creator_id) is True

    assert world.sandbox.creator(grant.creator_id)["revoked"]


@pytest.mark.parametrize("code", [40102, 40105, 40001, 40002, 40008])
def test_an_owner_that_tiktok_does_not_name_costs_the_grant_nothing(new_world: NewWorld, code: int) -> None:
    """An access token that has ended, or an endpoint that is refused, cannot be asked: the refresh goes ahead."""
    world = new_world()
    grant = bring_in(world, given(world)[0])
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=code, message="no")

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert not world.services.store.brake().stopped


def spoil(world: World) -> tuple[GrantView, str]:
    """Let a refresh spend a pair that was imported under a wrong id; return that grant and the owner's id."""
    token = given(world)[0]
    grant = bring_in(world, token, "somebody-else")
    world.sandbox.fault("code", creator=token["open_id"], call="token_info", code=40102, message="expired")
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    world.sandbox.heal()
    return world.look(grant), str(token["open_id"])


def test_an_ended_pair_of_another_creator_waits_aside_under_the_owners_id(new_world: NewWorld) -> None:
    """What the refresh brought is kept aside, and the wrong grant is held: nobody is asked to authorize for it."""
    world = new_world()

    grant, owner = spoil(world)

    (notice,) = world.services.store.undelivered_notices()
    assert (notice.kind, owner in notice.detail) == ("misfit", True)
    (pair,) = world.services.placing.pairs()
    assert (pair.creator_id, pair.asked_for, pair.fault) == (owner, "somebody-else", None)
    assert (grant.belongs_to, grant.status) == (owner, GrantStatus.ACTIVE)
    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "failed"
    assert world.sandbox.creator(owner)["refreshes"] == 1


def test_a_pair_that_was_set_aside_is_placed_with_its_owner(new_world: NewWorld) -> None:
    """The owner's grant has the pair and goes on; the record is gone once the database has it."""
    world = new_world()
    wrong, owner = spoil(world)
    placing = world.services.placing
    (record,) = placing.pairs()

    grant = placing.place(placing.look(record.name))

    assert (grant.creator_id, grant.status) == (owner, GrantStatus.ACTIVE)
    assert list(placing.pairs()) == []
    assert world.services.revocation.revoke(wrong.creator_id) is False
    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"
    assert world.verdict(grant).sound


def test_placing_revives_an_owner_whose_own_pair_was_spent(new_world: NewWorld) -> None:
    """The owner was imported too and was refused, because the refresh under the wrong id had used the pair up."""
    world = new_world()
    _, owner = spoil(world)
    (record,) = world.services.placing.pairs()
    stale = {"open_id": owner, "access_token": "act.stale", "refresh_token": "rft.stale", "expires_in": 86400}
    own = bring_in(world, stale, issued_at=(world.services.store.ping() - timedelta(hours=9)).isoformat())
    claim = claim_one(world.services.store, own.grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None
    world.services.store.ask_reauth(claim, reason="refused 40107")

    world.services.placing.place(record)

    after = world.look(own)
    assert (after.status, after.consent, after.unproven_since) == (GrantStatus.ACTIVE, 2, None)
    assert world.services.refresher.refresh(own.grant_id, force=True).kind == "refreshed"


def test_a_pair_that_came_earlier_than_the_owners_is_not_placed(new_world: NewWorld) -> None:
    """What was authorized or refreshed since then is newer; the record stays for a person."""
    world = new_world()
    _, owner = spoil(world)
    (record,) = world.services.placing.pairs()
    later = (world.services.store.ping() + timedelta(seconds=30)).isoformat()
    own = bring_in(world, given(world)[0], owner, issued_at=later)

    with pytest.raises(UsageError, match="out of date"):
        world.services.placing.place(record)

    assert world.look(own).consent == 1
    assert [pair.name for pair in world.services.placing.pairs()] == [record.name]


def test_a_pair_whose_answer_lost_the_id_is_placed_by_asking(new_world: NewWorld) -> None:
    """If the id was cut off, TikTok is asked for the owner before a person is."""
    world = new_world()
    grant = world.creator()
    body = {"code": 0, "data": {"access_token": "", "refresh_token": ""}}
    token = given(world)[0]
    body["data"] = {name: token[name] for name in ("access_token", "refresh_token", "expires_in")}
    journal, now = world.services.journal, world.services.store.ping()
    entry = JournalEntry(
        kind="refresh", grant_id=grant.grant_id, creator_id=grant.creator_id, consent=1, generation=2,
        call=REFRESH_CALL, http_status=200, body=json.dumps(body).encode(), complete=True, fault=None,
        retry_after=None, sent_at=now, received_at=now,
    )  # fmt: skip
    journal.ready()
    journal.set_aside(journal.append(entry))
    (record,) = world.services.placing.pairs()
    assert record.creator_id == ""

    found = world.services.placing.look(record.name)

    assert found.creator_id == token["open_id"]
    assert world.services.placing.place(found).creator_id == token["open_id"]


@pytest.mark.parametrize("name", ["../keyring.json", "absent.segment", "", "aside-00.1.segment"])
def test_what_is_no_record_is_not_placed(new_world: NewWorld, name: str) -> None:
    """A name leads nowhere but into the folder of what was set aside."""
    world = new_world()
    world.services.journal.ready()

    with pytest.raises(NotFoundError, match="there is no record"):
        world.services.placing.look(name)


def test_a_damaged_record_is_listed_and_not_placed(new_world: NewWorld) -> None:
    """Bytes that are no record are shown with what is wrong with them."""
    world = new_world()
    world.services.journal.ready()
    folder = world.services.settings.journal_dir / "set-aside"
    folder.mkdir(mode=0o700)
    (folder / "aside-00.at512.damaged").write_bytes(b"CANARY")

    (record,) = world.services.placing.pairs()

    assert record.fault == "it holds no whole record"
    with pytest.raises(UsageError, match="cannot be placed"):
        world.services.placing.look(record.name)


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
    """A file without scopes is no reason to pull two fields: TikTok names the scopes with the owner."""
    world = new_world()
    grant = bring_in(world, given(world)[0])
    world.services.store.request_pull(grant.creator_id)

    assert world.services.puller.pull(grant.grant_id).kind == "pulled"

    (snapshot,) = world.services.store.snapshots(grant.grant_id)
    assert {"display_name", "followers_count", "videos_count"} <= set(snapshot.data)
    assert world.look(grant).scope == SCOPE
