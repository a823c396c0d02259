"""`celery -A worker alive`: was the fleet scanned and refreshed lately? For cron jobs and dead-man checks."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.services import Services

WITHIN_SECONDS: Final = 600.0
SEEN_SECONDS: Final = 120.0
"""A process that has reported itself within this time is there."""


@click.command(cls=output.Command)
@click.option(
    "--within",
    type=output.Number(min=1),
    default=WITHIN_SECONDS,
    show_default=True,
    help="Seconds within which beat must have reached a worker, and beyond which no grant may wait.",
)
def alive(within: float) -> None:
    """Say in one line whether the fleet was scanned and refreshed lately; exit 1 if it was not.

    It asks the database alone, so it sees what no process of Celery can report: that none runs.
    """
    with output.services() as services:
        lives, text = fleet_alive(services, within)
    output.say(text)
    sys.exit(0 if lives else output.FINDING)


def fleet_alive(services: Services, within_seconds: float) -> tuple[bool, str]:
    """Return whether due grants are found and refreshed, and that in words.

    Args:
        services: asked for the database.
        within_seconds: longest silence of beat, and longest time for which a grant may have been due.

    Raises:
        StoreUnavailableError: the database is away.
    """
    tick, late = services.store.tick_age(), services.store.due_seconds()
    if tick is None:
        return False, f"not alive: no message from beat has ever reached a worker; {_who(services)}"
    if math.isinf(tick):
        why = "the database's clock was set back"
        return False, f"not alive: the last message from beat lies ahead, so {why}, and none has come since"
    if tick > within_seconds:
        return False, f"not alive: no message from beat has reached a worker for {output.span(tick)}; {_who(services)}"
    if late > within_seconds:
        return False, f"not alive: a grant has been due for {output.span(late)} and was not refreshed"
    if (ended := services.store.passed_over_seconds()) > within_seconds:
        why = "its next refresh lies ahead, so the database's clock was once: `evertoken grants refresh CREATOR`"
        return False, f"not alive: an access token ended {output.span(ended)} ago and was not refreshed; {why}"
    paused = "; somebody has paused grants, and these are not refreshed" if services.store.pauses() else ""
    return (
        True,
        f"alive: scanned {tick:.0f} s ago, and no grant has been due for more than {max(late, 0):.0f} s{paused}",
    )


def _who(services: Services) -> str:
    """Return who has to be looked at if no message of beat arrives."""
    if services.store.workers_seen(SEEN_SECONDS):
        return "a worker runs, so look at beat and the broker"
    return "no worker runs"
