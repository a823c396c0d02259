"""What `capacity` reports of a fleet: the plan, outages, the trade-off, TikTok's levels and the load to come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from worker.cli import output
from worker.planning import capacity, outage
from worker.planning.forecast import Ahead, Due, forecast
from worker.policy import quota
from worker.store import AccountCosts

HOUR: Final = 3600
HOURS_AHEAD: Final = 24
OUTAGES: Final = (1, 6, 12, 24)
"""Lengths of outage that are reported, in hours."""
CROWDS_SHOWN: Final = 4
"""Lives that are listed one by one; the rest is one figure."""
BAR: Final = 40
"""Width of the longest bar."""


@dataclass(frozen=True)
class Report:
    """Everything that is reported of one fleet.

    Attributes:
        load: the requests that the fleet needs.
        per_second: TikTok's limit a second.
        per_minute: TikTok's limit a minute.
        outages: what an outage costs, by its length in hours.
        ahead: refreshes of the next day, slice by slice; empty for a planned fleet.
        slice_seconds: length of a slice.
    """

    load: capacity.Load
    per_second: float
    per_minute: float
    plan: capacity.Plan
    outages: dict[int, outage.Outage]
    trades: list[capacity.Trade]
    fits: list[capacity.Fit]
    ahead: list[Ahead]
    slice_seconds: int


def build(
    *,
    crowds: tuple[capacity.Crowd, ...],
    dues: Sequence[Due] | None,
    renew_at: float,
    pulls_per_day: float | None,
    limits: tuple[float, float],
    latency: float,
    slice_seconds: int,
) -> Report:
    """Compute the report; `limits` are TikTok's a second and a minute, `dues` is None for a planned fleet."""
    load = capacity.Load(crowds, renew_at, pulls_per_day)
    per_second, per_minute = limits
    usable = quota.usable_rate(per_second=per_second, per_minute=per_minute)
    slices = HOURS_AHEAD * HOUR // slice_seconds
    return Report(
        load=load,
        per_second=per_second,
        per_minute=per_minute,
        plan=capacity.plan(load, usable=usable, latency=latency),
        outages={hours: outage.after_outage(load, usable=usable, seconds=hours * HOUR) for hours in OUTAGES},
        trades=capacity.trades(load, usable=usable),
        fits=capacity.fits(renew_at=renew_at),
        ahead=[]
        if dues is None
        else forecast(dues, renew_at=renew_at, slice_seconds=slice_seconds, slices=slices, usable=usable),
        slice_seconds=slice_seconds,
    )


def for_programs(report: Report) -> dict[str, Any]:
    """Return the report in types of JSON; an infinite number becomes null."""
    plan = report.plan
    data: dict[str, Any] = _finite(
        {
            "fits": plan.fits,
            "sentence": plan.sentence,
            "creators": report.load.creators,
            "crowds": [asdict(crowd) for crowd in report.load.crowds],
            "renew_at": report.load.renew_at,
            "per_second": report.per_second,
            "per_minute": report.per_minute,
            "plan": asdict(plan),
            "outages": [{"seconds": hours * HOUR, **asdict(cost)} for hours, cost in report.outages.items()],
            "trades": [asdict(trade) for trade in report.trades],
            "levels": [asdict(fit) for fit in report.fits],
            "ahead": [asdict(part) for part in _hours(report)],
        }
    )
    return data


def show(report: Report) -> None:
    """Print the report for people."""
    plan, load = report.plan, report.load
    output.print_table(
        ("figure", "value"),
        [
            ("creators, by the life of their tokens", _lives(load.crowds)),
            ("renewed at", f"{load.renew_at:.0%} of the life"),
            ("refreshes", f"{60 * plan.refreshes:,.1f} a minute"),
            ("pulls", f"{60 * plan.pulls:,.1f} a minute"),
            ("quota", f"{report.per_second:,g} a second and {report.per_minute:,g} a minute"),
            ("usable part of it", f"{60 * plan.usable:,.1f} a minute"),
            ("headroom", _times(plan.headroom)),
            ("headroom of refreshes alone", _times(plan.refresh_headroom)),
            ("outage survived", output.span(plan.survived)),
            ("concurrent calls at full quota", plan.threads),
        ],
        title="Capacity",
    )
    output.print_table(
        ("outage", "due when it ends", "drained after", "first token ends", "tokens that end"),
        [
            (f"{hours} h", f"{cost.backlog:,.0f}", _span(cost.drain), _span(cost.first_missed), f"{cost.missed:,.0f}")
            for hours, cost in report.outages.items()
        ],
        title="Outages",
    )
    output.print_table(
        ("renewed at", "refreshes a day", "outage survived", "creators that fit"),
        [
            (f"{trade.renew_at:.0%}", f"{trade.per_day:.2f}", output.span(trade.survived), f"{trade.creators:,}")
            for trade in report.trades
        ],
        title="What the renewal fraction trades",
    )
    show_fits(report.fits)
    if report.ahead:
        _show_ahead(report)
    click.echo(plan.sentence)


def show_costs(costs: Sequence[AccountCosts]) -> None:
    """Print what each resource of the account data took on the last full day; nothing if there was none."""
    last = max((cost.day for cost in costs), default=None)
    rows = [
        (cost.resource, f"{cost.creators:,}", f"{cost.requests:,}", f"{cost.requests / cost.creators:,.2f}")
        for cost in costs
        if cost.day == last
    ]
    if rows:
        output.print_table(
            ("account data", "creators", "requests", "for one creator"),
            rows,
            title=f"What pulls took on {last}; the first resources go before the others",
        )


def show_fits(fits: Sequence[capacity.Fit]) -> None:
    """Print how many creators fit into each of TikTok's levels."""
    output.print_table(
        (
            "level",
            "requests a minute",
            "token lives",
            "pulls",
            "creators",
            "with a headroom of 2",
            "by the app's limit alone",
        ),
        [
            (
                fit.tier,
                f"{fit.per_minute:,}",
                output.span(fit.life),
                "one per refresh" if fit.pulls else "none",
                f"{fit.creators:,}",
                f"{fit.comfortable:,}",
                f"{fit.without_accounts_limit:,}",
            )
            for fit in fits
        ],
        title="How many creators fit",
    )


def _show_ahead(report: Report) -> None:
    hours = list(_hours(report))
    most = max(*(hour.sent for hour in hours), 1)
    output.print_table(
        ("hour", "due", "refreshed", "left waiting", ""),
        [
            (
                f"+{n}",
                f"{hour.due:,.0f}",
                f"{hour.sent:,.0f}",
                f"{hour.waiting:,.0f}",
                "#" * round(BAR * hour.sent / most),
            )
            for n, hour in enumerate(hours)
        ],
        title="Refreshes of the next 24 hours",
    )


def _hours(report: Report) -> Iterator[Ahead]:
    each = HOUR // report.slice_seconds
    for start in range(0, len(report.ahead), each):
        parts = report.ahead[start : start + each]
        yield Ahead(sum(part.due for part in parts), sum(part.sent for part in parts), parts[-1].waiting)


def _lives(crowds: Sequence[capacity.Crowd]) -> str:
    """Return how many creators have tokens of each life: the largest crowds one by one, the others in one figure."""
    largest = sorted(crowds, key=lambda crowd: -crowd.creators)[:CROWDS_SHOWN]
    others = [crowd for crowd in crowds if crowd not in largest]
    shown = [f"{crowd.creators:,} of {output.span(crowd.life)}" for crowd in crowds if crowd in largest]
    if others:
        lives = [crowd.life for crowd in others]
        between = f"{output.span(min(lives))} to {output.span(max(lives))}"
        shown.append(f"{sum(crowd.creators for crowd in others):,} others of {between}")
    return ", ".join(shown) or "none"


def _times(factor: float) -> str:
    return f"{factor:.2f}" if math.isfinite(factor) else "any"


def _span(seconds: float | None) -> str:
    return "never" if seconds is not None and math.isinf(seconds) else output.span(seconds)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
