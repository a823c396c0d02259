"""Typed verdicts over a whole daemon: what TikTok does, and what the row, the notice and the log say is behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.world import World
from worker.store import GrantStatus, GrantView
from worker.telemetry import Fact

NewWorld = Callable[..., World]
END = "UPDATE grants SET access_expires_at = issued_at + 1"


@pytest.fixture
def world(new_world: NewWorld) -> Iterator[World]:
    """A daemon; its facts are kept too."""
    world = new_world()
    yield world
    world.sandbox.change(rotation="strict", refresh_expires_in=31_536_000)


def refresh(world: World, grant: GrantView, times: int = 1) -> GrantView:
    """Refresh a grant, whatever its schedule says, and return it."""
    for _ in range(times):
        world.services.refresher.refresh(grant.grant_id, force=True)
    return world.look(grant)


def spend_elsewhere(world: World, grant: GrantView) -> None:
    """Let another system use the refresh token that is stored here."""
    other = world.another()
    pair = other.store.current_pair(grant.creator_id)
    assert other.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"
    world.sql(
        f"UPDATE grants SET pair_generation = {pair.generation}, generation = generation + 1"  # noqa: S608 - a number
        f" WHERE id = {grant.grant_id}"
    )
    world.sql(f"DELETE FROM pairs WHERE grant_id = {grant.grant_id} AND generation > {pair.generation}")  # noqa: S608
    world.sql(f"DELETE FROM attempts WHERE grant_id = {grant.grant_id}")  # noqa: S608 - a number


def code(number: int, **more: Any) -> Callable[[World, GrantView], None]:
    """Return what lets TikTok answer refreshes with a code."""

    def happen(world: World, grant: GrantView) -> None:
        world.sandbox.fault("code", creator=grant.creator_id, call="refresh", code=number, message="it says so", **more)

    return happen


def revoke(world: World, grant: GrantView) -> None:
    """Let the creator take the consent back."""
    world.sandbox.revoke(grant.creator_id)


def lose(world: World, grant: GrantView) -> None:
    """Let answers be lost after TikTok has rotated."""
    world.sandbox.fault("lost", creator=grant.creator_id, call="refresh", how="rst", rotates=True, times=1)


@pytest.mark.parametrize(
    ("happen", "verdict", "status"),
    [
        (revoke, "creator_revoked", GrantStatus.SUSPECT),
        (spend_elsewhere, "spent_elsewhere", GrantStatus.SUSPECT),
        (lose, "lost_here", GrantStatus.SUSPECT),
        (code(40103), "consent_ended", GrantStatus.SUSPECT),
        (code(40101), "app_secret_wrong", GrantStatus.ACTIVE),
        (code(50000), "tiktok_incident", GrantStatus.ACTIVE),
        (code(49999), "unknown", GrantStatus.ACTIVE),
        (code(40199), "unknown", GrantStatus.ACTIVE),
        (code(1), "unknown", GrantStatus.ACTIVE),
    ],
)
def test_what_happened_is_told_with_the_grant_and_its_attempt(
    world: World, happen: Callable[[World, GrantView], None], verdict: str, status: GrantStatus
) -> None:
    """The first failure already names it, where it shows; nobody is asked by one look."""
    grant = world.creator()
    world.creators(3)
    happen(world, grant)

    after = refresh(world, grant, times=2 if happen is lose else 1)

    assert (after.verdict, after.status) == (verdict, status)
    assert world.services.store.attempts(grant.grant_id)[0].verdict == verdict
    expected = {verdict: 1} if status is GrantStatus.SUSPECT else {}
    assert world.services.store.verdict_counts() == expected


def test_a_creator_who_is_asked_later_is_asked_for_what_was_seen_first(world: World) -> None:
    """The access token has ended by the second look and shows nothing any more; the notice keeps what the first saw."""
    grant = world.creator()
    revoke(world, grant)
    assert refresh(world, grant).verdict == "creator_revoked"
    world.sql(END)

    after = refresh(world, grant)

    assert (after.status, after.verdict) == (GrantStatus.NEEDS_REAUTH, "creator_revoked")
    (notice,) = world.services.store.undelivered_notices()
    assert (notice.kind, notice.data) == ("reauth_needed", {"verdict": "creator_revoked"})


def test_an_unknown_code_never_disconnects(world: World) -> None:
    """Ten times in a row, and after the access token has ended too: the grant is tried again, and nobody is asked."""
    grant = world.creator()
    code(40199)(world, grant)

    refresh(world, grant, times=5)
    world.sql(END)
    after = refresh(world, grant, times=5)

    assert (after.status, after.failures, after.verdict) == (GrantStatus.ACTIVE, 10, "unknown")
    assert world.services.store.undelivered_notices() == []
    world.sandbox.heal()
    assert refresh(world, grant).verdict is None


def test_a_spent_quota_does_not_cost_the_look_up_more(world: World) -> None:
    """Without a permit to spare the verdict stays unknown, and nothing is sent."""
    grant = world.creator()
    revoke(world, grant)
    world.services.limiter.admit = lambda **_: 1.0  # type: ignore[method-assign]

    assert refresh(world, grant).verdict == "unknown"


def test_fewer_scopes_are_a_verdict_and_the_grant_goes_on(world: World) -> None:
    """The attempt keeps it in the history; the next refresh has nothing to say."""
    grant = world.creator()
    world.sandbox.control("scopes", {"creator": grant.creator_id, "scope": "user.info.basic"})

    after = refresh(world, grant)

    assert (after.status, after.verdict, after.failures) == (GrantStatus.ACTIVE, "scope_narrowed", 0)
    assert refresh(world, grant).verdict is None
    assert [each.verdict for each in world.services.store.attempts(grant.grant_id)] == [None, "scope_narrowed"]


def unused(world: World, *grants: GrantView) -> None:
    """Let nine hours pass for grants, in which nobody used them."""
    for grant in grants:
        world.sql(
            "UPDATE grants SET issued_at = issued_at - 32400000, next_refresh_at = next_refresh_at + 36000000"  # noqa: S608
            f" WHERE id = {grant.grant_id}"
        )


def test_a_grant_that_was_taken_back_unseen_is_found_by_the_round(world: World) -> None:
    """Nobody refreshed or read it: the round makes its refresh due, and two looks later the creator is asked."""
    facts: list[Fact] = []
    object.__setattr__(world.services.ground, "hook", facts.append)
    gone, fine, fresh = world.creators(3)
    unused(world, gone, fine)
    revoke(world, gone)
    revoke(world, fresh)

    assert world.services.consent_round.go() == 1

    assert [fact.fields["creator_id"] for fact in facts if fact.name == "grant.token_dead"] == [gone.creator_id]
    assert [due.grant_id for due in world.services.store.due(10) if due.grant_id != fresh.grant_id] == [gone.grant_id]
    assert world.look(gone).status is GrantStatus.ACTIVE
    assert refresh(world, gone).verdict == "creator_revoked"
    assert world.services.consent_round.go() == 0


@pytest.mark.parametrize("number", [50000, 40100, 40001, 49999])
def test_a_round_proves_nothing_by_other_answers(world: World, number: int) -> None:
    """TikTok's trouble, a spent quota, a refusal of the call and an unknown code make no refresh due."""
    grant = world.creator()
    unused(world, grant)
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=number, message="limit, QPM")

    assert world.services.consent_round.go() == 0

    assert world.services.store.due(10) == []
    assert world.look(grant).status is GrantStatus.ACTIVE


def test_a_round_takes_only_what_the_quota_has_to_spare_and_goes_on_where_it_stopped(world: World) -> None:
    """Without a permit nothing is sent; the next round begins with that grant. While the brake is on there is none."""
    grants = world.creators(3)
    unused(world, *grants)
    for grant in grants:
        revoke(world, grant)
    admit, given = world.services.limiter.admit, iter([0.0, 1.0])
    world.services.limiter.admit = lambda **_: next(given)  # type: ignore[method-assign]
    assert world.services.consent_round.go() == 1
    world.services.limiter.admit = admit  # type: ignore[method-assign]
    world.services.store.pull_brake("x", probe_seconds=60)
    assert world.services.consent_round.go() == 0
    world.services.store.release_brake()

    assert world.services.consent_round.go() == 2


def test_a_round_goes_through_a_large_fleet_in_stretches(world: World) -> None:
    """What one stretch does not reach, a later one does; then it begins again."""
    first, second = world.creators(2)
    world.sql(f"UPDATE grants SET pulled_at = NULL WHERE id = {second.grant_id}")  # noqa: S608 - a number
    unused(world, first, second)
    store = world.services.store

    pairs, after = store.unused_pairs(0, 1, unused_seconds=3600, limit=10)
    rest, end = store.unused_pairs(after, 1, unused_seconds=3600, limit=10)
    one, there = store.unused_pairs(0, 100, unused_seconds=3600, limit=1)

    assert [[pair.grant_id for pair in found] for found in (pairs, rest)] == [[first.grant_id], [second.grant_id]]
    assert (after, end) == (first.grant_id, 0)
    assert ([pair.grant_id for pair in one], there) == ([first.grant_id], first.grant_id)
