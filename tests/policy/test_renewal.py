"""When grants are renewed."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.policy import renewal

START = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


def test_renewal_window_begins_at_the_set_fraction_of_the_life_that_was_given() -> None:
    """A grant is due around two thirds of its life, be that life a day or two hours."""
    for life in (DAY, timedelta(hours=2), timedelta(seconds=90)):
        for jitter in (0, 0.3, 0.99):
            due = renewal.next_refresh(issued_at=START, expires_at=START + life, renew_at=2 / 3, jitter=jitter)

            assert abs((due.at - START) / life - 2 / 3) <= renewal.STRETCH / 2
            assert "of the life" in due.reason


@given(jitter=st.floats(0, 1, exclude_max=True), renew_at=st.floats(0.1, 0.85), seconds=st.integers(1, 10**8))
def test_renewal_never_falls_into_the_emergency_window_nor_before_the_life(
    jitter: float, renew_at: float, seconds: int
) -> None:
    """Whatever the jitter and the fraction, a refresh is planned inside the life and before its last tenth."""
    expires_at = START + timedelta(seconds=seconds)

    due = renewal.next_refresh(issued_at=START, expires_at=expires_at, renew_at=renew_at, jitter=jitter).at

    emergency = renewal.emergency_at(issued_at=START, expires_at=expires_at)
    assert START < due <= max(emergency, START + renewal.FLOOR)


def test_a_fleet_imported_in_one_minute_is_level_within_one_life() -> None:
    """A thousand grants that come at once are spread: no twentieth of the second life has over 1.5 times the mean."""
    refreshes: Counter[int] = Counter()
    for number in range(1000):
        jitter = renewal.draw_jitter(number)
        at = renewal.first_refresh(issued_at=START, expires_at=START + DAY, now=START, renew_at=2 / 3, jitter=jitter).at
        while at < START + 2 * DAY:
            if at >= START + DAY:
                refreshes[int((at - START - DAY) / (DAY / 20))] += 1
            at = renewal.next_refresh(issued_at=at, expires_at=at + DAY, renew_at=2 / 3, jitter=jitter).at

    busiest, mean = max(refreshes.values()), sum(refreshes.values()) / 20
    assert len(refreshes) == 20
    assert busiest <= 1.5 * mean


def test_a_token_imported_late_in_its_life_is_due_at_once() -> None:
    """An imported token whose window has begun is not spread but refreshed now."""
    now = START + DAY * 0.9

    due = renewal.first_refresh(issued_at=START, expires_at=START + DAY, now=now, renew_at=2 / 3, jitter=0.99)

    assert due.at == now


@given(number=st.integers(0, 10**12))
def test_jitter_is_a_fraction_and_the_same_each_time(number: int) -> None:
    """The jitter of a grant is in [0, 1) and can be drawn again."""
    assert 0 <= renewal.draw_jitter(number) < 1
    assert renewal.draw_jitter(number) == renewal.draw_jitter(number)


@pytest.mark.parametrize(("seconds", "life"), [(None, renewal.UNKNOWN_LIFE), (7200, timedelta(hours=2))])
def test_an_unknown_life_is_taken_as_short(seconds: int | None, life: timedelta) -> None:
    """A missing lifetime leads to an early refresh and never to a guess of a day."""
    assert renewal.life_ends(issued_at=START, seconds=seconds) == START + life
