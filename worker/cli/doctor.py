"""`celery -A worker doctor`: every dependency and promise checked, one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output
from worker.errors import ConfigurationError

if TYPE_CHECKING:
    from worker.cli.checks import Finding

PAGES: Final = {
    "database": "database-away",
    "redis": "redis-away",
    "rabbitmq": "rabbitmq-away",
    "workers": "no-workers",
    "queues": "no-workers",
    "beat": "beat-silent",
}
"""The page of the runbook for each check whose failures name none."""
MARKS: Final = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command(cls=output.Command)
@click.option("--offline", is_flag=True, help="Send nothing to TikTok.")
@output.json_option
@click.pass_context
def doctor(ctx: click.Context, *, offline: bool, as_json: bool) -> None:
    """Check every dependency and promise, one line each; exit 1 if one fails, 2 if a setting is wrong.

    Nothing is changed, and nothing secret is sent anywhere.
    """
    found: list[Finding] = []
    for finding in _findings(ctx.obj.app, offline=offline):
        found.append(finding)
        if not as_json:
            mark = finding.state if ctx.obj.no_color else click.style(finding.state, fg=MARKS[finding.state])
            click.echo(
                f"{mark:<{4 + len(mark) - len(finding.state)}}  {finding.check:<9} {output.printable(finding.detail)}"
            )
    healthy = all(finding.state != "fail" for finding in found)
    if as_json:
        output.print_json({"healthy": healthy, "checks": [_as_data(finding) for finding in found]})
    if not healthy:
        sys.exit(output.WRONG_USE if any(finding.bad_setting for finding in found) else output.FINDING)


def _findings(app: Any, *, offline: bool) -> Iterator[Finding]:
    """Run the checks one after the other; without settings nothing else can be checked."""
    from worker.cli.checks import (  # noqa: PLC0415 - Celery loads this on every start
        NEED_DATABASE,
        Finding,
        guarded,
        inner_checks,
        version,
    )
    from worker.cli.checks_outside import outer_checks  # noqa: PLC0415 - as above
    from worker.cli.checks_places import place_checks  # noqa: PLC0415 - as above

    yield version()
    try:
        with output.services() as services:
            yield Finding("settings", "ok", "complete, without contradictions")
            skipped: dict[str, str] = {}
            outside = outer_checks(app, services, offline=offline)
            for name, look in (*inner_checks(services), *place_checks(services), *outside):
                if name in skipped:
                    yield Finding(name, "skip", skipped[name])
                    continue
                found = guarded(name, look)
                if name == "database" and found.state == "fail":
                    skipped |= dict.fromkeys(NEED_DATABASE, "needs the database")
                skipped |= dict.fromkeys(found.hides, f"can say nothing before {name} is repaired")
                if found.state == "fail" and name in PAGES and "docs/" not in found.detail:
                    found = replace(found, detail=f"{found.detail}; docs/runbook/{PAGES[name]}.md")
                yield found
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), bad_setting=True)


def _as_data(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "state": finding.state, "detail": finding.detail}
