"""Replays of dead workers' journals: what they may say of an attempt, and what holds nothing else up."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import pytest

from tests.support.claims import claim_one
from tests.support.world import World
from worker.errors import JournalError, NotFoundError
from worker.journal import Journal, JournalEntry
from worker.policy.verdicts import AttemptOutcome
from worker.refresh.refresher import Refresher
from worker.refresh.replay import Replayer
from worker.services import Services
from worker.store import Claim, GrantView
from worker.tiktok import REFRESH_CALL
from worker.vault import PairPlace

NewWorld = Callable[..., World]
CUT = b'{"code":0,"data":{"access_tok'
REFUSED = b'{"code":40107,"message":"no","request_id":"20261123101010"}'


def left_by_the_dead(world: World, grant: GrantView, *bodies: bytes) -> None:
    """Let a process claim a grant, receive these answers and die; its lease is over."""
    store, dead = world.services.store, world.another()
    claim, now = claim_one(store, grant.grant_id, owner="dead", lease_seconds=1), store.ping()
    assert claim is not None
    for body in bodies:
        dead.journal.append(entry_of(grant, claim, body, now))
    dead.journal.close()
    world.sql("UPDATE grants SET lease_until = lease_until - 10000")


def entry_of(grant: GrantView, claim: Claim, body: bytes, at: datetime) -> JournalEntry:
    """Return the journal's entry of an answer to a claim's call."""
    return JournalEntry(
        kind="refresh",
        grant_id=grant.grant_id,
        creator_id=grant.creator_id,
        consent=claim.consent,
        generation=claim.generation,
        call=REFRESH_CALL,
        http_status=200,
        body=body,
        complete=body is not CUT,
        fault="broke off" if body is CUT else None,
        retry_after=None,
        sent_at=at,
        received_at=at,
    )


def refresher_of(services: Services, *, journal: Journal | None = None, replayer: Replayer | None = None) -> Refresher:
    """Return the refresher of a process, with another journal or replayer."""
    return Refresher(
        replace(services.ground, journal=journal or services.journal),
        brake=services.brake,
        leases=services.leases,
        caller=services.caller,
        ending=services.ending,
        commits=services.commits,
        owners=services.owners,
        replayer=replayer or services.replayer,
        lease_seconds=60,
    )


@pytest.mark.parametrize("bodies", [(CUT, REFUSED), (REFUSED,)], ids=["cut-and-refused", "refused"])
def test_a_replayed_refusal_takes_no_doubt_away(new_world: NewWorld, bodies: tuple[bytes, ...]) -> None:
    """A call of the same attempt that nobody saw the end of may have rotated the pair: the next claim knows."""
    world = new_world()
    grant = world.creator()
    left_by_the_dead(world, grant, *bodies)

    assert world.services.upkeep.replay() == len(bodies)

    store = world.services.store
    assert store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    claim = claim_one(store, grant.grant_id, owner="next", lease_seconds=5)
    assert claim is not None
    assert claim.unresolved == (2,)


def test_a_pair_that_does_not_open_holds_up_no_other_replay(new_world: NewWorld) -> None:
    """An answer without a refresh token needs the old one, which is damaged: it waits, and the next one is stored."""
    world = new_world()
    damaged, whole = world.creators(2)
    data = {"access_token": "act.new", "expires_in": 86400}
    for grant, more in ((damaged, {}), (whole, {"refresh_token": "rft.new"})):
        answer = {"code": 0, "data": data | more | {"open_id": grant.creator_id}}
        left_by_the_dead(world, grant, json.dumps(answer).encode())
    world.sql("UPDATE pairs SET sealed_refresh = sealed_access WHERE grant_id = 1")
    assert damaged.grant_id == 1

    assert world.services.upkeep.replay() == 1

    assert world.look(whole).pair_generation == 2
    assert world.look(damaged).pair_generation == 1
    assert world.services.journal.waiting() == 1


def test_a_left_over_result_that_can_never_be_written_stops_no_refresh(new_world: NewWorld) -> None:
    """It is put with the stuck ones, whatever is wrong with it."""
    world = new_world()
    grant = world.creator()

    def gone() -> None:
        raise NotFoundError("there is no grant 7")

    world.services.commits._left_over.append(gone)

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    assert world.services.commits.retry_stuck() == 1


def test_a_folder_in_the_place_of_a_journal_file_is_passed_over(new_world: NewWorld) -> None:
    """Whoever put it there, an attempt without an outcome is looked for in the files, and the grant is refreshed."""
    world = new_world()
    grant = world.creator()
    left_by_the_dead(world, grant)
    world.services.journal.ready()
    (world.services.settings.journal_dir / "x.segment").mkdir()

    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"


class _StoredMeanwhile:
    """A journal whose records go, because their holder commits them, while somebody is about to look into it."""

    def __init__(self, journal: Journal, commit: Callable[[], object]) -> None:
        self._journal = journal
        self._commit = commit

    def holds(self, *asked: Any) -> bool:
        self._commit()
        return self._journal.holds(*asked)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


def test_an_answer_committed_while_the_journals_are_looked_through_is_not_asked_for_again(new_world: NewWorld) -> None:
    """The record is gone and the pair is there: whoever looks must not look in an order in which neither is seen."""
    world = new_world()
    grant = world.creator()
    services, holder = world.services, world.another()
    claim, now = claim_one(services.store, grant.grant_id, owner="holder", lease_seconds=1), services.store.ping()
    assert claim is not None
    assert claim.sealed is not None
    token = holder.sealer.open_refresh(claim.sealed, PairPlace(grant.creator_id, claim.consent, 1))
    raw = holder.tiktok.send_refresh(token)
    holder.journal.append(entry_of(grant, claim, raw.body, now))
    world.sql("UPDATE grants SET lease_until = lease_until - 10000")

    def commit() -> None:
        holder.journal.close()
        holder.upkeep.replay()

    refresher = refresher_of(services, journal=cast("Journal", _StoredMeanwhile(services.journal, commit)))
    assert refresher.refresh(grant.grant_id).kind == "skipped"

    assert world.look(grant).pair_generation == claim.generation
    assert len(world.refreshes(grant)) == 1


def test_a_claim_is_given_back_if_the_journals_cannot_be_looked_through(new_world: NewWorld) -> None:
    """The lease does not stay behind until it runs out; nothing was sent."""
    world = new_world()
    grant = world.creator()
    left_by_the_dead(world, grant)
    services = world.services

    class Unreadable(Replayer):
        def replay(self) -> int:
            raise JournalError("the folder cannot be read")

    replayer = Unreadable(services.ground, settlement=services.settlement, own_after_seconds=60)
    refresher = refresher_of(services, replayer=replayer)
    with pytest.raises(JournalError):
        refresher.refresh(grant.grant_id)

    assert world.look(grant).lease_until is None
    assert world.refreshes(grant) == []
