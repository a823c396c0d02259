"""How far ahead creators are invited again, and when a week is crowded."""

from __future__ import annotations

from worker.policy.invitations import EARLIEST_DAYS, FEWEST, USUAL_DAYS, crowded_weeks, days_ahead


def test_a_week_is_crowded_if_a_tenth_of_the_fleet_ends_in_it() -> None:
    """An even spread over a year has a fiftieth in each; a handful is never a crowd."""
    assert crowded_weeks({3: 101, 4: 100, 60: 900}, fleet=1000) == [3, 60]
    assert crowded_weeks({0: FEWEST - 1}, fleet=FEWEST) == []
    assert crowded_weeks({0: FEWEST}, fleet=FEWEST) == [0]
    assert crowded_weeks(dict.fromkeys(range(52), 20), fleet=1040) == []


def test_invitations_of_a_crowd_are_spread_over_two_months() -> None:
    """Each grant has its own day, by the number that was drawn for it; outside of a crowd nobody is early."""
    spread = [days_ahead(number / 100, crowded=True) for number in range(100)]

    assert (min(spread), max(spread) < EARLIEST_DAYS) == (USUAL_DAYS, True)
    weeks = [sum(begin <= days < begin + 7 for days in spread) for begin in range(USUAL_DAYS, EARLIEST_DAYS, 7)]
    assert max(weeks) <= 13
    assert days_ahead(0.9, crowded=False) == USUAL_DAYS
