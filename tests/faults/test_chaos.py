"""A short chaos run; `make chaos SCHEDULES=n SEED=s` is the long one."""

from __future__ import annotations

import pytest

from tests.faults.chaos import run
from tests.faults.schedules import draw

pytestmark = pytest.mark.slow_suite


@pytest.mark.parametrize("seeds", [range(1, 4), pytest.param(range(4, 9), marks=pytest.mark.slow_suite)], ids=len)
def test_a_few_random_schedules_harm_nobody(seeds: range) -> None:
    """Three faults at once, on real workers, and the oracle's nine checks find nothing."""
    total = run([draw(seed) for seed in seeds], lanes=1)

    assert total.findings == []
    assert total.schedules == len(seeds)
    assert total.received >= len(seeds)
    assert total.written_ns, "the window was not measured"


def test_a_seed_gives_the_same_schedule_again() -> None:
    """What was found once can be played again; other seeds give other schedules."""
    drawn = [draw(seed) for seed in range(50)]

    assert drawn == [draw(seed) for seed in range(50)]
    assert len({str(schedule.events) for schedule in drawn}) == 50
    assert {draw(seed, rotation="strict").rotation for seed in range(50)} == {"strict"}
    assert {len(schedule.events) for schedule in drawn} == {3}
