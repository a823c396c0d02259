"""An answer that may hold the new pair is kept aside: no creator is asked before the operator has dealt with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.claims import claim_one
from tests.support.world import World
from worker.journal import JournalEntry
from worker.policy.verdicts import KEPT_ASIDE, AttemptOutcome
from worker.store import GrantCondition, GrantStatus, GrantView
from worker.tiktok import REFRESH_CALL
from worker.timeline import what_next

NewWorld = Callable[..., World]


class DiedError(BaseException):
    """Stands for the end of the process: nothing handles it."""


def lose_the_name(world: World, grant: GrantView, *, calls: int = 1) -> None:
    """Let the next calls rotate the pair and answer without the creator's id, which TikTok then does not give."""
    world.sandbox.fault("extra", creator=grant.creator_id, call="refresh", times=calls, fields={"open_id": None})
    world.sandbox.fault("code", creator=grant.creator_id, call="token_info", code=51010, message="busy")


def end_access_token(world: World, grant: GrantView) -> None:
    """Let the grant's access token, and what TikTok said of its refresh token, have ended long ago."""
    dates = "issued_at = issued_at - 400000000, access_expires_at = issued_at - 300000000"
    also = "refresh_expires_at = issued_at - 200000000"
    world.sql(f"UPDATE grants SET {dates}, {also} WHERE id = {grant.grant_id}")  # noqa: S608 - numbers of our own


def refuse(world: World, grant: GrantView, times: int = 3) -> None:
    """Refresh a grant again and again; its used token is refused."""
    for _ in range(times):
        assert world.services.refresher.refresh(grant.grant_id, force=True).kind in {"failed", "skipped"}


def questions(world: World) -> int:
    """Return how many creators are asked to authorize again."""
    return [notice.kind for notice in world.services.store.undelivered_notices()].count("reauth_needed")


def records(world: World) -> list[str]:
    """Return the names of the records that are kept aside."""
    return [pair.name for pair in world.services.placing.pairs()]


def waiting(world: World) -> int:
    """Return how many grants wait for the operator, as the counts and the list both say."""
    count = world.services.store.fleet_status().aside
    assert len(world.services.store.grants(condition=GrantCondition.ASIDE)) == count
    return count


def test_nobody_is_asked_while_an_unread_answer_is_kept_aside(new_world: NewWorld) -> None:
    """The access token ends, TikTok refuses the old pair for good, and the pair that is kept can still be placed."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    end_access_token(world, grant)
    refuse(world, grant)

    looked = world.look(grant)
    assert (looked.status, questions(world), waiting(world)) == (GrantStatus.SUSPECT, 0, 1)
    assert KEPT_ASIDE in str(looked.last_reason)
    assert looked.next_refresh_at > world.services.store.ping()

    world.sandbox.heal()
    (name,) = records(world)
    world.services.placing.place(world.services.placing.look(name))

    assert (world.look(grant).status, questions(world), waiting(world)) == (GrantStatus.ACTIVE, 0, 0)
    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"
    assert world.verdict(grant).lost == ()
    assert records(world) == []


def test_a_discarded_answer_lets_the_creator_be_asked_once(new_world: NewWorld) -> None:
    """Once the operator has said that no pair is in it, the ordinary way goes on."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    end_access_token(world, grant)
    refuse(world, grant)
    (name,) = records(world)

    world.services.placing.discard(name)
    assert (records(world), waiting(world), questions(world)) == ([], 0, 0)
    refuse(world, grant)

    assert (world.look(grant).status, questions(world)) == (GrantStatus.NEEDS_REAUTH, 1)


def test_a_grant_whose_record_is_lost_with_its_host_can_be_given_up(new_world: NewWorld) -> None:
    """The record is gone; the operator names the creator, who is then asked as any other."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    for path in (world.services.settings.journal_dir / "set-aside").iterdir():
        path.unlink()
    end_access_token(world, grant)
    refuse(world, grant)
    assert (world.look(grant).status, waiting(world)) == (GrantStatus.SUSPECT, 1)

    assert world.services.placing.give_up(grant.creator_id) == 1
    refuse(world, grant)

    assert (world.look(grant).status, questions(world)) == (GrantStatus.NEEDS_REAUTH, 1)


def test_the_last_of_two_records_of_an_attempt_ends_the_wait(new_world: NewWorld) -> None:
    """Each may hold the pair; discarding one leaves the other to be looked at."""
    world = new_world(rotation="grace")
    grant = world.creator()
    lose_the_name(world, grant, calls=2)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    first, second = records(world)

    world.services.placing.discard(first)
    assert waiting(world) == 1
    world.services.placing.discard(second)

    assert waiting(world) == 0


def test_a_newer_pair_ends_the_wait(new_world: NewWorld) -> None:
    """If TikTok still takes the old refresh token, the record does not matter any more."""
    world = new_world(rotation="same")
    grant = world.creator()
    lose_the_name(world, grant, calls=2)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    assert waiting(world) == 1
    world.sandbox.heal()

    assert world.services.refresher.refresh(grant.grant_id, force=True).kind == "refreshed"

    assert (waiting(world), world.services.store.attempts_aside(grant.grant_id)) == (0, [])


def test_a_crash_before_the_record_is_moved_aside_loses_neither_record_nor_wait(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is committed first; the next process finds the record in the journal and moves it."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    monkeypatch.setattr(world.services.journal, "set_aside", _die)
    with pytest.raises(DiedError):
        world.services.refresher.refresh(grant.grant_id)
    assert (waiting(world), records(world)) == (1, [])
    world.services.journal.close()

    after = world.another()
    after.replayer.replay()

    assert (waiting(world), len(records(world))) == (1, 1)
    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT


@pytest.mark.parametrize("noted", [False, True], ids=["before", "after"])
def test_an_unread_answer_in_a_dead_workers_journal_makes_its_grant_wait(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch, *, noted: bool
) -> None:
    """A replay that dies before or after it has noted the wait is made good by the next one."""
    world = new_world()
    grant = world.creator()
    store, dead = world.services.store, world.another()
    claim, now = claim_one(store, grant.grant_id, owner="dead", lease_seconds=1), store.ping()
    assert claim is not None
    body = b'{"code":0,"data":[{"refresh_token":"rft.a"},{"refresh_token":"rft.b"}]}'
    ids = (grant.grant_id, grant.creator_id, claim.consent, claim.generation)
    dead.journal.append(
        JournalEntry(
            "refresh", *ids, call=REFRESH_CALL, http_status=200, body=body, complete=True, fault=None,
            retry_after=None, sent_at=now, received_at=now,
        )
    )  # fmt: skip
    dead.journal.close()
    world.sql("UPDATE grants SET lease_until = lease_until - 10000")
    dying = world.another()
    if noted:
        monkeypatch.setattr(dying.journal, "set_aside", _die)
    else:
        monkeypatch.setattr(dying.store, "note_aside", _die)
    with pytest.raises(DiedError):
        dying.replayer.replay()
    assert (waiting(world), records(world)) == (int(noted), [])
    dying.journal.close()

    world.another().replayer.replay()

    assert (waiting(world), len(records(world))) == (1, 1)


def test_an_answer_of_another_creators_pair_makes_nobody_wait(new_world: NewWorld) -> None:
    """That answer was read: it is no pair of this grant, and its creator is asked as usual."""
    world = new_world()
    grant, other = world.creators(2)
    world.sandbox.fault(
        "extra", creator=grant.creator_id, call="refresh", times=1, fields={"open_id": other.creator_id}
    )

    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    assert (waiting(world), len(records(world))) == (0, 1)


def test_the_notice_says_what_the_operator_can_do(new_world: NewWorld) -> None:
    """The alarm and `grants explain` name the host and the commands."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"

    (notice,) = world.services.store.undelivered_notices()
    aside = world.services.store.attempts_aside(grant.grant_id)
    why = what_next(world.look(grant), aside, now=world.services.store.ping(), renew_at=0.5).refresh_why

    for text in (notice.detail, why):
        assert world.services.ground.owner in text
        assert "grants place" in text
        assert "grants discard" in text
    unheld = what_next(world.look(grant), [], now=world.services.store.ping(), renew_at=0.5).refresh_why
    assert "grants place" not in unheld


def test_pruning_keeps_what_a_grant_waits_for(new_world: NewWorld) -> None:
    """The attempt outlives the history as long as its answer is kept aside."""
    world = new_world()
    grant = world.creator()
    lose_the_name(world, grant)
    assert world.services.refresher.refresh(grant.grant_id).kind == "failed"
    refuse(world, grant)
    before = len(world.services.store.attempts(grant.grant_id))

    world.services.store.prune_attempts(-60, 100)

    assert (before, len(world.services.store.attempts(grant.grant_id)), waiting(world)) == (4, 2, 1)


def _die(*_: Any, **__: Any) -> None:
    raise DiedError
