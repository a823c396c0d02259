"""How long a failed grant waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from worker.policy import backoff

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@given(failures=st.integers(0, 10**9), left=st.integers(-(10**6), 10**6), draw=st.floats(0, 1))
def test_waits_are_bounded_for_any_number_of_failures(failures: int, left: int, draw: float) -> None:
    """A wait is positive, at most 15 minutes, and at most a tenth of what the access token has left."""
    expires_at = NOW + timedelta(seconds=left)

    wait = backoff.retry_at(now=NOW, expires_at=expires_at, failures=failures, draw=draw).at - NOW

    assert timedelta(0) < wait <= backoff.CEILING
    if left > 0:
        assert wait <= max(timedelta(seconds=left) / 10, backoff.LEAST)


def test_waits_grow_with_failures_and_shrink_near_the_end() -> None:
    """The ladder doubles while there is time, and tries come closer in the emergency window."""
    day = NOW + timedelta(days=1)
    waits = [backoff.retry_at(now=NOW, expires_at=day, failures=n, draw=1).at - NOW for n in range(1, 12)]

    assert waits == sorted(waits)
    assert waits[0] == backoff.BASE
    assert waits[-1] == backoff.CEILING
    near = backoff.retry_at(now=NOW, expires_at=NOW + timedelta(seconds=60), failures=11, draw=1).at - NOW
    assert near == timedelta(seconds=6)


@given(failures=st.integers(0, 10**9), left=st.integers(-(10**6), 10**6), draw=st.floats(0, 1))
def test_a_suspect_grant_is_looked_at_within_half_an_hour(failures: int, left: int, draw: float) -> None:
    """A grant in doubt is seen again before half of its time is gone, and never in a hot loop."""
    expires_at = NOW + timedelta(seconds=left)

    wait = backoff.suspect_at(now=NOW, expires_at=expires_at, failures=failures, draw=draw).at - NOW

    assert backoff.LEAST <= wait <= backoff.SUSPECT_CEILING
    if left > 0:
        assert wait <= max(timedelta(seconds=left) / 2, backoff.LEAST)


@given(failures=st.integers(0, 10**9), draw=st.floats(0, 1))
def test_pulls_back_off_up_to_six_hours(failures: int, draw: float) -> None:
    """A pull that fails again and again is tried ever more rarely, and still tried."""
    wait = backoff.pull_retry_at(now=NOW, failures=failures, draw=draw).at - NOW

    assert timedelta(0) < wait <= backoff.PULL_CEILING
