"""Refreshing one grant, against the sandbox, on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.world import World
from worker.policy.verdicts import AttemptOutcome
from worker.store import GrantStatus
from worker.tokens import token_reader

NewWorld = Callable[..., World]


def test_a_refresh_stores_the_pair_that_tiktok_gave_and_wants_a_pull(new_world: NewWorld) -> None:
    """The new pair is current, dated by the answer, and the account data is wanted."""
    world = new_world()
    grant = world.creator()

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    after = world.look(grant)
    assert (after.pair_generation, after.failures, after.lease_owner) == (2, 0, None)
    assert after.next_pull_at is not None
    assert after.next_refresh_at > grant.next_refresh_at
    assert world.services.journal.waiting() == 0
    assert world.verdict(grant).sound


def test_a_grant_that_is_not_due_is_left_alone_unless_forced(new_world: NewWorld) -> None:
    """A duplicate message finds nothing to do; a person may force a refresh."""
    world = new_world()
    grant = world.creator()
    world.services.refresher.refresh(grant.grant_id)

    assert world.services.refresher.refresh(grant.grant_id).kind == "skipped"
    assert len(world.refreshes(grant)) == 1
    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"


def test_a_message_that_comes_fifty_times_is_one_refresh(new_world: NewWorld) -> None:
    """However many workers get the same id at once, TikTok hears of it once."""
    world = new_world()
    grant = world.creator()
    others = [world.services, world.another()]
    kinds: list[str] = []

    def deliver(number: int) -> None:
        kinds.append(others[number % 2].refresher.refresh(grant.grant_id).kind)

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(set(kinds)) == ["refreshed", "skipped"]
    assert kinds.count("refreshed") == 1
    assert len(world.refreshes(grant)) == 1


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_a_lost_answer_is_asked_for_once_more_within_a_grace_window(new_world: NewWorld, how: str) -> None:
    """If TikTok keeps the used token alive for a while, one quick retry brings the pair that was lost."""
    world = new_world("grace")
    grant = world.creator()
    world.sandbox.fault("lost", creator=grant.creator_id, call="refresh", times=1, how=how)

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert len(world.refreshes(grant)) == 2
    assert world.verdict(grant).lost == ()


def test_a_lost_answer_under_strict_rotation_keeps_the_old_access_token_in_service(new_world: NewWorld) -> None:
    """The pair is gone, which nobody can help: the grant is suspect, served, and nobody is asked yet."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("lost", creator=grant.creator_id, call="refresh", times=1)

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    after = world.look(grant)
    assert after.status is GrantStatus.SUSPECT
    assert token_reader(world.services).access_token(grant.creator_id, min_validity=60)
    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    assert world.services.store.undelivered_notices() == []
    assert len(world.refreshes(grant)) == 2


def test_no_retry_is_sent_if_settings_forbid_it(new_world: NewWorld) -> None:
    """With `never`, an answer in doubt costs one call."""
    world = new_world(IN_DOUBT_RETRY="never")
    grant = world.creator()
    world.sandbox.fault("lost", creator=grant.creator_id, call="refresh", times=1)

    world.services.refresher.refresh(grant.grant_id)

    assert len(world.refreshes(grant)) == 1
    assert world.look(grant).status is GrantStatus.ACTIVE


@pytest.mark.parametrize(
    ("kind", "how"), [("cut", {"at": -3}), ("huge", {"bytes": 200_000})], ids=["cut", "longer than we read"]
)
def test_an_incomplete_answer_that_holds_both_tokens_is_salvaged(
    new_world: NewWorld, kind: str, how: dict[str, Any]
) -> None:
    """Both tokens arrived before the answer broke off: that is the pair."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault(kind, creator=grant.creator_id, call="refresh", times=1, **how)

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert world.verdict(grant).lost_cut == ()
    assert len(world.refreshes(grant)) == 1


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("status", {"status": 502, "rotates": True}),
        ("html", {}),
        ("empty", {}),
        ("no_content", {}),
        ("cut", {"at": 20}),
        ("slow", {"seconds": 5}),
        ("drip", {"part": "body", "seconds_per_byte": 0.2}),
    ],
    ids=["502", "html", "empty", "204", "cut", "slow", "drip"],
)
def test_an_unusable_answer_is_in_doubt_and_never_a_verdict_on_the_creator(
    new_world: NewWorld, kind: str, how: dict[str, Any]
) -> None:
    """Whatever comes in place of an answer, the attempt is in doubt and the creator is not asked."""
    world = new_world(IN_DOUBT_RETRY="never", DEADLINE_SECONDS="1")
    grant = world.creator()
    world.sandbox.fault(kind, creator=grant.creator_id, call="refresh", times=1, **how)

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert world.look(grant).status is GrantStatus.ACTIVE
    assert world.look(grant).lease_owner is None
    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    assert world.services.journal.waiting() == 0


def test_a_pair_of_another_creator_is_never_stored(new_world: NewWorld) -> None:
    """The answer is set aside sealed, an alarm is raised, and neither creator's pointer moves."""
    world = new_world()
    grant, other = world.creators(2)
    world.sandbox.fault("wrong_creator", creator=grant.creator_id, call="refresh", times=1, creator_id=other.creator_id)

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert world.look(grant).pair_generation == 1
    assert world.look(other).pair_generation == 1
    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["misfit"]
    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.MISFIT


def test_an_answer_without_a_refresh_token_keeps_the_old_one(new_world: NewWorld) -> None:
    """RFC 6749 lets a server leave it out; an empty text is the same."""
    world = new_world("same")
    values: list[dict[str, Any]] = [{}, {"value": ""}]
    for value in values:
        grant = world.creator()
        world.sandbox.fault("refresh_token", creator=grant.creator_id, call="refresh", times=1, **value)

        assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
        assert world.verdict(grant).lost == ()


@pytest.mark.parametrize("lack", [{}, {"value": ""}, "same"], ids=["no-token", "empty-token", "the-same-token"])
def test_an_answer_that_keeps_the_refresh_token_keeps_its_known_end(new_world: NewWorld, lack: object) -> None:
    """The end of the consent is known from an earlier answer and holds, for the grant and for the pair's row."""
    world = new_world("same" if lack == "same" else "strict")
    grant = world.creator()
    if isinstance(lack, dict):
        world.sandbox.fault("refresh_token", creator=grant.creator_id, call="refresh", times=1, **lack)
    world.sandbox.fault(
        "expires", creator=grant.creator_id, call="refresh", times=1, field="refresh_token_expires_in", value=None
    )

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert grant.refresh_expires_at is not None
    assert world.look(grant).refresh_expires_at == grant.refresh_expires_at
    pair = world.services.store.current_pair(grant.creator_id)
    assert pair.refresh_expires_at == grant.refresh_expires_at


def test_a_new_refresh_token_without_an_end_has_none(new_world: NewWorld) -> None:
    """The end of the token before it says nothing of a new one."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault(
        "expires", creator=grant.creator_id, call="refresh", times=1, field="refresh_token_expires_in", value=None
    )

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    assert world.look(grant).refresh_expires_at is None


LIFE = 40


@pytest.mark.parametrize("trouble", ["misfit", "unreadable", "unread"])
def test_a_short_lived_token_is_tried_again_in_time(new_world: NewWorld, trouble: str) -> None:
    """An answer that does not fit, or a pair that does not open, costs a part of the life that is left."""
    world = new_world()
    grant = world.creator(age=86_400 - LIFE)
    if trouble == "misfit":
        world.sandbox.fault("wrong_creator", creator=grant.creator_id, call="refresh", times=1)
    elif trouble == "unread":
        world.sandbox.fault("html", creator=grant.creator_id, call="refresh", rotates=False)
    else:
        world.sql("UPDATE pairs SET sealed_refresh = sealed_access")

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    after = world.look(grant)
    assert after.failures == 1
    assert after.next_refresh_at - world.services.store.ping() <= timedelta(seconds=LIFE / 10)


@pytest.mark.parametrize("value", [0, -5, 10**18, 1.5, True, None, "soon"], ids=str)
def test_an_absurd_lifetime_never_costs_the_pair(new_world: NewWorld, value: object) -> None:
    """The pair is stored, and renewed early since nothing is known of its life."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("expires", creator=grant.creator_id, call="refresh", times=1, value=value)

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    after = world.look(grant)
    assert 60 <= (after.next_refresh_at - after.issued_at).total_seconds() <= 3600
    assert world.verdict(grant).lost == ()


def test_a_wrong_app_secret_stops_the_app_and_marks_nobody(new_world: NewWorld) -> None:
    """One answer is enough: one alarm, no creator marked, and nothing more is sent until a probe succeeds."""
    world = new_world()
    grants = world.creators(5)
    world.sandbox.control("app", {"secret": "rotated"})

    kinds = [world.services.refresher.refresh(grant.grant_id).kind for grant in grants]

    assert kinds == ["failed", "braked", "braked", "braked", "braked"]
    assert {world.look(grant).status for grant in grants} == {GrantStatus.ACTIVE}
    assert [world.look(grant).failures for grant in grants] == [1, 0, 0, 0, 0]
    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["app_stopped"]


def test_a_second_app_secret_is_tried_in_turn(new_world: NewWorld) -> None:
    """While TikTok's secret is rotated, the other configured one goes through, and first the next time."""
    world = new_world(TIKTOK_APP_SECRET_NEXT="rotated")
    grants = world.creators(3)
    world.sandbox.control("app", {"secret": "rotated"})

    kinds = {world.services.refresher.refresh(grant.grant_id).kind for grant in grants}

    assert kinds == {"refreshed"}
    assert world.services.store.brake().stopped is False


def test_a_revoked_creator_is_asked_exactly_once_and_after_a_second_look(new_world: NewWorld) -> None:
    """The first refusal makes the grant suspect; the second asks the creator, once, and the grant rests."""
    world = new_world()
    grant = world.creator()
    world.sandbox.revoke(grant.creator_id)
    refresh = world.services.refresher.refresh

    refresh(grant.grant_id)
    assert world.look(grant).status is GrantStatus.SUSPECT
    refresh(grant.grant_id, force=True)
    assert world.look(grant).status is GrantStatus.NEEDS_REAUTH
    assert refresh(grant.grant_id, force=True).kind == "skipped"

    assert [notice.kind for notice in world.services.store.undelivered_notices()] == ["reauth_needed"]


def test_an_older_kept_pair_is_tried_before_anybody_is_asked(new_world: NewWorld) -> None:
    """If the current refresh token is refused, the kept ones are sent, newest first; one that works wins."""
    world = new_world("same")
    grant = world.creator()
    world.sandbox.fault("refresh_token", creator=grant.creator_id, call="refresh", times=1, value="rft.false")
    world.services.refresher.refresh(grant.grant_id)

    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"
    assert world.look(grant).status is GrantStatus.ACTIVE


@pytest.mark.parametrize(
    ("rotation", "requests"), [pytest.param("same", 1, id="same"), pytest.param("strict", 4, id="strict")]
)
def test_a_refusal_costs_few_requests(new_world: NewWorld, rotation: str, requests: int) -> None:
    """After many refreshes a refused token is followed by few older ones, and none is sent twice."""
    world = new_world(rotation)
    grant = world.creator()
    for _ in range(6):
        assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"
    world.sandbox.revoke(grant.creator_id)
    before = len(world.refreshes(grant))

    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "failed"

    assert len(world.refreshes(grant)) - before == requests
    assert world.look(grant).status is GrantStatus.SUSPECT


def test_a_spent_quota_pauses_the_app_and_counts_against_no_creator(new_world: NewWorld) -> None:
    """After 40100 the next refresh gets no permit, and no grant has a failure."""
    world = new_world()
    first, second = world.creators(2)
    message = "Too many requests. The QPM limit was reached, the app is temporarily restricted."
    world.sandbox.fault("code", creator=first.creator_id, call="refresh", times=1, code=40100, message=message)

    world.services.refresher.refresh(first.grant_id)

    assert world.services.refresher.refresh(second.grant_id).kind == "denied"
    assert world.look(first).failures == 0
    assert world.refreshes(second) == []


def test_a_pair_that_comes_after_its_grant_was_revoked_is_revoked_at_tiktok(
    new_world: NewWorld, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    """A disconnection in the middle of a refresh wins: the late pair is never served, and ended upstream."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("slow", creator=grant.creator_id, call="refresh", times=1, seconds=0.5)
    refreshing = threading.Thread(target=world.services.refresher.refresh, args=(grant.grant_id,))
    refreshing.start()
    wait_until(lambda: world.refreshes(grant))

    world.services.store.mark_revoked(grant.creator_id)
    refreshing.join()
    assert world.services.revocation.resume() == 1

    assert world.look(grant).status is GrantStatus.REVOKED
    assert world.services.store.all_pairs() == []
    assert world.sandbox.creator(grant.creator_id)["revoked"]
