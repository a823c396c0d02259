"""Pauses at work: workers leave the grant alone, readers are told, and the operator sees it wherever he looks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.world import World
from worker.cli.checks import pauses as check_pauses
from worker.cli.exporter import Rounds
from worker.errors import PausedError
from worker.refresh.results import Refreshed, Skipped
from worker.store import Claim
from worker.telemetry.fleet import FleetMetrics
from worker.timeline import what_next
from worker.tokens import token_reader

NewWorld = Callable[..., World]


def test_workers_leave_a_paused_grant_alone_and_go_on_when_it_is_resumed(new_world: NewWorld) -> None:
    """Nothing is sent for it, not even by force; the scan after the end finds it due, and one refresh follows."""
    world = new_world()
    paused, other = world.creators(2)
    world.services.store.pause(creator_id=paused.creator_id)

    assert [message.ids for message in world.services.scanner.refreshes()] == [(other.grant_id,)]
    assert isinstance(world.services.refresher.refresh(paused.grant_id, force=True), Skipped)
    assert world.refreshes(paused) == []

    world.services.store.resume(creator_id=paused.creator_id)

    (message,) = world.services.scanner.refreshes()
    assert set(message.ids) == {paused.grant_id, other.grant_id}
    assert world.services.refresher.refresh_all(message.ids).refreshed == tuple(message.ids)
    assert len(world.refreshes(paused)) == 1


def test_a_refresh_under_way_when_the_pause_comes_is_kept(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim is won already: the request goes out, and the pair that it brings is stored and served."""
    world = new_world()
    grant = world.creator()
    store = world.services.store
    claim_group = store.claim_group

    def claim_and_pause(*given: object, **named: object) -> list[Claim]:
        claims = claim_group(*given, **named)  # type: ignore[arg-type]  # what the refresher hands in
        store.pause()
        return claims

    monkeypatch.setattr(store, "claim_group", claim_and_pause)

    assert isinstance(world.services.refresher.refresh(grant.grant_id), Refreshed)
    assert world.look(grant).pair_generation > grant.pair_generation
    assert world.verdict(grant).live_stored == 1


def test_a_reader_gets_a_paused_token_until_it_ends_and_is_then_told(new_world: NewWorld) -> None:
    """No wait for a refresh that will not come, and no wish is written into the row."""
    world = new_world()
    grant = world.creator()
    world.services.store.pause()
    world.sql("UPDATE grants SET next_refresh_at = access_expires_at - 1000")
    reader = token_reader(world.services)

    assert reader.serve(grant.creator_id, min_validity=60).generation == grant.pair_generation
    assert not reader.report_rejected(grant.creator_id, grant.pair_generation)
    world.sql("UPDATE grants SET access_expires_at = issued_at - 1000")
    world.sql("UPDATE pairs SET access_expires_at = issued_at - 1000")
    before = world.look(grant)
    with pytest.raises(PausedError, match=r"ended \d+ s ago; the grant is paused since .*resume") as caught:
        reader.serve(grant.creator_id, wait_seconds=5)

    assert caught.value.retry_after == 60
    assert world.look(grant) == before


def test_a_pause_shows_in_doctor_in_the_metrics_and_in_explain(new_world: NewWorld) -> None:
    """How many, since when, which rule, and when the first of their tokens ends."""
    world = new_world()
    grant = world.creator()
    assert check_pauses(world.services).state == "ok"
    assert _metrics(world) == (0, float("inf"))

    world.services.store.pause()

    found = check_pauses(world.services)
    assert found.state == "warn"
    assert found.detail.startswith("1 grant paused, the first since 20")
    assert "(the whole app); their tokens will end, and the first ends in " in found.detail
    paused, left = _metrics(world)
    assert paused == 1
    assert left == pytest.approx(86_400, abs=120)
    look = world.look(grant)
    following = what_next(look, (), now=world.services.store.ping(), renew_at=2 / 3)
    assert (following.refresh_at, following.pull_at) == (None, None)
    assert following.refresh_why.startswith("paused since ")


def _metrics(world: World) -> tuple[float, float]:
    rounds = Rounds(world.services, FleetMetrics("1"))
    rounds.once()
    read = rounds.metrics.registry.get_sample_value
    paused = read("evertoken_fleet_condition_grants", {"condition": "paused"})
    left = read("evertoken_fleet_paused_least_seconds_left")
    assert paused is not None
    assert left is not None
    return paused, left
