"""`celery -A worker capacity`: does the quota carry the fleet, with what headroom, and how long a backlog takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output
from worker.cli.capacity_simulate import simulate
from worker.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from worker.planning.capacity import Crowd
    from worker.planning.forecast import Due
    from worker.settings import Settings
    from worker.store import AccountCosts

DAY: Final = 86_400.0
SLICE_SECONDS: Final = 300
"""Length of the slices in which the load of the next day is counted."""
USUAL_QUOTA: Final = (10.0, 600.0)
USUAL_RENEW_AT: Final = 2 / 3


class _Both(output.Command, output.Group):
    """A command that has commands below it; both are shown in its help."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the commands below them."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_Both, invoke_without_command=True)
@click.option("--creators", type=click.IntRange(min=0), help="Fleet to plan for; by default the one in the database.")
@click.option("--lifetime", type=output.Number(min=60), help="Seconds that an access token lives; with --creators.")
@click.option("--pulls-per-day", type=output.Number(min=0), help="Pulls of one creator; by default one per refresh.")
@click.option("--renew-at", type=output.Number(0.1, 0.85), help="Part of the life after which a token is renewed.")
@click.option("--qps", type=float, help="Requests that TikTok permits the app in a second.")
@click.option("--qpm", type=float, help="Requests that TikTok permits the app in a minute.")
@click.option("--latency", type=output.Number(min=0.001), default=0.5, show_default=True, help="Seconds of one call.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture: the load of the next day, or the trade-off.")
@output.json_option
@click.pass_context
def capacity(ctx: click.Context, /, *, as_json: bool, plot: Path | None, **asked: Any) -> None:
    """Compute whether the quota carries the fleet; exit 1 if it does not.

    Without --creators the fleet is the one in the database, and --plot draws its load over the next day. With
    --creators the fleet is made of the figures that you give, and --plot draws what the renewal fraction trades:
    requests spent against hours of outage survived. Figures that you do not give come from the settings.
    """
    if ctx.invoked_subcommand is not None:
        return
    from worker.cli import capacity_report  # noqa: PLC0415 - Celery loads this module on every start

    if plot is not None:
        from worker.cli import pictures  # noqa: PLC0415 - as above

        pictures.check(plot)
    settings = _settings(needed=asked["creators"] is None)
    crowds, dues, costs = _fleet(asked["creators"], asked["lifetime"])
    per_second, per_minute = _quota(settings, asked["qps"], asked["qpm"])
    renew_at = asked["renew_at"] or (settings.renew_at if settings else USUAL_RENEW_AT)
    report = capacity_report.build(
        crowds=crowds,
        dues=dues,
        renew_at=renew_at,
        pulls_per_day=_pulls(asked["pulls_per_day"], crowds, renew_at, costs),
        limits=(per_second, per_minute),
        latency=asked["latency"],
        slice_seconds=SLICE_SECONDS,
    )
    if as_json:
        rows = [asdict(cost) | {"day": cost.day.isoformat()} for cost in costs]
        output.print_json(capacity_report.for_programs(report) | {"account_data": rows})
    else:
        capacity_report.show(report)
        capacity_report.show_costs(costs)
    if plot is not None:
        pictures.draw_report(report, plot)
        output.note(f"drew {plot}")
    if not report.plan.fits:
        sys.exit(output.FINDING)


capacity.add_command(simulate)


def _settings(*, needed: bool) -> Settings | None:
    """Read the settings; a planned fleet does not need them."""
    try:
        return output.settings()
    except ConfigurationError:
        if needed:
            raise
        return None


def _fleet(
    creators: int | None, lifetime: float | None
) -> tuple[tuple[Crowd, ...], list[Due] | None, list[AccountCosts]]:
    """Return the fleet that was asked about, or the one in the database with when it is due and what its pulls took."""
    from worker.planning.capacity import Crowd  # noqa: PLC0415 - Celery loads this module on every start

    if creators is not None:
        return (Crowd(creators, lifetime or DAY),), None, []
    if lifetime is not None:
        raise UsageError("--lifetime goes with --creators; the lives of a stored fleet are those that TikTok gave")
    from worker.planning.headroom import COST_DAYS, crowds_of, stored_dues  # noqa: PLC0415 - as above

    with output.services() as services:
        dues = stored_dues(services.store, slice_seconds=SLICE_SECONDS)
        costs = services.store.account_costs(days=COST_DAYS)
    return crowds_of(dues), dues, costs


def _pulls(
    asked: float | None, crowds: tuple[Crowd, ...], renew_at: float, costs: Sequence[AccountCosts]
) -> float | None:
    """Return the pulls of one creator in a day: those that were asked for, or what the last days took if it is more."""
    from worker.planning.capacity import Load  # noqa: PLC0415 - as above
    from worker.planning.headroom import requests_per_day  # noqa: PLC0415 - as above

    load = Load(crowds, renew_at)
    if asked is not None or not costs or not load.creators:
        return asked
    return max(requests_per_day(costs), load.refreshes * DAY / load.creators)


def _quota(settings: Settings | None, qps: float | None, qpm: float | None) -> tuple[float, float]:
    """Return the limits a second and a minute.

    Raises:
        UsageError: limits that TikTok does not give.
    """
    from worker.policy.quota import quota_problem  # noqa: PLC0415 - Celery loads this module on every start

    usual = (float(settings.quota_per_second), float(settings.quota_per_minute)) if settings else USUAL_QUOTA
    per_second = usual[0] if qps is None else qps
    per_minute = usual[1] if qpm is None else qpm
    sandbox = settings is not None and settings.sandboxed
    problem = quota_problem(per_second=per_second, per_minute=per_minute, sandbox=sandbox)
    if problem is not None:
        raise UsageError(problem)
    return per_second, per_minute
