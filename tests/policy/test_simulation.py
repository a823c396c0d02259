"""Fleets on a virtual clock: level load, outages, shorter lives, a smaller quota, and consents that end together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.planning.capacity import DAY
from worker.planning.scenarios import HOUR, SCENARIOS, Change, Scenario
from worker.planning.simulation import simulate
from worker.planning.summary import summarize


def scaled(name: str, creators: int, **changes: object) -> Scenario:
    """Return a scenario for a smaller fleet, with a quota that is smaller by as much."""
    scenario = SCENARIOS[name]
    share = creators / scenario.creators
    limits = {"per_second": scenario.per_second * share, "per_minute": scenario.per_minute * share}
    return replace(scenario, creators=creators, **limits | changes)  # type: ignore[arg-type]  # names of its own fields


def test_a_fleet_imported_in_one_minute_is_level_in_its_second_life() -> None:
    """A thousand creators: the busiest of twenty equal slices of the second life has at most 1.5 times the mean."""
    course = simulate(scaled("mass-import", 1000))

    second = course.refreshed[24 * 60 : 48 * 60]
    slices = [sum(second[start : start + 72]) for start in range(0, len(second), 72)]
    assert len(slices) == 20
    assert max(slices) <= 1.5 * sum(slices) / 20


@pytest.mark.slow_suite
def test_a_large_fleet_has_no_busy_minute() -> None:
    """The more creators, the nearer the busiest minute is to the mean; every one is refreshed at two thirds."""
    scenario = scaled("mass-import", 300_000, seconds=2 * DAY)

    summary = summarize(scenario, simulate(scenario))

    assert summary.unevenness <= 1.2
    assert summary.mean == pytest.approx(300_000 / 960, rel=0.01)
    assert summary.sound


@pytest.mark.slow_suite
def test_a_backlog_of_twelve_hours_drains_in_the_computed_time() -> None:
    """Nobody is marked, only tokens that ended while TikTok was down are lost, and the planner was right within 5 %."""
    scenario = scaled("outage-12h", 40_000)

    course = simulate(scenario)
    summary = summarize(scenario, course)

    assert summary.sound
    assert summary.asked == 0
    assert summary.lost_to_outage == pytest.approx(10_000, rel=0.02)
    assert summary.drained_after == pytest.approx(summary.drain_computed, rel=0.05)
    assert all(sent <= permits for sent, permits in zip(course.refreshed, course.permits, strict=True))


def test_an_outage_is_met_with_the_brake_not_with_a_storm() -> None:
    """Once most attempts fail only probes are sent, and the first that succeeds releases the brake."""
    course = simulate(scaled("outage-12h", 40_000, seconds=3 * DAY))

    begin, end = 48 * 60, 60 * 60
    assert sum(course.failed[begin + 10 : end]) <= 2 * (end - begin)
    assert course.braked[end - 1] == 1
    assert course.braked[end] == 0


def test_an_outage_shorter_than_the_slack_costs_no_token() -> None:
    """Seven hours of outage against eight of slack."""
    scenario = scaled("outage-12h", 20_000, outages=((2 * DAY, 2 * DAY + 7 * HOUR),), seconds=4 * DAY)

    summary = summarize(scenario, simulate(scenario))

    assert summary.sound
    assert summary.lost_to_outage == 0


def test_lives_cut_to_a_twelfth_are_followed_at_once() -> None:
    """The answers have the new life, so twelve times the requests follow and no token ends."""
    scenario = scaled("lifetimes-cut", 10_000)

    course = simulate(scenario)

    assert summarize(scenario, course).sound
    before, after = course.refreshed[24 * 60 : 48 * 60], course.refreshed[-24 * 60 :]
    assert sum(after) == pytest.approx(12 * sum(before), rel=0.02)


def test_a_halved_quota_costs_pulls_before_tokens() -> None:
    """If refreshes and pulls no longer fit together, pulls wait."""
    scenario = scaled("quota-halved", 50_000)

    course = simulate(scenario)

    summary = summarize(scenario, course)
    assert summary.sound
    assert summary.pulled < 0.6 * summary.refreshed
    spent = [sum(step) for step in zip(course.refreshed, course.pulled, strict=True)]
    assert all(sent <= permits for sent, permits in zip(spent, course.permits, strict=True))


def test_a_quota_below_the_need_is_not_sound() -> None:
    """Tokens end that a larger quota would have saved, and the summary says so."""
    scenario = scaled("quota-halved", 10_000, quotas=(Change(2 * DAY, 0.2),), seconds=5 * DAY)

    summary = summarize(scenario, simulate(scenario))

    assert not summary.sound
    assert summary.lost > 0


@pytest.mark.slow_suite
def test_consents_that_end_together_stop_nobody_else() -> None:
    """Those who did not answer are to authorize again; the brake stays off and no other token ends."""
    scenario = scaled(
        "one-year-cliff", 20_000, consent=30 * DAY, notice=10 * DAY, answering=0.6, seconds=33 * DAY, campaign=DAY / 4
    )

    course = simulate(scenario)

    summary = summarize(scenario, course)
    assert summary.sound
    assert summary.asked == pytest.approx(8000, rel=0.02)
    assert sum(course.authorized) == pytest.approx(12_000, rel=0.02)
    level = course.refreshed[-12 * 60 :]
    assert sum(level) / len(level) == pytest.approx(12_000 / 960, rel=0.03)


def test_the_same_scenario_takes_the_same_course() -> None:
    """It draws no random numbers."""
    scenario = scaled("outage-12h", 500, seconds=3 * DAY)

    assert simulate(scenario) == simulate(scenario)
