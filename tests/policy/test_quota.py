"""The pace that keeps to TikTok's limits, and what is refused as a limit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.policy.quota import (
    LEAST_RAMP_SHARE,
    TIERS,
    Tier,
    alone_interval,
    pace_of,
    quota_problem,
    ramp_share,
    usable_rate,
)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_no_minute_is_overfull_though_requests_overtake_each_other(tier: Tier) -> None:
    """At every level a minute and a second of jitter together hold no more permits than a minute may."""
    per_second, per_minute = tier.per_second, tier.per_minute
    pace = pace_of(per_second=per_second, per_minute=per_minute)
    burst = round(pace.slack / pace.interval)
    assert burst + math.ceil(61 / pace.interval) <= per_minute


@given(per_second=st.integers(1, 50), per_minute=st.integers(1, 3000))
def test_any_limits_are_kept_in_any_minute(per_second: int, per_minute: int) -> None:
    """The pace and what is caught up at once stay below the minute, whatever the figures."""
    pace = pace_of(per_second=per_second, per_minute=per_minute)
    assert round(pace.slack / pace.interval) + math.ceil(60 / pace.interval) <= per_minute


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_at_least_95_percent_are_usable(tier: Tier) -> None:
    """What is left over is room for jitter and no more."""
    per_second, per_minute = tier.per_second, tier.per_minute
    assert 0.95 * per_minute / 60 <= usable_rate(per_second=per_second, per_minute=per_minute) < per_minute / 60


def test_workers_without_redis_share_seventy_percent() -> None:
    """Eight of them, each with its own interval, stay below the quota together."""
    interval = alone_interval(per_second=10, per_minute=600, workers=8, second=1, minute=60)
    assert 8 / interval == pytest.approx(7)
    assert alone_interval(per_second=10, per_minute=600, workers=0, second=1, minute=60) == pytest.approx(1 / 7)


def test_permits_rise_evenly_after_a_pause() -> None:
    """From a tenth to the full pace."""
    shares = [ramp_share(since_pause=at, ramp=60) for at in (0, 6, 30, 60, 1000)]
    assert shares == [LEAST_RAMP_SHARE, 0.1, 0.5, 1.0, 1.0]
    assert ramp_share(since_pause=0, ramp=0) == 1


@pytest.mark.parametrize(
    ("per_second", "per_minute", "word"),
    [
        (0, 600, "permits nothing"),
        (-1, 600, "permits nothing"),
        (10, 0, "permits nothing"),
        (10, -5, "permits nothing"),
        (math.nan, 600, "permits nothing"),
        (math.inf, 600, "permits nothing"),
        (51, 3000, "highest level"),
        (50, 3001, "highest level"),
    ],
)
def test_figures_that_cannot_be_are_refused_with_the_reason(per_second: float, per_minute: float, word: str) -> None:
    """Zero, negative, absurd, or above TikTok's highest level."""
    problem = quota_problem(per_second=per_second, per_minute=per_minute)
    assert problem is not None
    assert word in problem


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_tiktoks_own_levels_are_taken(tier: Tier) -> None:
    """All four of them."""
    per_second, per_minute = tier.per_second, tier.per_minute
    assert quota_problem(per_second=per_second, per_minute=per_minute) is None


def test_a_sandbox_may_have_any_quota_but_none() -> None:
    """Its limits are ours to set; zero permits nothing there, too."""
    assert quota_problem(per_second=1000, per_minute=60_000, sandbox=True) is None
    assert quota_problem(per_second=0, per_minute=60_000, sandbox=True) is not None
