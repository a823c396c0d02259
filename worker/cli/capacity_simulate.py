"""`celery -A worker capacity simulate`: a fleet's days or years on a virtual clock, under the real policy code."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from worker.cli import output
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.planning.scenarios import Scenario
    from worker.planning.summary import Summary

NAMES: Final = ("mass-import", "outage-12h", "lifetimes-cut", "quota-halved", "one-year-cliff", "one-year-spread")


@click.command(cls=output.Command)
@click.argument("scenario", type=click.Choice(NAMES))
@click.option("--creators", type=click.IntRange(min=1), help="Fleet; by default that of the scenario.")
@click.option("--renew-at", type=output.Number(0.1, 0.85), help="Part of the life after which a token is renewed.")
@click.option("--qps", type=float, help="Requests that TikTok permits the app in a second.")
@click.option("--qpm", type=float, help="Requests that TikTok permits the app in a minute.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture of the load and of the waiting creators.")
@output.json_option
def simulate(
    scenario: str,
    *,
    creators: int | None,
    renew_at: float | None,
    qps: float | None,
    qpm: float | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Simulate a fleet, and check that every token that could be saved was; exit 1 if one was not.

    \b
    mass-import     a million creators are imported in one minute
    outage-12h      TikTok is down for twelve hours
    lifetimes-cut   tokens live two hours in place of twenty-four
    quota-halved    the app loses half of its quota
    one-year-cliff  the consents of a whole fleet end on one day, after a year
    one-year-spread the same, with invitations that are spread over three months

    Nothing is read or sent. By default the quota is that of TikTok's highest level. A year of a million
    creators takes some minutes.
    """  # noqa: D301 - \b is click's sign for lines that are kept as they are
    from worker.planning.scenarios import SCENARIOS  # noqa: PLC0415 - Celery loads this module on every start
    from worker.planning.simulation import simulate as run  # noqa: PLC0415 - as above
    from worker.planning.summary import summarize  # noqa: PLC0415 - as above

    if plot is not None:
        from worker.cli import pictures  # noqa: PLC0415 - as above

        pictures.check(plot)
    chosen = _changed(SCENARIOS[scenario], creators, renew_at, qps, qpm)
    began = time.monotonic()
    course = run(chosen)
    took = time.monotonic() - began
    summary = summarize(chosen, course)
    if as_json:
        output.print_json({"scenario": asdict(chosen), "sound": summary.sound, "seconds": took, **asdict(summary)})
    else:
        _show(chosen, summary, took)
    if plot is not None:
        pictures.draw_course(chosen, course, plot)
        output.note(f"drew {plot}")
    if not summary.sound:
        sys.exit(output.FINDING)


def _changed(
    scenario: Scenario, creators: int | None, renew_at: float | None, qps: float | None, qpm: float | None
) -> Scenario:
    """Return the scenario with the figures that were given on the command line.

    Raises:
        UsageError: limits that TikTok does not give.
    """
    from worker.policy.quota import quota_problem  # noqa: PLC0415 - Celery loads this module on every start

    changed = replace(
        scenario,
        creators=creators or scenario.creators,
        renew_at=renew_at or scenario.renew_at,
        per_second=scenario.per_second if qps is None else qps,
        per_minute=scenario.per_minute if qpm is None else qpm,
    )
    problem = quota_problem(per_second=changed.per_second, per_minute=changed.per_minute)
    if problem is not None:
        raise UsageError(problem)
    return changed


def _show(scenario: Scenario, summary: Summary, took: float) -> None:
    drained = "-" if summary.drained_after is None else output.span(summary.drained_after)
    computed = "-" if summary.drain_computed is None else output.span(summary.drain_computed)
    output.print_table(
        ("figure", "value"),
        [
            ("creators", f"{scenario.creators:,}"),
            ("simulated", f"{output.span(scenario.seconds)} in {took:.1f} s"),
            ("refreshes", f"{summary.refreshed:,}"),
            ("refreshes a minute, on average", f"{summary.mean:,.1f}"),
            ("in the busiest minute", f"{summary.busiest:,}, {summary.unevenness:.2f} times the average"),
            ("pulls", f"{summary.pulled:,}"),
            ("most creators waiting at once", f"{summary.most_waiting:,}"),
            ("backlog drained after", f"{drained}, computed: {computed}"),
            ("tokens that ended in the outage", f"{summary.lost_to_outage:,}"),
            ("tokens that ended otherwise", f"{summary.lost:,}"),
            ("creators without a token at the end", f"{summary.dark:,}"),
            ("creators to authorize again at the end", f"{summary.asked:,}"),
            ("app stopped without an outage", output.span(summary.stopped)),
        ],
        title=f"{scenario.name}: {scenario.story}",
    )
    click.echo(
        "every token that could be saved was" if summary.sound else "tokens ended, or the app stopped, without need"
    )
