"""Verdicts: they hold for the state of affairs in which they were reached, and for no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.claims import claim_one
from worker.policy.verdicts import AttemptOutcome
from worker.store import Claim, GrantCondition, GrantStatus

if TYPE_CHECKING:
    from tests.store.conftest import Fleet

VERDICTS = ["release", "suspect", "ask_reauth"]


def _end(fleet: Fleet, verdict: str, claim: Claim) -> bool:
    if verdict == "release":
        return fleet.store.release(
            claim, outcome=AttemptOutcome.BACKED_OFF, next_refresh_at=fleet.soon(), reason="busy", failed=True, code=5
        )
    if verdict == "suspect":
        return fleet.store.suspect(
            claim, outcome=AttemptOutcome.REFUSED, next_refresh_at=fleet.soon(), reason="refused", code=40105
        )
    return fleet.store.ask_reauth(claim, reason="gone", code=40103, http_status=200, request_id="r")


def test_a_released_attempt_goes_back_to_the_schedule(fleet: Fleet) -> None:
    """The retry lives on the row: when, how often it failed, and why."""
    claim = fleet.claim(fleet.add().grant_id)
    at = fleet.soon(90)

    released = fleet.store.release(
        claim,
        outcome=AttemptOutcome.BACKED_OFF,
        next_refresh_at=at,
        reason="busy",
        failed=True,
        code=50000,
        http_status=502,
        request_id="r2",
    )

    grant = fleet.store.grant("ada")
    assert released
    assert (grant.status, grant.failures, grant.last_reason) == (GrantStatus.ACTIVE, 1, "busy")
    assert (grant.next_refresh_at, grant.lease_until) == (at, None)
    attempt = fleet.store.attempts(grant.grant_id)[0]
    assert (attempt.outcome, attempt.code, attempt.http_status) == (AttemptOutcome.BACKED_OFF, 50000, 502)
    assert (attempt.request_id, attempt.reason) == ("r2", "busy")


def test_waiting_for_the_quota_is_no_failure(fleet: Fleet) -> None:
    """Our own limits never count against a creator."""
    claim = fleet.claim(fleet.add().grant_id)

    fleet.store.release(
        claim, outcome=AttemptOutcome.BACKED_OFF, next_refresh_at=fleet.soon(), reason="quota", failed=False
    )

    assert fleet.store.grant("ada").failures == 0


def test_a_suspect_grant_is_looked_at_again_and_still_served(fleet: Fleet) -> None:
    """The access token lives on while doubt is cleared."""
    claim = fleet.claim(fleet.add().grant_id)

    assert _end(fleet, "suspect", claim)

    grant = fleet.store.grant("ada")
    assert (grant.status, grant.failures) == (GrantStatus.SUSPECT, 1)
    assert fleet.current() == b"access ada/1/1"
    assert fleet.claim(grant.grant_id).status is GrantStatus.SUSPECT


def test_an_attempt_whose_answer_is_kept_aside_makes_its_grant_wait(fleet: Fleet) -> None:
    """Noted twice is noted once; a newer pair, a new consent and the operator's word end the wait."""
    grant = fleet.add().grant_id
    claim = fleet.claim(grant)
    attempt = (grant, claim.consent, claim.generation)
    fleet.store.note_aside(*attempt)
    (first,) = fleet.store.attempts_aside(grant)
    fleet.store.note_aside(*attempt)

    assert fleet.store.attempts_aside(grant) == [first]
    assert first.aside_at is not None
    assert fleet.store.fleet_status().aside == 1
    assert [row.grant_id for row in fleet.store.grants(condition=GrantCondition.ASIDE)] == [grant]
    assert _end(fleet, "suspect", claim)
    assert not fleet.store.ask_suspect(grant, "a person says so")
    assert fleet.store.forget_aside(*attempt)
    assert not fleet.store.forget_aside(*attempt)
    assert (fleet.store.attempts_aside(grant), fleet.store.fleet_status().aside) == ([], 0)
    assert fleet.store.ask_suspect(grant, "a person says so")

    other = fleet.add("bob").grant_id
    claim = fleet.claim(other)
    fleet.store.note_aside(other, claim.consent, claim.generation)
    assert fleet.store.fleet_status().aside == 1
    assert fleet.save(claim, "newer")
    assert (fleet.store.attempts_aside(other), fleet.store.fleet_status().aside) == ([], 0)


def test_asking_the_creator_writes_one_notice(fleet: Fleet) -> None:
    """Status and notice come in one transaction, and the grant is not refreshed any more."""
    claim = fleet.claim(fleet.add().grant_id)

    assert _end(fleet, "ask_reauth", claim)
    assert not _end(fleet, "ask_reauth", claim)

    assert fleet.store.grant("ada").status is GrantStatus.NEEDS_REAUTH
    notices = fleet.store.undelivered_notices()
    assert [(notice.dedupe_key, notice.creator_id, notice.kind) for notice in notices] == [
        (f"reauth:{claim.grant_id}:1.1", "ada", "reauth_needed")
    ]
    assert claim_one(fleet.store, claim.grant_id, owner="a", lease_seconds=60, force=True) is None


@pytest.mark.parametrize("delivered", [False, True])
def test_a_creator_is_asked_again_for_a_grant_that_had_come_back_to_life(fleet: Fleet, delivered: bool) -> None:
    """A late pair revives the grant; the request for what is lost after that is another one, delivered or not."""
    grant = fleet.add()
    late, heir = fleet.claim(grant.grant_id, seconds=0), fleet.claim(grant.grant_id)
    assert _end(fleet, "ask_reauth", heir)
    if delivered:
        fleet.store.delivery_accepted(fleet.store.undelivered_notices()[0].notice_id, "ops")
    assert fleet.save(late, "late")
    news = ["recovered"] if delivered else []
    assert [notice.kind for notice in fleet.store.undelivered_notices()] == news

    assert _end(fleet, "ask_reauth", fleet.claim(grant.grant_id))

    assert [notice.kind for notice in fleet.store.undelivered_notices()] == [*news, "reauth_needed"]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_of_an_older_attempt_changes_nothing_but_its_own_row(fleet: Fleet, verdict: str) -> None:
    """A process that slept past its lease judges a state that is gone."""
    grant = fleet.add()
    late, heir = fleet.claim(grant.grant_id, seconds=0), fleet.claim(grant.grant_id)
    before = fleet.store.grant_by_id(grant.grant_id)

    assert not _end(fleet, verdict, late)

    assert fleet.store.grant_by_id(grant.grant_id) == before
    assert fleet.lease_left(heir) > 0
    assert fleet.store.attempts(grant.grant_id)[1].outcome is not None
    assert fleet.store.undelivered_count() == 0


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_of_an_older_consent_changes_nothing(fleet: Fleet, verdict: str) -> None:
    """The creator has authorized again meanwhile."""
    grant = fleet.add()
    old = fleet.claim(grant.grant_id)
    before = fleet.add(replace=True)

    assert not _end(fleet, verdict, old)

    assert fleet.store.grant("ada") == before
    assert fleet.store.undelivered_count() == 0


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_is_void_when_a_late_pair_came_during_the_attempt(fleet: Fleet, verdict: str) -> None:
    """What was refused is not what is stored now: the lease is freed and the late pair's schedule stays."""
    grant = fleet.add()
    late, heir = fleet.claim(grant.grant_id, seconds=0), fleet.claim(grant.grant_id)
    fleet.save(late, "late")
    before = fleet.store.grant_by_id(grant.grant_id)

    assert not _end(fleet, verdict, heir)

    after = fleet.store.grant_by_id(grant.grant_id)
    assert (after.status, after.failures, after.lease_until) == (GrantStatus.ACTIVE, 0, None)
    assert after.next_refresh_at == before.next_refresh_at
    assert fleet.store.undelivered_count() == 0


def test_a_verdict_is_void_when_an_older_version_came_that_was_not_tried(fleet: Fleet) -> None:
    """Every kept pair may be the living one, so the creator is not asked before each was tried."""
    grant = fleet.add()
    first, second = fleet.claim(grant.grant_id, seconds=0), fleet.claim(grant.grant_id, seconds=0)
    fleet.save(second, "second")
    fleet.store.request_refresh("ada")
    third = fleet.claim(grant.grant_id)
    fleet.save(first, "first")

    assert not _end(fleet, "ask_reauth", third)

    assert fleet.store.claimable([grant.grant_id]).due
    fourth = fleet.claim(grant.grant_id)
    assert fourth.kept == (3, 2, 1)
    assert _end(fleet, "ask_reauth", fourth)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_does_not_bring_a_revoked_grant_back(fleet: Fleet, verdict: str) -> None:
    """What people ended stays ended."""
    claim = fleet.claim(fleet.add().grant_id)
    fleet.store.mark_revoked("ada")

    assert not _end(fleet, verdict, claim)

    assert fleet.store.grant("ada").status is GrantStatus.REVOKED


def test_a_late_pair_turns_doubt_into_refreshed_and_nothing_turns_it_back(fleet: Fleet) -> None:
    """The attempt's history ends with the truth."""
    grant = fleet.add()
    claim = fleet.claim(grant.grant_id)
    ids = claim.grant_id, claim.consent, claim.generation
    assert fleet.store.record_outcome(*ids, outcome=AttemptOutcome.IN_DOUBT, reason="the process died")
    assert not fleet.store.record_outcome(*ids, outcome=AttemptOutcome.IN_DOUBT, reason="again")

    fleet.save(claim, "late")

    assert not fleet.store.record_outcome(*ids, outcome=AttemptOutcome.REFUSED, reason="too late")
    assert fleet.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.REFRESHED


def test_a_replayed_answer_settles_an_attempt_in_doubt(fleet: Fleet) -> None:
    """A refusal found in the journal of a dead process is better than doubt."""
    claim = fleet.claim(fleet.add().grant_id)
    ids = claim.grant_id, claim.consent, claim.generation
    fleet.store.record_outcome(*ids, outcome=AttemptOutcome.IN_DOUBT, reason="the process died")

    assert fleet.store.record_outcome(*ids, outcome=AttemptOutcome.REFUSED, reason="replayed", code=40105)

    attempt = fleet.store.attempts(claim.grant_id)[0]
    assert (attempt.outcome, attempt.code) == (AttemptOutcome.REFUSED, 40105)


def test_asking_the_creator_and_storing_a_late_pair_at_once_never_leaves_both(fleet: Fleet) -> None:
    """Whichever commits first: the pair is current, the grant is active and no notice waits."""
    rounds = 25
    grants = [fleet.add(f"creator {number}").grant_id for number in range(rounds)]
    late = [fleet.claim(grant_id, seconds=0) for grant_id in grants]
    heirs = [fleet.claim(grant_id) for grant_id in grants]
    barrier = threading.Barrier(2)

    def ask_each() -> None:
        for claim in heirs:
            barrier.wait(20)
            fleet.store.ask_reauth(claim, reason="gone")

    def save_each() -> None:
        for claim in late:
            barrier.wait(20)
            fleet.save(claim, "late")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(ask_each), pool.submit(save_each)]:
            done.result(60)

    for number in range(rounds):
        grant = fleet.store.grant(f"creator {number}")
        assert grant.status is GrantStatus.ACTIVE
        assert grant.next_refresh_at > fleet.store.ping() + timedelta(hours=1)
    assert fleet.store.undelivered_count() == 0
