"""`celery -A worker grants shadow`: what Evertoken would send for another job's tokens, beside what that job does."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from worker.cli import output
from worker.cli.grants_import import read_map
from worker.errors import NotReadyError, UsageError

if TYPE_CHECKING:
    from worker.planning.shadow import Difference, SeenPair, Sending

SHOWN: Final = 20
"""Creators that a table names; `--json` has all."""
KEEP_TIME: Final = (
    "copy it with its modification time (`cp --preserve`), and look at the clock of the host that wrote it"
)
UNDATED, UNREAD = "without a time of issue", "not read"


@click.command(cls=output.Command)
@click.argument("file", type=click.File("rb"))
@click.option("--later", type=click.File("rb"), help="A second file of the same job, written later: compare with it.")
@click.option("--map", "mapping", metavar="FIELD=COLUMN,...", help="The files' own names, as for `grants import`.")
@output.json_option
def shadow(file: BinaryIO, *, later: BinaryIO | None, mapping: str | None, as_json: bool) -> None:
    """Print what would be sent when and why for a file as `grants import` reads it; nothing is sent or stored.

    The plan begins when the file was written, by its modification time, and takes each refresh to succeed. Lines
    without an issue time are left out. With --later it says what the other job did meanwhile; write both files less
    than one life of an access token apart, or refreshes in between are not seen.
    """
    from worker.planning.shadow import compare, plan  # noqa: PLC0415 - Celery loads this module on every start

    settings = output.settings()
    at, pairs, left_out = _read(file, mapping)
    rate = min(settings.quota_per_second, settings.quota_per_minute / 60)
    sendings = plan(pairs.values(), at=at, renew_at=settings.renew_at, per_second=rate)
    found: list[Difference] = []
    until = None
    if later is not None:
        until, after, more = _read(later, mapping)
        _refuse_swapped(at, until)
        left_out += more
        found = compare(sendings, after, until=until)
    if as_json:
        plain = {
            "written_at": at,
            "later_at": until,
            "left_out": left_out.total(),
            "undated": left_out[UNDATED],
            "per_second": rate,
        }
        output.print_json(plain | {"plan": [_shown(each) for each in sendings], "compared": [_shown(x) for x in found]})
        return
    late = sum(1 for each in sendings if each.without_token)
    output.say(
        f"nothing was sent: {output.counted(len(sendings), 'creator')} as of {output.moment(at)} UTC, "
        f"{output.counted(left_out.total(), 'line')} left out, {left_out[UNDATED]} of them without a time of issue; "
        f"at {rate:g} a second, "
        f"{late} would be refreshed after their token ended"
    )
    if left_out.total() > left_out[UNDATED]:
        output.note("`evertoken grants import --dry-run` names what is wrong with the other lines")
    output.print_table(
        ("creator", "due (UTC)", "would be sent", "token ends", "why"),
        [(each.creator_id, each.due_at, each.sent_at, each.ends_at, each.reason) for each in sendings[:SHOWN]],
    )
    if until is not None:
        _print_compared(found, until)


def _refuse_swapped(at: datetime, until: datetime) -> None:
    if until <= at:
        raise NotReadyError(
            f"the file of --later was written at {output.moment(until)} UTC, and the first one at "
            f"{output.moment(at)} UTC: swap them, or copy them with their modification times (`cp --preserve`)"
        )


def _print_compared(found: list[Difference], until: datetime) -> None:
    theirs = [each for each in found if each.theirs_at is not None]
    ours = [each for each in found if each.ours_at <= until]
    output.say(
        f"until {output.moment(until)} UTC, of {output.counted(len(found), 'creator')} in both files: the other job "
        f"refreshed {len(theirs)}, Evertoken would have refreshed {len(ours)}"
    )
    for name, gaps in (
        ("there", [each.theirs_without for each in found if each.theirs_without]),
        ("here", [each.ours_without for each in found if each.ours_without]),
    ):
        total = sum(gaps, timedelta())
        output.say(
            f"without a valid token {name}: {output.counted(len(gaps), 'creator')}, {output.span(total)} at most"
        )
    worst = sorted(found, key=lambda each: (each.ours_without - each.theirs_without, each.creator_id))
    output.print_table(
        ("creator", "refreshed there (UTC)", "would be refreshed here", "without token there", "and here"),
        [
            (x.creator_id, x.theirs_at, x.ours_at, output.span(x.theirs_without), output.span(x.ours_without))
            for x in worst[:SHOWN]
        ],
    )


def _read(file: BinaryIO, mapping: str | None) -> tuple[datetime, dict[str, SeenPair], Counter[str]]:
    """Return when a file was written, the newest pair of each creator, and how many lines were left out, by why.

    Raises:
        UsageError: it is no regular file, or cannot be read.
        NotReadyError: its modification time cannot be when it was written, so no plan from it would be right.
    """
    from worker.consent.import_fields import CLOCK_TOLERANCE, ISSUED_AHEAD, FieldNames  # noqa: PLC0415 - Celery loads this module on every start
    from worker.consent.import_lines import Source  # noqa: PLC0415 - as above
    from worker.planning.shadow import SeenPair  # noqa: PLC0415 - as above

    try:
        found = os.fstat(file.fileno())
    except (OSError, ValueError):
        found = None
    if found is None or not stat.S_ISREG(found.st_mode):
        raise UsageError("give the file by its name, and no pipe: its modification time says when it was written")
    written = datetime.fromtimestamp(found.st_mtime, UTC)
    claim = f"{file.name} says that it was written at {output.moment(written)} UTC"
    if written > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise NotReadyError(f"{claim}, which lies in the future: {KEEP_TIME}")
    pairs: dict[str, SeenPair] = {}
    left_out, ahead = Counter[str](), 0
    for entry in Source(file, names=FieldNames(read_map(mapping))).entries(written):
        pair = entry.pair
        if pair is None or not pair.dated:
            left_out[UNREAD if pair is None else UNDATED] += not entry.blank
            ahead += (entry.fault or "").startswith(ISSUED_AHEAD)
            continue
        seen = pairs.get(pair.creator_id)
        if seen is None or seen.issued_at < pair.issued_at:
            pairs[pair.creator_id] = SeenPair(pair.creator_id, pair.issued_at, pair.access_expires_at)
    if ahead:
        raise NotReadyError(f"{claim}, and {output.counted(ahead, 'pair')} in it was issued after that: {KEEP_TIME}")
    return written, pairs, left_out


def _shown(value: Sending | Difference) -> dict[str, object]:
    return {name: each.total_seconds() if isinstance(each, timedelta) else each for name, each in asdict(value).items()}
