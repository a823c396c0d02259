"""Whether a quota carries a fleet, and what an outage costs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.planning.capacity import DAY, Crowd, Load, fits, most_creators, plan, trades
from worker.planning.outage import after_outage
from worker.policy.quota import TIERS, usable_rate

HOUR = 3600.0
BASIC = usable_rate(per_second=10, per_minute=600)


def level(creators: int, *, life: float = DAY, renew_at: float = 2 / 3, pulls: float | None = 0.0) -> Load:
    """Return a fleet whose tokens all live equally long."""
    return Load((Crowd(creators, life),), renew_at, pulls)


def test_the_needed_rate_is_the_fleet_over_its_period() -> None:
    """A thousand creators of a day, renewed at two thirds, are a thousand refreshes in sixteen hours."""
    planned = plan(level(1000, pulls=None), usable=BASIC)

    assert planned.refreshes == pytest.approx(1000 / (16 * HOUR))
    assert planned.pulls == planned.refreshes
    assert planned.headroom == pytest.approx(BASIC / (2 * planned.refreshes))
    assert planned.fits
    assert planned.first_missed is None


def test_crowds_of_different_lives_add_up() -> None:
    """A fleet may be between two of TikTok's lifetimes: rates add, and the shortest life decides what is survived."""
    both = Load((Crowd(600, DAY), Crowd(400, 2 * HOUR)), 2 / 3, 3.0)
    planned = plan(both, usable=BASIC)

    assert planned.refreshes == pytest.approx(600 / (16 * HOUR) + 400 / (HOUR * 4 / 3))
    assert planned.pulls == pytest.approx(1000 * 3 / DAY)
    assert planned.survived == pytest.approx(2 * HOUR * (1 / 3 - 0.03))


def test_a_fleet_that_cannot_fit_is_reported_with_numbers() -> None:
    """The sentence names what is needed, what there is, and when the first token is missed."""
    planned = plan(level(1_000_000), usable=BASIC)

    assert not planned.fits
    assert planned.survived == 0
    assert planned.first_missed == pytest.approx((DAY * (1 / 3 - 0.03)) / (1 - BASIC / planned.refreshes))
    assert "1,041.7" in planned.sentence
    assert f"{60 * BASIC:,.1f}" in planned.sentence
    assert "first token expires after 16." in planned.sentence


def test_pulls_alone_that_do_not_fit_cost_no_token() -> None:
    """Refreshes go before pulls, so too many pulls are late and no token is missed."""
    planned = plan(level(1000, pulls=10_000), usable=BASIC)

    assert not planned.fits
    assert planned.first_missed is None
    assert "pulls do not" in planned.sentence


def test_a_thin_headroom_is_reported() -> None:
    """Between one and two the fleet fits and people are warned."""
    creators = most_creators(usable=BASIC, life=DAY, renew_at=2 / 3, pulls_per_day=0)

    assert "and should be 2" in plan(level(creators), usable=BASIC).sentence
    assert "and should be 2" not in plan(level(creators // 2), usable=BASIC).sentence


def test_an_empty_fleet_fits() -> None:
    """It needs no requests, and no figure divides by zero."""
    for nobody in (Load((), 2 / 3), level(0)):
        planned = plan(nobody, usable=BASIC)

        assert planned.fits
        assert planned.survived is None
        assert planned.sentence.endswith("it fits")
        assert after_outage(nobody, usable=BASIC, seconds=HOUR).drain == 0
        assert trades(nobody, usable=BASIC)


@given(
    creators=st.integers(1, 10**6),
    life=st.sampled_from([DAY, 2 * HOUR]),
    renew_at=st.floats(0.1, 0.85),
    pulls=st.none() | st.floats(0, 50),
)
def test_the_most_that_fits_is_where_the_plan_says_no(
    creators: int, life: float, renew_at: float, pulls: float | None
) -> None:
    """One creator more than the most does not fit, and the headroom is the same proportion."""
    most = most_creators(usable=BASIC, life=life, renew_at=renew_at, pulls_per_day=pulls)

    planned = plan(level(creators, life=life, renew_at=renew_at, pulls=pulls), usable=BASIC)

    assert planned.fits == (creators <= most)
    if pulls is not None:
        assert planned.threads == math.ceil(BASIC / 2)


def test_an_outage_within_the_slack_costs_no_token() -> None:
    """Its backlog drains at what the quota has to spare."""
    fleet = level(100_000)
    spare = BASIC - fleet.refreshes

    cost = after_outage(fleet, usable=BASIC, seconds=6 * HOUR)

    assert cost.backlog == pytest.approx(fleet.refreshes * 6 * HOUR)
    assert cost.drain == pytest.approx(cost.backlog / spare)
    assert cost.first_missed is None
    assert cost.missed == 0


def test_an_outage_beyond_the_slack_costs_the_tokens_that_end_in_it() -> None:
    """Twelve hours against eight of slack: four hours' worth of refreshes, the first of them a band's half earlier."""
    fleet = level(100_000)

    cost = after_outage(fleet, usable=BASIC, seconds=12 * HOUR)

    assert cost.missed == pytest.approx(fleet.refreshes * 4 * HOUR)
    assert cost.first_missed == pytest.approx(DAY * (1 / 3 - 0.03))


def test_an_outage_without_end_makes_every_grant_due_once() -> None:
    """A week's backlog is the fleet, and every token has ended."""
    cost = after_outage(level(100_000), usable=BASIC, seconds=7 * DAY)

    assert cost.backlog == 100_000
    assert cost.drain == pytest.approx(100_000 / BASIC)
    assert cost.missed == 100_000


def test_a_quota_below_the_need_never_drains() -> None:
    """What comes in is more than what goes out."""
    assert after_outage(level(1_000_000), usable=BASIC, seconds=HOUR).drain == math.inf


def test_earlier_renewal_buys_hours_for_requests() -> None:
    """Each fraction beyond another costs fewer requests and survives a shorter outage."""
    found = trades(level(1000), usable=BASIC)

    assert [trade.per_day for trade in found] == sorted((trade.per_day for trade in found), reverse=True)
    assert [trade.survived for trade in found] == sorted((trade.survived for trade in found), reverse=True)
    assert [trade.creators for trade in found] == sorted(trade.creators for trade in found)


def test_the_table_has_each_level_with_both_lives_and_both_ways_of_pulling() -> None:
    """Half fit with pulls, a twelfth with a twelfth of the life; the Accounts API has a limit of its own."""
    table = {(fit.tier, fit.life, fit.pulls): fit for fit in fits(renew_at=2 / 3)}

    assert len(table) == len(TIERS) * 4
    for tier in TIERS:
        day, short = table[tier.name, DAY, False], table[tier.name, 2 * HOUR, False]
        assert day.creators // 12 == short.creators
        assert day.creators // 2 == table[tier.name, DAY, True].creators
        assert day.per_minute == min(tier.per_minute, tier.accounts_per_minute)
        assert day.without_accounts_limit >= day.creators >= 2 * day.comfortable
    assert table["Basic", DAY, False].creators == math.floor(BASIC * 16 * HOUR)
