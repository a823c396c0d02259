"""Hung workers and beats, five times over each trouble of Redis; `python -m tests.celery.hangs` prints the table."""

from __future__ import annotations

import pytest

from tests.celery.hangs import TROUBLES, play


@pytest.mark.night
@pytest.mark.timeout(3600)
def test_every_hung_process_is_found_over_every_trouble_and_no_sound_one_ends() -> None:
    """Twenty of twenty workers and beats: red, starved, ended with the status 75, and what was in hand is stored."""
    tallies = play(tuple(TROUBLES), 5)

    assert [each for tally in tallies.values() for each in tally.findings] == []
    assert sum(tally.workers for tally in tallies.values()) == 20
    assert sum(tally.beats for tally in tallies.values()) == 20
    assert sum(tally.restarted for tally in tallies.values()) == 0
