"""Upgrades under load, and the way back; `python -m tests.faults.upgrades` prints the table of docs/long-runs.md."""

from __future__ import annotations

import pytest

from tests.faults.upgrades import KINDS, older_versions, play
from tests.support.versions import NoHistoryError


@pytest.mark.night
@pytest.mark.timeout(1800)
def test_an_upgrade_and_the_way_back_under_load_lose_nothing() -> None:
    """Workers of two versions on one database: every token is kept fresh in each phase, and none is sent twice."""
    try:
        tallies = play(older_versions())
    except NoHistoryError as error:
        pytest.skip(str(error))

    assert [each for tally in tallies for each in tally.findings] == []
    assert len(tallies) >= len(KINDS)
    for tally in tallies:
        assert min(tally.old[:3]) > 0, "the older version refreshed nothing while it ran"
        assert min(tally.new[2:5]) > 0, "this version refreshed nothing while it ran"
