"""The load of the coming hours."""

from __future__ import annotations

import pytest

from worker.planning.forecast import Due, forecast

HOUR = 3600.0


def test_grants_come_back_a_period_later() -> None:
    """A grant of three hours that is renewed at two thirds is due every two hours; later rounds are a little spread."""
    ahead = forecast([Due(3 * HOUR, 1, 100)], renew_at=2 / 3, slice_seconds=HOUR, slices=8, usable=1.0)

    assert ahead[1].due == 100
    assert ahead[0].due == 0
    assert ahead[3].due > 80
    assert sum(part.due for part in ahead) == pytest.approx(400, rel=0.15)


def test_a_backlog_is_sent_at_the_rate_of_the_quota_and_waits_meanwhile() -> None:
    """What does not fit into a slice is left for the next, and is neither lost nor sent twice."""
    ahead = forecast([Due(100 * HOUR, 0, 9000)], renew_at=2 / 3, slice_seconds=HOUR, slices=4, usable=1.0)

    assert [part.sent for part in ahead] == [3600, 3600, 1800, 0]
    assert [part.waiting for part in ahead] == [5400, 1800, 0, 0]


def test_what_lies_beyond_is_left_out() -> None:
    """Grants that are due after the last slice do not come."""
    ahead = forecast([Due(24 * HOUR, 30, 5)], renew_at=2 / 3, slice_seconds=HOUR, slices=24, usable=1.0)

    assert sum(part.due for part in ahead) == 0


def test_a_life_much_shorter_than_a_slice_is_due_many_times_in_each() -> None:
    """Nothing is lost if a grant is due several times in one slice."""
    ahead = forecast([Due(600.0, 0, 1)], renew_at=0.5, slice_seconds=HOUR, slices=10, usable=1.0)

    assert ahead[5].due == pytest.approx(12, rel=0.1)
