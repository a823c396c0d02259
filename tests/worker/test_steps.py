"""The steps of a refresh, each alone: what an attempt does next, what a call keeps, how attempts end, the brake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.support.claims import claim_one
from tests.support.world import World
from worker.errors import (
    AskCreatorError,
    InDoubtError,
    JournalError,
    StopEveryoneError,
    StoreUnavailableError,
    TikTokError,
)
from worker.journal import Journal
from worker.limiter import Permit
from worker.policy.verdicts import AttemptOutcome
from worker.refresh.attempt import MOST_TOKENS, Attempt, Call, LeaseTooShortError, Next, elapsed_clock
from worker.refresh.brake import Brake
from worker.refresh.results import Failed, LeftOver, Refreshed, Superseded
from worker.store import BrakeState, GrantView
from worker.telemetry import Fact
from worker.tiktok import RawAnswer, TokenAnswer
from worker.vault import PairPlace, Token

NewWorld = Callable[..., World]
RAW = RawAnswer(call="refresh", http_status=200, body=b"{}", complete=True)
REFUSED = AskCreatorError("refused", call="refresh", code=40107)
DOUBT = InDoubtError("no answer", call="refresh")


def attempt_of(world: World, grant: GrantView | None = None) -> Attempt:
    """Claim a creator's grant and return the attempt."""
    grant = grant or world.creator()
    claim = claim_one(world.services.store, grant.grant_id, owner=world.services.owner, lease_seconds=6)
    assert claim is not None
    return Attempt(claim, elapsed_clock())


def called(attempt: Attempt, result: TokenAnswer | TikTokError, sent: str = "rft.1") -> Attempt:
    """Let an attempt have made a call that came to this."""
    attempt.calls.append(Call(attempt.claim.claimed_at, Token(sent), None, RAW, 0.1, elapsed_clock(), result=result))
    return attempt


def send(world: World, attempt: Attempt) -> Call:
    """Send the current refresh token of an attempt's grant."""
    claim = attempt.claim
    assert claim.sealed is not None
    token = world.services.sealer.open_refresh(
        claim.sealed, PairPlace(claim.creator_id, claim.consent, claim.pair_generation)
    )
    now = elapsed_clock()
    attempt.calls.append(world.services.caller.send(attempt, token, Permit("", now, now)))
    return attempt.calls[-1]


@pytest.mark.parametrize(
    ("results", "may_repeat", "expected"),
    [
        pytest.param([DOUBT], True, Next.REPEAT, id="in doubt, once more"),
        pytest.param([DOUBT], False, Next.END, id="in doubt, and settings forbid it"),
        pytest.param([DOUBT, DOUBT], True, Next.END, id="in doubt twice"),
        pytest.param([REFUSED], True, Next.OLDER, id="refused"),
        pytest.param([DOUBT, REFUSED], True, Next.OLDER, id="refused after doubt"),
        pytest.param([REFUSED] * MOST_TOKENS, True, Next.END, id="refused often enough"),
        pytest.param([StopEveryoneError("no", call="refresh", code=40101)], True, Next.END, id="our app"),
    ],
)
def test_an_attempt_knows_what_is_sent_next(
    new_world: NewWorld, results: list[TikTokError], may_repeat: bool, expected: Next
) -> None:
    """A table: what came of the calls so far, and what follows."""
    attempt = attempt_of(new_world())
    for number, result in enumerate(results):
        called(attempt, result, sent=f"rft.{number}")

    assert attempt.next(may_repeat=may_repeat) is expected


def test_an_attempt_lasts_as_long_as_its_lease(new_world: NewWorld) -> None:
    """The lease is that of the claim, whatever a keeper has made of it since."""
    attempt = attempt_of(new_world())

    assert attempt.lasts(5)
    assert not attempt.lasts(6)
    attempt.won_at -= 4
    assert not attempt.lasts(3)
    assert (attempt.now - attempt.claim.claimed_at).total_seconds() > 4


def test_a_call_is_journaled_unread_and_read_once_it_is_synced(new_world: NewWorld) -> None:
    """After sending nothing is known of the answer but that it is kept."""
    world = new_world()
    attempt = attempt_of(world)

    call = send(world, attempt)
    assert (call.result, call.record) == (None, None)
    assert world.services.journal.waiting() == 1
    world.services.caller.read(attempt)

    assert isinstance(call.result, TokenAnswer)
    assert call.record is not None
    assert attempt.is_clean


def test_nothing_is_sent_under_a_lease_that_ends_too_soon(new_world: NewWorld) -> None:
    """The check is the last thing before sending."""
    world = new_world()
    attempt = attempt_of(world)
    attempt.won_at -= 5

    with pytest.raises(LeaseTooShortError):
        send(world, attempt)
    assert world.refreshes(world.services.store.grant_by_id(attempt.claim.grant_id)) == []


def test_an_answer_that_the_journal_does_not_take_is_read_all_the_same(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair is in hand: it is no clean one any more, and the database gets it by itself."""
    world = new_world()
    attempt = attempt_of(world)

    def full(*_: Any) -> None:
        raise JournalError("the disk is full")

    monkeypatch.setattr(Journal, "write", full)
    call = send(world, attempt)
    world.services.caller.read(attempt)

    assert (call.journaled, attempt.is_clean) == (False, False)
    assert attempt.pair is not None
    assert isinstance(world.services.ending.conclude([attempt])[0], Refreshed)


def test_several_attempts_end_together_and_their_records_go(new_world: NewWorld) -> None:
    """A pair that is older than another worker's newer one is distinguished from the current ones."""
    world = new_world()
    grants = world.creators(3)
    attempts = [attempt_of(world, grant) for grant in grants]
    for attempt in attempts:
        send(world, attempt)
        world.services.caller.read(attempt)
    world.sql(f"UPDATE grants SET consent = 2 WHERE id = {grants[1].grant_id:d}")  # noqa: S608 - a number of ours

    results = world.services.ending.conclude(attempts)

    assert [type(result) for result in results] == [Refreshed, Superseded, Refreshed]
    assert world.services.journal.waiting() == 0


def test_no_record_goes_while_the_database_is_away(new_world: NewWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result waits by itself until the database is back, and is written before anything new is claimed."""
    world = new_world(STORE_SECONDS="0.1")
    attempts = [attempt_of(world, grant) for grant in world.creators(2)]
    for attempt in attempts:
        send(world, attempt)
        world.services.caller.read(attempt)
    with monkeypatch.context() as away:
        away.setattr(world.services.store, "save_group", _away)
        results = world.services.ending.conclude(attempts)

    assert [type(result) for result in results] == [LeftOver, LeftOver]
    assert world.services.journal.waiting() == 2
    assert world.services.commits.settle()
    assert world.services.journal.waiting() == 0


def test_a_failure_is_judged_and_written_down(new_world: NewWorld) -> None:
    """The attempt has its outcome, and the grant is back on its schedule with a failure to its name."""
    world = new_world()
    grant = world.creator()
    attempt = called(attempt_of(world, grant), DOUBT)

    assert isinstance(world.services.ending.fail(attempt, attempt.failure), Failed)

    assert world.services.store.attempts(grant.grant_id)[0].outcome is AttemptOutcome.IN_DOUBT
    assert (world.look(grant).failures, world.look(grant).lease_owner) == (1, None)


def test_the_brake_is_released_once_and_only_if_it_was_seen(new_world: NewWorld) -> None:
    """Whoever releases it learns so, because what waited is due; a second success releases nothing."""
    world = new_world()
    brake, store = world.services.brake, world.services.store

    assert not brake.stops(BrakeState())
    assert not brake.succeeded()
    store.pull_brake("trouble", probe_seconds=60)
    assert brake.stops(store.brake())
    assert not brake.wins_probe()
    assert brake.succeeded()
    assert not brake.succeeded()
    assert not store.brake().stopped


def test_the_brake_is_pulled_once_for_an_error_of_the_app(new_world: NewWorld) -> None:
    """The first grant that TikTok answers so stops all and reports it; the next one learns the reason and no more."""
    world = new_world()
    facts: list[Fact] = []
    brake = Brake(replace(world.services.ground, hook=facts.append))
    wrong_app = StopEveryoneError("no", call="refresh", code=40113)

    reason = brake.considers(wrong_app, grant_id=1, failures=0)
    assert reason is not None
    assert "40113" in reason
    assert brake.considers(wrong_app, grant_id=2, failures=0) == reason
    assert [(fact.name, fact.level) for fact in facts] == [("app.stopped", "error")]
    assert world.services.store.brake().stopped
    assert brake.succeeded(), "the one who pulled it has seen it"


def test_one_refused_grant_stops_nothing_and_holds_nobody(new_world: NewWorld) -> None:
    """A creator who is gone, or a call in doubt, speaks of one grant alone."""
    world = new_world()
    facts: list[Fact] = []
    brake = Brake(replace(world.services.ground, hook=facts.append))

    assert brake.considers(REFUSED, grant_id=1, failures=0) is None
    assert brake.considers(DOUBT, grant_id=1, failures=0) is None
    assert facts == []
    assert world.services.store.brake() == BrakeState()


def test_a_grant_refused_while_a_hold_lasts_names_the_hold(new_world: NewWorld) -> None:
    """No creator is asked then, and no second alarm is raised."""
    world = new_world()
    facts: list[Fact] = []
    brake = Brake(replace(world.services.ground, hook=facts.append))
    world.services.store.begin_hold("many are refused")

    assert brake.considers(REFUSED, grant_id=1, failures=0) == "many are refused"
    assert brake.considers(DOUBT, grant_id=1, failures=0) is None, "a hold stops no refresh"
    assert facts == []


def _away(*_: Any) -> None:
    raise StoreUnavailableError("away")
