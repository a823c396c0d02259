"""How far ahead creators are invited again, and when a week is crowded."""

from __future__ import annotations

from worker.policy.invitations import FEWEST, crowded_weeks


def test_a_week_is_crowded_if_a_tenth_of_the_fleet_ends_in_it() -> None:
    """An even spread over a year has a fiftieth in each; a handful is never a crowd."""
    assert crowded_weeks({3: 101, 4: 100, 60: 900}, fleet=1000) == [3, 60]
    assert crowded_weeks({0: FEWEST - 1}, fleet=FEWEST) == []
    assert crowded_weeks({0: FEWEST}, fleet=FEWEST) == [0]
    assert crowded_weeks(dict.fromkeys(range(52), 20), fleet=1040) == []
