"""The hard limit on a process's own requests, on a clock of the test's own."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from worker.limiter.limiter import Ceiling
from worker.limiter.shared import Windows

BOUNDLESS = 1e9


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_no_second_and_no_minute_has_more_than_its_quota(pauses: list[float]) -> None:
    """Whenever somebody asks, what was admitted in the window before it is no more than the window's number."""
    ceiling = Ceiling(Windows(per_second=3, per_minute=20, per_account_minute=1))
    admitted = list[float]()
    for now in accumulate(pauses):
        full = [len([at for at in admitted if at + window > now]) >= most for window, most in ((1.0, 3), (60.0, 20))]
        wait = ceiling.admit(now)
        assert (wait > 0) is any(full)
        if not wait:
            admitted.append(now)


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    """With a quota that is never full, a process keeps the times of the last second and the last minute alone."""
    ceiling = Ceiling(Windows(per_second=BOUNDLESS, per_minute=BOUNDLESS, per_account_minute=1))
    for hundredths in range(60 * 100 * 5):
        assert ceiling.admit(hundredths / 100) == 0.0

    assert [len(times) for _, times in ceiling._sent] == [100, 6000]
