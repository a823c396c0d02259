"""What an error means for a grant and for the app."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from worker.errors import (
    AskCreatorError,
    BackOffError,
    InDoubtError,
    NotSentError,
    ShortageError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.policy import backoff
from worker.policy.verdicts import (
    CAUSE_WORDS,
    KEPT_ASIDE,
    Action,
    AttemptOutcome,
    Cause,
    FleetEvidence,
    Standing,
    brake_reason,
    cause_of,
    hold_reason,
    judge,
    retry,
    spare,
)
from worker.tiktok import REFRESH_CALL, RawAnswer, read_token_answer
from worker.tiktok.codes import CODES

NOW = datetime(2026, 11, 22, tzinfo=UTC)
STANDING = Standing(
    now=NOW,
    access_expires_at=NOW + timedelta(hours=8),
    refresh_expires_at=NOW + timedelta(days=200),
    failures=0,
    suspect=False,
    unresolved=False,
    draw=0.5,
)
REFUSED = AskCreatorError("gone", call="refresh", code=40107)
BUSY = BackOffError("busy", call="refresh", code=50000)
SECRET = StopEveryoneError("secret", call="refresh", code=40101)
BLOCKED = StopEveryoneError("blocked", call="refresh", code=40113)
PARAMETER = StopEveryoneError("parameter", call="refresh", code=40002)


def seen(refreshed: int = 0, *, grants: int = 9, troubled: int = 0, **counts: int) -> FleetEvidence:
    """Return what other grants met."""
    known = {"refused": 0, "stopped": 0} | counts
    return FleetEvidence(refreshed=refreshed, troubled=troubled, troubled_grants=min(grants, troubled), **known)


HEALTHY = seen(refreshed=100, refused=1, troubled=2)


@pytest.mark.parametrize(
    ("error", "outcome", "failed"),
    [
        (NotSentError("dns", call="refresh"), "not_sent", True),
        (InDoubtError("cut", call="refresh"), "in_doubt", True),
        (BackOffError("busy", call="refresh", code=50000), "in_doubt", True),
        (StopEveryoneError("secret", call="refresh", code=40101), "stopped", True),
        (WaitError("quota", call="refresh", code=40100, seconds=300, scope="minute"), "backed_off", False),
    ],
    ids=lambda value: getattr(value, "args", [value])[0] if isinstance(value, TikTokError) else str(value),
)
def test_no_trouble_of_ours_or_tiktoks_marks_a_creator(error: TikTokError, outcome: str, failed: bool) -> None:
    """Everything but a refusal puts the grant back on the schedule, even when its token has ended."""
    for standing in (STANDING, replace(STANDING, suspect=True, failures=99, access_expires_at=NOW)):
        verdict = judge(error, standing)

        assert verdict.action is Action.RETRY
        assert (verdict.outcome, verdict.failed) == (outcome, failed)
        assert verdict.at > NOW


def test_a_spent_quota_waits_for_as_long_as_tiktok_says() -> None:
    """A quota of the minute keeps a grant waiting five minutes, without a failure to its name."""
    verdict = judge(WaitError("quota", call="refresh", code=40100, seconds=300, scope="minute"), STANDING)

    assert verdict.at == NOW + timedelta(seconds=300)


def test_a_spent_quota_never_costs_more_than_a_part_of_the_tokens_time() -> None:
    """If the access token ends sooner than a quota recovers, the grant is tried again before that."""
    spent = WaitError("quota", call="refresh", code=40100, seconds=3600, scope="day")

    assert judge(spent, replace(STANDING, access_expires_at=NOW + timedelta(hours=1))).at == NOW + timedelta(minutes=15)
    assert judge(spent, replace(STANDING, access_expires_at=NOW)).at == NOW + timedelta(minutes=1)


ERRORS = st.sampled_from(
    [REFUSED, BUSY, SECRET, NotSentError("dns", call="refresh"), InDoubtError("cut", call="refresh")]
) | st.builds(lambda seconds: WaitError("quota", call="refresh", seconds=seconds, scope="day"), st.floats(0, 3600))


STANDINGS = st.builds(
    Standing,
    now=st.just(NOW),
    access_expires_at=st.floats(1, 10**7).map(lambda left: NOW + timedelta(seconds=left)),
    refresh_expires_at=st.none(),
    failures=st.integers(0, 10**9),
    suspect=st.booleans(),
    unresolved=st.booleans(),
    draw=st.floats(0, 1, exclude_max=True),
)


@given(error=ERRORS, standing=STANDINGS)
def test_no_verdict_puts_a_grant_off_for_more_than_half_of_its_tokens_time(
    error: TikTokError, standing: Standing
) -> None:
    """Whatever came, and however short the life is: the grant is tried again before its access token ends."""
    half = (standing.access_expires_at - NOW) / 2
    for verdict in (
        judge(error, standing),
        spare(judge(error, standing), standing),
        retry(AttemptOutcome.MISFIT, "x", standing),
    ):
        if verdict.action is not Action.ASK:
            assert NOW < verdict.at <= NOW + max(half, backoff.LEAST)


def test_a_stopped_app_asks_nobody_and_looks_again() -> None:
    """What would be a question while the app is well is a look in minutes while it is not."""
    standing = replace(STANDING, suspect=True, failures=1)
    verdict = spare(judge(REFUSED, standing), standing)

    assert (verdict.action, verdict.at) == (Action.SUSPECT, NOW + timedelta(minutes=5))
    assert spare(judge(BUSY, STANDING), STANDING) == judge(BUSY, STANDING)


def test_a_first_refusal_is_looked_at_twice() -> None:
    """One refusal makes a grant suspect and is repeated after minutes, so that a mass refusal is seen first."""
    verdict = judge(REFUSED, STANDING)

    assert verdict.action is Action.SUSPECT
    assert verdict.at == NOW + timedelta(minutes=5)


def test_a_second_refusal_asks_the_creator() -> None:
    """A grant that was refused before and is refused again needs its creator."""
    assert judge(REFUSED, replace(STANDING, suspect=True, failures=1)).action is Action.ASK


def test_a_refusal_in_doubt_waits_while_the_access_token_lives() -> None:
    """An attempt in doubt may explain the refusal: the creator is asked only once the access token has ended."""
    doubtful = replace(STANDING, suspect=True, unresolved=True, failures=3)

    assert judge(REFUSED, doubtful).action is Action.SUSPECT
    assert judge(REFUSED, replace(doubtful, access_expires_at=NOW)).action is Action.ASK


def test_a_consent_past_its_own_end_is_asked_for_at_once() -> None:
    """A refresh token whose year is over needs no second look."""
    verdict = judge(REFUSED, replace(STANDING, refresh_expires_at=NOW - timedelta(seconds=1)))

    assert verdict.action is Action.ASK
    assert "run out" in verdict.reason


@pytest.mark.parametrize("error", [REFUSED, BUSY, SECRET])
@pytest.mark.parametrize("suspect", [False, True])
@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("refresh_days", [None, -1, 100])
def test_nobody_is_asked_while_an_answer_is_kept_aside(
    error: TikTokError, hours: int, refresh_days: int | None, *, suspect: bool
) -> None:
    """The wait changes no other verdict, and the next look is never a rush."""
    standing = replace(
        STANDING,
        access_expires_at=NOW + timedelta(hours=hours),
        refresh_expires_at=None if refresh_days is None else NOW + timedelta(days=refresh_days),
        failures=20,
        suspect=suspect,
    )

    usual, verdict = judge(error, standing), judge(error, replace(standing, aside=True))

    if usual.action is Action.ASK:
        assert (verdict.action, verdict.outcome) == (Action.SUSPECT, usual.outcome)
        assert verdict.at - NOW >= timedelta(minutes=5)
        assert verdict.reason.endswith(KEPT_ASIDE)
    else:
        assert verdict == usual


def test_a_second_look_comes_before_the_access_token_ends() -> None:
    """With little time left the second look comes sooner than five minutes."""
    verdict = judge(REFUSED, replace(STANDING, access_expires_at=NOW + timedelta(seconds=60)))

    assert verdict.at == NOW + timedelta(seconds=15)


@pytest.mark.parametrize(
    ("evidence", "error", "failures", "stops"),
    [
        pytest.param(HEALTHY, BUSY, 0, False, id="busy-once"),
        pytest.param(HEALTHY, REFUSED, 0, False, id="refused-once"),
        pytest.param(seen(), SECRET, 0, True, id="wrong-secret-at-first"),
        pytest.param(seen(), BLOCKED, 0, True, id="blocked-at-first"),
        pytest.param(HEALTHY, SECRET, 0, False, id="wrong-secret-for-one-of-many"),
        pytest.param(seen(), BLOCKED, 1, False, id="blocked-for-one-that-failed-before"),
        pytest.param(seen(refreshed=100, stopped=1, app_refused=1), SECRET, 0, True, id="wrong-secret-for-a-second"),
        pytest.param(seen(refreshed=9, stopped=2), BLOCKED, 0, False, id="blocked-for-some-and-others-well-in-between"),
        pytest.param(HEALTHY, PARAMETER, 0, False, id="parameter-once"),
        pytest.param(seen(stopped=2), PARAMETER, 5, True, id="parameter-for-three"),
        pytest.param(seen(refreshed=20, refused=6), BUSY, 0, False, id="refused-a-fifth"),
        pytest.param(seen(refused=4), BUSY, 0, False, id="refused-few"),
        pytest.param(seen(refreshed=100, refused=6), BUSY, 0, False, id="refused-among-many"),
        pytest.param(seen(refreshed=1, troubled=10), BUSY, 0, True, id="troubled-most"),
        pytest.param(seen(refreshed=5, troubled=10), BUSY, 0, False, id="troubled-many"),
        pytest.param(seen(troubled=12, grants=2), BUSY, 0, False, id="troubled-two-of-them"),
    ],
)
def test_the_app_stops_for_its_own_trouble_and_not_for_one_grants(
    evidence: FleetEvidence, error: TikTokError, failures: int, stops: bool
) -> None:
    """A wrong secret stops the app at once; refusals and trouble do so when their share is beyond belief."""
    assert (brake_reason(evidence, error, failures=failures) is not None) is stops


def test_a_stop_says_whether_anything_was_sent() -> None:
    """Where most of the troubled attempts were not sent, the way is named, and not TikTok."""
    reached, unreached = seen(troubled=12, unsent=6), seen(troubled=12, unsent=7)

    assert brake_reason(reached, BUSY, failures=0) == "TikTok does not answer as it should: 12 of 12"
    assert brake_reason(unreached, BUSY, failures=0) == (
        "TikTok was not reached (network, name server or proxy): 7 of 12 were not sent"
    )


@pytest.mark.parametrize(
    ("evidence", "holds"),
    [
        pytest.param(seen(refreshed=20, refused=6), True, id="more-than-a-fifth"),
        pytest.param(seen(refused=5), True, id="all-of-five"),
        pytest.param(seen(refused=4), False, id="few"),
        pytest.param(seen(refreshed=20, refused=5), False, id="a-fifth"),
        pytest.param(seen(refreshed=100, refused=6), False, id="among-many"),
    ],
)
def test_creators_are_held_back_when_an_unlikely_share_is_refused(evidence: FleetEvidence, holds: bool) -> None:
    """Five or more, and more than a fifth of what was tried: then nobody is asked for now."""
    assert (hold_reason(evidence) is not None) is holds


@pytest.mark.parametrize(
    ("error", "standing", "lives", "cause"),
    [
        (REFUSED, {}, True, Cause.SPENT_ELSEWHERE),
        (REFUSED, {}, False, Cause.CREATOR_REVOKED),
        (REFUSED, {}, None, Cause.UNKNOWN),
        (REFUSED, {"unresolved": True}, False, Cause.LOST_HERE),
        (REFUSED, {"aside": True}, True, Cause.LOST_HERE),
        (REFUSED, {"refresh_expires_at": NOW}, True, Cause.CONSENT_ENDED),
        (AskCreatorError("over", call="refresh", code=40103), {}, True, Cause.CONSENT_ENDED),
        (SECRET, {}, None, Cause.APP_SECRET_WRONG),
        (BLOCKED, {}, None, Cause.APP_SECRET_WRONG),
        (PARAMETER, {}, None, Cause.UNKNOWN),
        (BUSY, {}, None, Cause.TIKTOK_INCIDENT),
        (InDoubtError("no answer", call="refresh"), {}, None, Cause.TIKTOK_INCIDENT),
        (NotSentError("no way", call="refresh"), {}, None, Cause.TIKTOK_INCIDENT),
        (ShortageError("no descriptor", call="refresh"), {}, None, Cause.SHORTAGE_HERE),
        (BackOffError("odd", call="refresh", code=49_999), {}, None, Cause.UNKNOWN),
        (WaitError("busy", call="refresh", code=40100, scope="second", seconds=1), {}, None, None),
    ],
)
def test_each_failure_has_its_typed_verdict(
    error: TikTokError, standing: dict[str, Any], lives: bool | None, cause: Cause | None
) -> None:
    """What cannot be known is called unknown, and a spent quota says nothing of the grant."""
    assert cause_of(error, replace(STANDING, **standing), access_lives=lives) is cause


def test_every_typed_verdict_has_words() -> None:
    """Whoever reads `explain` gets a sentence."""
    assert set(CAUSE_WORDS) == set(Cause)


@given(code=st.integers(-1, 70_000), suspect=st.booleans(), ended=st.booleans(), failures=st.integers(0, 50))
def test_a_code_that_nobody_knows_disconnects_nobody(code: int, *, suspect: bool, ended: bool, failures: int) -> None:
    """However often it comes, and after the access token has ended too: only recognised errors ask a creator."""
    assume(code not in CODES)
    raw = RawAnswer(
        call=REFRESH_CALL, http_status=200, complete=True,
        body=json.dumps({"code": code, "message": "a new code", "data": {}}).encode(),
    )  # fmt: skip
    with pytest.raises(TikTokError) as caught:
        read_token_answer(raw)
    until = NOW - timedelta(hours=1) if ended else NOW + timedelta(hours=1)
    standing = replace(STANDING, suspect=suspect, failures=failures, access_expires_at=until)

    verdict = judge(caught.value, standing)

    assert verdict.action is Action.RETRY
    assert cause_of(caught.value, standing, access_lives=False) in {Cause.UNKNOWN, Cause.TIKTOK_INCIDENT}
