"""Revoking and forgetting over a whole daemon: TikTok away, work under way, journals of several hosts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.world import World
from worker.errors import NotReadyError, RevokedError, UnknownCreatorError, UsageError
from worker.journal import JournalEntry
from worker.store import GrantStatus, GrantView
from worker.telemetry import Fact
from worker.tiktok import RawAnswer
from worker.tokens import token_reader

NewWorld = Callable[..., World]


def facts_of(world: World) -> list[Fact]:
    """Return the list into which the world's facts go from now on."""
    facts: list[Fact] = []
    object.__setattr__(world.services.ground, "hook", facts.append)
    return facts


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "code", "code": 50000, "message": "system error"},
        {"kind": "code", "code": 40101, "message": "wrong secret"},
        {"kind": "code", "code": 49999, "message": "a code that nobody knows"},
        {"kind": "lost", "how": "rst", "rotates": False},
    ],
    ids=["system error", "app secret", "unknown code", "no answer"],
)
def test_a_revocation_that_tiktok_does_not_confirm_holds_here_and_is_tried_again(
    new_world: NewWorld, fault: dict[str, Any]
) -> None:
    """Nobody is served meanwhile; one warning a try; when TikTok answers, the pairs are wiped."""
    world = new_world()
    grant = world.creator()
    facts = facts_of(world)
    kind = str(fault.pop("kind"))
    world.sandbox.fault(kind, creator=grant.creator_id, call="revoke", times=2, **fault)

    with pytest.raises(NotReadyError, match="is revoked here"):
        world.services.revocation.revoke(grant.creator_id)
    with pytest.raises(RevokedError):
        token_reader(world.services).access_token(grant.creator_id)
    assert world.services.revocation.resume() == 0
    assert world.services.revocation.resume() == 0  # put off, so nothing is sent
    assert [fact.name for fact in facts].count("grant.revoke_failed") == 1
    world.sql("UPDATE grants SET ending_at = 0")

    assert world.services.revocation.resume() == 1

    assert world.sandbox.creator(grant.creator_id)["revoked"]
    assert world.services.store.all_pairs() == []
    assert world.services.revocation.revoke(grant.creator_id) is None


def test_a_quota_that_is_spent_by_a_revocation_pauses_the_app(new_world: NewWorld) -> None:
    """As after any other call; the revocation waits with the rest."""
    world = new_world()
    grant = world.creator()
    message = "Too many requests. The QPM limit was reached, the app is temporarily restricted."
    world.sandbox.fault("code", creator=grant.creator_id, call="revoke", code=40100, message=message)

    with pytest.raises(NotReadyError, match="is revoked here"):
        world.services.revocation.revoke(grant.creator_id)

    assert world.services.limiter.paused_seconds() > 0
    assert world.look(grant).ending_at is not None


def test_waits_between_tries_grow_with_the_time_that_has_passed(new_world: NewWorld) -> None:
    """From a minute up to six hours, so an app that TikTok has barred is not asked for every creator all day."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("code", creator=grant.creator_id, call="revoke", code=40113, message="app blocked")
    waits = []
    for hours in (0, 3, 100):
        world.services.store.mark_revoked(grant.creator_id, wipe=False)
        world.sql(f"UPDATE grants SET ending_at = 0, updated_at = updated_at - {hours * 3_600_000}")  # noqa: S608 - a number
        world.services.revocation.resume()
        row = world.services.store.transact(
            lambda connection: connection.exec_driver_sql("SELECT ending_at FROM grants").scalar_one(), writes=False
        )
        waits.append(round((row - world.services.store.ping().timestamp() * 1000) / 60_000))

    assert waits == [1, 180, 360]


def test_a_new_consent_ends_a_revocation_that_waits(new_world: NewWorld) -> None:
    """TikTok is not told to end what the creator has just given again."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("code", creator=grant.creator_id, call="revoke", code=50000, message="x")
    with pytest.raises(NotReadyError):
        world.services.revocation.revoke(grant.creator_id)
    world.sandbox.heal()
    world.sql("UPDATE grants SET status = 'active', ending_at = NULL, consent = consent + 1")

    assert world.services.revocation.resume() == 0

    assert not world.sandbox.creator(grant.creator_id)["revoked"]


def test_a_revocation_waits_for_the_refresh_that_is_under_way(
    new_world: NewWorld, wait_until: Callable[..., None]
) -> None:
    """The new pair is the one by which TikTok is told; TikTok is told once."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("slow", creator=grant.creator_id, call="refresh", times=1, seconds=0.5)
    refreshing = threading.Thread(target=world.services.refresher.refresh, args=(grant.grant_id,))
    refreshing.start()
    wait_until(lambda: world.refreshes(grant))

    assert world.services.revocation.revoke(grant.creator_id) is True
    refreshing.join()

    assert world.sandbox.creator(grant.creator_id)["revoked"]
    assert world.look(grant).ending_at is None
    assert world.services.store.all_pairs() == []
    assert world.services.revocation.resume() == 0


def set_aside(world: World, grant: GrantView, *, asked_for: GrantView | None = None) -> str:
    """Put an answer with a pair of a creator into the folder for records that a person must look at."""
    token = world.sandbox.grants(creators=[grant.creator_id])[0]
    asked = asked_for or grant
    now = world.services.store.ping()
    body = json.dumps({"code": 0, "message": "OK", "request_id": "r", "data": token}).encode()
    raw = RawAnswer(
        call="tt_user/oauth2/refresh_token/", http_status=200, body=body, complete=True, fault=None, retry_after=None
    )
    journal = world.services.journal
    journal.ready()
    ids = (asked.grant_id, asked.creator_id, 1, 2)
    journal.set_aside(journal.append(JournalEntry.of("refresh", raw, ids, sent_at=now, seconds=0)))
    return grant.creator_id


def test_records_of_a_forgotten_creator_go_from_the_folder_and_others_stay(new_world: NewWorld) -> None:
    """What counts is to whom TikTok gave the pair, not for whom it was asked."""
    world = new_world()
    gone, stays = world.creators(2)
    set_aside(world, gone)
    set_aside(world, gone, asked_for=stays)
    set_aside(world, stays, asked_for=gone)

    world.services.forgetting.forget(gone.creator_id)

    assert [pair.creator_id for pair in world.services.placing.pairs()] == [stays.creator_id]


def test_another_host_cleans_its_journal_soon_after(new_world: NewWorld, tmp_path: Path) -> None:
    """Its own processes look for tombstones; the bytes of released answers go with the file that held them."""
    world = new_world()
    grant = world.creator()
    there = tmp_path / "elsewhere"
    other = world.another(JOURNAL_DIR=str(there))
    other.forgetting.sweep()
    assert other.refresher.refresh(grant.grant_id).kind == "refreshed"
    before = [path for path in there.glob("*.segment") if any(path.read_bytes()[512:])]
    assert before

    world.services.forgetting.forget(grant.creator_id)
    other.forgetting.sweep()

    assert [path for path in before if path.exists()] == []
    other.journal.ready()
    assert other.journal.waiting() == 0


def test_a_clean_journal_costs_one_read_while_nobody_is_forgotten(new_world: NewWorld) -> None:
    """The file is not replaced each time that a process says hello."""
    world = new_world()
    gone, stays = world.creators(2)
    world.services.forgetting.forget(gone.creator_id)
    world.services.refresher.refresh(stays.grant_id)
    files = set(Path(world.environ["EVERTOKEN_JOURNAL_DIR"]).glob("*.segment"))

    world.services.forgetting.sweep()
    world.services.forgetting.sweep()

    assert set(Path(world.environ["EVERTOKEN_JOURNAL_DIR"]).glob("*.segment")) == files


def test_a_creator_who_was_forgotten_may_come_back(new_world: NewWorld) -> None:
    """A new consent is a new grant; an answer from before is not stored under it, nor by hand."""
    world = new_world()
    grant = world.creator()
    world.services.forgetting.forget(grant.creator_id)
    set_aside(world, grant)
    world.sql("UPDATE tombstones SET finished_at = finished_at + 60000")
    (record,) = world.services.placing.pairs()
    with pytest.raises(UsageError, match="was forgotten after this pair came"):
        world.services.placing.place(world.services.placing.look(record.name))

    again = world.services.store
    with pytest.raises(UnknownCreatorError):
        again.grant(grant.creator_id)
    token = world.sandbox.grants(creators=[grant.creator_id])[0]
    assert token["open_id"] == grant.creator_id
    world.sql("UPDATE tombstones SET finished_at = 0")
    placed = world.services.placing.place(world.services.placing.look(record.name))

    assert (placed.status, placed.grant_id != grant.grant_id) == (GrantStatus.ACTIVE, True)


def test_somebody_of_whom_only_a_record_is_kept_is_forgotten(new_world: NewWorld) -> None:
    """The pair of an exchange that could not be stored may be all that there is."""
    world = new_world()
    grant, other = world.creators(2)
    world.services.forgetting.forget(grant.creator_id)
    world.sql("DELETE FROM tombstones")
    set_aside(world, grant, asked_for=other)

    assert world.services.forgetting.forget(grant.creator_id) is None

    assert list(world.services.placing.pairs()) == []
    assert world.services.store.tombstones([grant.creator_id])
    with pytest.raises(UnknownCreatorError):
        world.services.forgetting.forget("nobody")


def test_a_creator_whom_upkeep_removed_first_is_not_told_to_stay(new_world: NewWorld) -> None:
    """The command and a worker's upkeep remove one creator at once; neither says that the data stays."""
    world = new_world()
    grant = world.creator()
    other, facts, turns = world.another(), facts_of(world), iter([True])

    def failpoint(name: str) -> None:
        if name == "forget_rows" and next(turns, False):
            assert other.forgetting.resume() == 1

    object.__setattr__(world.services.ground, "failpoint", failpoint)

    assert world.services.forgetting.forget(grant.creator_id) is True

    assert next(turns, None) is None
    assert "grant.forget_cancelled" not in [fact.name for fact in facts]
    with pytest.raises(UnknownCreatorError):
        world.services.store.grant(grant.creator_id)
