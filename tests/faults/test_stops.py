"""Workers that are asked to end under load; `python -m tests.faults.stops` prints the table of docs/long-runs.md."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults.kill_points import ORDER
from tests.faults.stops import BOUND_SECONDS, OTHERS, STAGES, Way, play

pytestmark = pytest.mark.slow_suite


@pytest.mark.parametrize(
    ("ways", "times"),
    [
        pytest.param(STAGES[::2], 1, id="a handful", marks=pytest.mark.timeout(240)),
        pytest.param(STAGES, 10, id="a hundred", marks=[pytest.mark.night, pytest.mark.timeout(3600)]),
        pytest.param(OTHERS, 4, id="in other ways", marks=[pytest.mark.night, pytest.mark.timeout(3600)]),
    ],
)
def test_a_worker_that_is_asked_to_end_under_load_loses_nothing_and_leaves_nothing(
    ways: Sequence[Way], times: int
) -> None:
    """At each stage: its documented status within its bound, no pair lost, none sent twice, no lease left behind."""
    tallies, found = play(ways, times)

    assert [each for tally in tallies.values() for each in tally.findings] + found == []
    assert [tally.times for tally in tallies.values()] == [times] * len(ways)
    assert max(tally.slowest for tally in tallies.values()) <= BOUND_SECONDS


def test_every_stage_of_a_refresh_is_played() -> None:
    """A failpoint that is added needs its row."""
    assert [way.point for way in STAGES] == [point for point, _ in ORDER]
