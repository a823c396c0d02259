"""A scan's ids, cut into messages and spread over the time until the next scan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.policy.pacing import MOST, OVERSUPPLY, SPAN_SECONDS, batch_size, pace


@given(count=st.integers(0, 2000), per_second=st.floats(0.1, 5000))
def test_every_id_goes_out_once_and_in_order(count: int, per_second: float) -> None:
    """Nothing is left out or doubled, no message is too large for the quota, and the most urgent ids go first."""
    ids = list(range(count))

    messages = pace(ids, per_second=per_second)

    assert [grant_id for message in messages for grant_id in message.ids] == ids
    assert all(0 < len(message.ids) <= max(1, min(MOST, per_second * SPAN_SECONDS)) for message in messages)
    assert [message.delay_seconds for message in messages] == sorted(message.delay_seconds for message in messages)


def test_messages_come_at_the_rate_of_the_quota() -> None:
    """A hundred ids at ten a second take about ten seconds less the oversupply, and the first go at once."""
    messages = pace(list(range(100)), per_second=10)

    assert messages[0].delay_seconds == 0
    assert messages[-1].delay_seconds == 90 / (10 * OVERSUPPLY)


def test_a_scan_publishes_about_what_fits_until_the_next() -> None:
    """The queue holds a scan's worth of ids, however many are due."""
    assert 100 <= batch_size(per_second=10, scan_seconds=10) <= 130
    assert batch_size(per_second=0.5, scan_seconds=1) >= 1
