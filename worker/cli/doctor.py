"""`celery -A worker doctor`: every dependency and promise checked, one line each."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output
from worker.errors import ConfigurationError, EvertokenError

if TYPE_CHECKING:
    from worker.cli.checks import Finding

PAGES: Final = {
    "database": "database-away",
    "redis": "redis-away",
    "rabbitmq": "rabbitmq-away",
    "workers": "no-workers",
    "queues": "no-workers",
    "beat": "beat-silent",
    "run": "worker-hangs",
}
"""The page of the runbook for each check whose failures name none."""
DEADLINE_SECONDS: Final = 8.0
"""For all looks together: a timer or probe that waits ten seconds for the report gets it, start and end included."""
OF_BROKER: Final = frozenset({"sentinels", "redis", "rabbitmq", "quota", "workers", "queues"})
"""What waits for Redis or RabbitMQ; each says something about those before it."""
MARKS: Final = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}


@click.command(cls=output.Command)
@click.option("--offline", is_flag=True, help="Send nothing to TikTok.")
@output.json_option
@click.pass_context
def doctor(ctx: click.Context, *, offline: bool, as_json: bool) -> None:
    """Check every dependency and promise, one line each; exit 1 if one fails, 2 if a setting is wrong.

    Nothing is changed, and nothing secret is sent anywhere. It ends within about ten seconds, whatever is away.
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
    """Run the checks; without settings nothing else can be checked."""
    from worker.cli.checks import (  # noqa: PLC0415 - Celery loads this on every start
        Finding,
        guarded,
        inner_checks,
        version,
    )
    from worker.cli.checks_outside import outer_checks  # noqa: PLC0415 - as above
    from worker.cli.checks_places import place_checks  # noqa: PLC0415 - as above

    yield version()
    try:
        with output.services(fit=False) as services:
            yield Finding("settings", "ok", "complete, without contradictions")
            ends_at = time.monotonic() + DEADLINE_SECONDS
            looks = {
                **dict(inner_checks(services)),
                **dict(place_checks(services)),
                **dict(outer_checks(app, services, offline=offline)),
            }
            with suppress(EvertokenError):  # whoever needs it says why; two threads must not make it twice
                _ = services.journal, services.limiter, services.egress
            rounds = Rounds(looks, guarded)
            for name in looks:
                found = rounds.finding(name, ends_at) or Finding(
                    name, "fail", f"not known: no answer within {DEADLINE_SECONDS:g} s"
                )
                if found.state == "fail" and name in PAGES and "docs/" not in found.detail:
                    found = replace(found, detail=f"{found.detail}; docs/runbook/{PAGES[name]}.md")
                yield found
    except ConfigurationError as error:
        yield Finding("settings", "fail", str(error), bad_setting=True)


class Rounds:
    """Looks under way: those that wait for the same thing one after the other, and beside the others."""

    def __init__(
        self, looks: Mapping[str, Callable[[], Finding]], guarded: Callable[[str, Callable[[], Finding]], Finding]
    ) -> None:
        """Begin.

        Args:
            looks: the checks by name.
            guarded: runs one, and makes a finding of an error.
        """
        from worker.cli.checks import NEED_DATABASE  # noqa: PLC0415 - Celery loads this on every start

        self._looks, self._guarded = looks, guarded
        self._found: dict[str, Finding] = {}
        self._hidden: dict[str, str] = {}
        self._news = threading.Condition()
        of_database = [name for name in looks if name == "database" or name in NEED_DATABASE]
        of_broker = [name for name in looks if name in OF_BROKER]
        alone = [[name] for name in looks if name not in of_database and name not in of_broker]
        for names in (of_database, of_broker, *alone):
            threading.Thread(target=self._run, args=(names,), daemon=True).start()

    def finding(self, name: str, ends_at: float) -> Finding | None:
        """Wait for a finding until an instant of the monotonic clock; None if there is none by then."""
        with self._news:
            self._news.wait_for(lambda: name in self._found, max(0.0, ends_at - time.monotonic()))
            found, why = self._found.get(name), self._hidden.get(name)
        return found if why is None else _skipped(name, why)

    def _run(self, names: list[str]) -> None:
        from worker.cli.checks import NEED_DATABASE  # noqa: PLC0415 - as above

        for name in names:
            why = self._hidden.get(name)
            found = self._guarded(name, self._looks[name]) if why is None else _skipped(name, why)
            reason = (
                "needs the database" if found.hides == NEED_DATABASE else f"can say nothing before {name} is repaired"
            )
            with self._news:
                for other in found.hides - self._found.keys() - {name}:
                    self._hidden.setdefault(other, reason)
                self._found[name] = found
                self._news.notify_all()


def _skipped(name: str, why: str) -> Finding:
    from worker.cli.checks import Finding  # noqa: PLC0415 - as above

    return Finding(name, "skip", why)


def _as_data(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "state": finding.state, "detail": finding.detail}
