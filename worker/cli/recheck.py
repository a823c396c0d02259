"""`evertoken grants recheck`: try every suspect grant again, after a restore or a mass refusal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from worker.cli import output
from worker.cli.grant_actions import with_permit

if TYPE_CHECKING:
    from worker.services import Services
    from worker.store import GrantView

PAGE: Final = 100
LOST: Final = "TikTok refused every pair we hold, and a person decided to ask the creator"


@click.command(cls=output.Command)
@click.option("--limit", type=click.IntRange(1), help="Try at most this many grants.")
@click.option("--ask", is_flag=True, help="Ask the creators whose grants are refused once more.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@output.json_option
def recheck(*, limit: int | None, ask: bool, yes: bool, as_json: bool) -> None:
    """Refresh each suspect grant once, within the quota; exit 1 if one stays suspect.

    A grant is suspect when TikTok called it gone: its creator took the consent back, or the stored refresh token is an
    old one. Import newer pairs first, if anybody has them. With --ask, the creators of grants that are refused once
    more are asked to authorize again; this cannot be undone.
    """
    if ask and not yes:
        click.confirm("ask the creators whose grants are refused once more to authorize again?", abort=True, err=True)
    counts: Counter[str] = Counter()
    with output.services(changes_pairs=True) as services:
        for grant in _suspects(services, limit):
            counts[_try(services, grant, ask=ask)] += 1
            if counts["stopped"]:
                break
        services.brake.settle()
        held = services.store.brake().held_reason is not None
    if as_json:
        output.print_json({"grants": dict(counts), "held": held})
    else:
        output.print_table(("result", "grants"), sorted(counts.items()))
        output.note("the hold goes on: no creator is asked while many grants are suspect" if held else "no hold is on")
    if set(counts) - {"refreshed", "asked"}:
        sys.exit(output.FINDING)


def _suspects(services: Services, limit: int | None) -> Iterator[GrantView]:
    from worker.store import GrantStatus  # noqa: PLC0415 - Celery loads this module on every start

    seen, after = 0, 0
    while page := services.store.grants(status=GrantStatus.SUSPECT, after_id=after, limit=PAGE):
        for grant in page:
            if limit is not None and seen >= limit:
                return
            seen += 1
            yield grant
        after = page[-1].grant_id


def _try(services: Services, grant: GrantView, *, ask: bool) -> str:
    """Refresh one grant and return the result, in a word for the table."""
    from worker.refresh.results import Braked, Failed  # noqa: PLC0415 - Celery loads this module on every start
    from worker.store import GrantStatus  # noqa: PLC0415 - Celery loads this module on every start

    done = with_permit(lambda: services.refresher.refresh(grant.grant_id, force=True))
    if isinstance(done, Braked):
        return "stopped"
    status = services.store.grant_by_id(grant.grant_id).status
    if status is not GrantStatus.SUSPECT:
        return "refreshed" if status is GrantStatus.ACTIVE else "asked"
    if not isinstance(done, Failed):
        return f"not looked at ({done.kind})"
    return "asked" if ask and services.store.ask_suspect(grant.grant_id, LOST) else "still suspect"
