"""What an error means for a grant and for the app."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from worker.errors import (
    AskCreatorError,
    BackOffError,
    InDoubtError,
    NotSentError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.policy.verdicts import Action, FleetEvidence, Standing, brake_reason, judge

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
REFUSED = AskCreatorError("gone", at_once=True, call="refresh", code=40107)
HEALTHY = FleetEvidence(refreshed=100, refused=1, stopped=0, troubled=2)


@pytest.mark.parametrize(
    ("error", "outcome", "failed"),
    [
        (NotSentError("dns", call="refresh"), "not_sent", True),
        (InDoubtError("cut", call="refresh"), "in_doubt", True),
        (BackOffError("busy", call="refresh", code=50000), "in_doubt", True),
        (StopEveryoneError("secret", call="refresh", code=40101), "stopped", False),
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


def test_a_second_look_comes_before_the_access_token_ends() -> None:
    """With little time left the second look comes sooner than five minutes."""
    verdict = judge(REFUSED, replace(STANDING, access_expires_at=NOW + timedelta(seconds=60)))

    assert verdict.at == NOW + timedelta(seconds=15)


@pytest.mark.parametrize(
    ("evidence", "error", "stops"),
    [
        (HEALTHY, None, False),
        (HEALTHY, REFUSED, False),
        (HEALTHY, StopEveryoneError("secret", call="refresh", code=40101), True),
        (HEALTHY, StopEveryoneError("blocked", call="refresh", code=40113), True),
        (HEALTHY, StopEveryoneError("parameter", call="refresh", code=40002), False),
        (FleetEvidence(refreshed=0, refused=0, stopped=3, troubled=0), None, True),
        (FleetEvidence(refreshed=20, refused=6, stopped=0, troubled=0), None, True),
        (FleetEvidence(refreshed=0, refused=4, stopped=0, troubled=0), None, False),
        (FleetEvidence(refreshed=100, refused=6, stopped=0, troubled=0), None, False),
        (FleetEvidence(refreshed=1, refused=0, stopped=0, troubled=10), None, True),
        (FleetEvidence(refreshed=5, refused=0, stopped=0, troubled=10), None, False),
    ],
)
def test_the_app_stops_for_its_own_trouble_and_not_for_one_grants(
    evidence: FleetEvidence, error: TikTokError | None, stops: bool
) -> None:
    """A wrong secret stops the app at once; refusals and trouble do so when their share is beyond belief."""
    assert (brake_reason(evidence, error) is not None) is stops
