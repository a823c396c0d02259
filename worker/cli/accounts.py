"""`celery -A worker accounts`: look at a creator's account data, and take it out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output
from worker.cli.whole_file import STANDARD_OUTPUT
from worker.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounts.look import Day

BLOCKS: Final = "▁▂▃▄▅▆▇█"
CAPTION: Final = 40
FORMATS: Final = ("csv", "jsonl", "parquet")


@click.group(cls=output.Group)
def accounts() -> None:
    """Look at creators' account data, export it, and draw it."""


@accounts.command(cls=output.CreatorCommand)
@click.argument("creator")
@output.json_option
def show(creator: str, *, as_json: bool) -> None:
    """Show one creator's account: counters, the last 60 days and the most viewed videos."""
    from worker.accounts.look import calendar, look  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        services.store.grant(creator)
        found = look(services.store, creator)
    if as_json:
        output.print_json(found)
        return
    if found["profile"] is None:
        raise NotFoundError(f"nothing was pulled of {creator} yet: `celery -A worker grants pull {creator}` starts it")
    profile = found["profile"]
    shown = ("username", "display_name", "followers_count", "following_count", "total_likes", "videos_count", "read_at")
    output.print_table(("field", "value"), [(name, profile[name]) for name in shown])
    _show_lines(calendar(found))
    if found["videos"]:
        output.print_table(
            ("video", "posted", "views", "likes", "comments", "shares", "caption"),
            [_video_row(video) for video in found["videos"]],
            title="most viewed videos",
        )
    waiting = [each for each in found["resources"] if each["problem"]]
    if waiting:
        rows = [(each["resource"], each["next_at"], each["failures"], each["problem"]) for each in waiting]
        output.print_table(("resource", "comes again", "failures", "problem"), rows)
    if found["quarantine"]:
        columns = ("call", "path", "reason", "times", "last_at")
        rows = [tuple(each[column] for column in columns) for each in found["quarantine"]]
        output.print_table(columns, rows, title="not taken over")


@accounts.command(cls=output.Command)
@click.option(
    "--format", "kind", type=click.Choice(FORMATS), default="csv", show_default=True, help="How it is written."
)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; repeatable. All by default.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Only rows of this UTC day and later, and those of unknown time.",
)
@click.option("--creator", metavar="CREATOR", help="Only this creator.")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="A folder, which gets a file for each table; a file for one table; - for standard output.",
)
def export(*, kind: str, tables: tuple[str, ...], since: datetime | None, creator: str | None, to: Path | None) -> None:
    """Write account data into files, or one table to standard output; of any length, in little memory.

    A file appears under its name when it is complete: an export that fails leaves none.
    """
    from worker.cli import account_files  # noqa: PLC0415 - Celery loads this module on every start
    from worker.store import account_tables  # noqa: PLC0415 - as above

    known = account_tables()
    if unknown := [name for name in tables if name not in known]:
        raise UsageError(f"there is no table {unknown[0]}; choose from {', '.join(known)}")
    wanted = tables or known
    to = None if to == STANDARD_OUTPUT else to
    if to is None and len(wanted) > 1:
        raise UsageError("several tables need a folder: --to FOLDER; or name one with --table")
    if to is None and kind == "parquet":
        raise UsageError("a parquet file is not written to standard output: --to FILE")
    account_files.check(kind)
    with output.services() as services:
        if creator is not None:
            services.store.grant(creator)
        for name in wanted:
            source = account_files.Source(services.store, name, creator_id=creator, since=since and since.date())
            if to is None:
                account_files.write_out(source, kind)
                continue
            place = to if len(tables) == 1 and to.suffix else to / f"{name}.{kind}"
            rows = account_files.write_file(source, kind, place)
            output.note(f"{place}: {output.counted(rows, 'row')}")


@accounts.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="A file that ends in .png, .svg or .pdf.")
def plot(creator: str, to: Path) -> None:
    """Draw one creator's followers, views and videos into a picture."""
    from worker.accounts.look import look  # noqa: PLC0415 - Celery loads this module on every start
    from worker.cli import pictures  # noqa: PLC0415 - as above

    pictures.check(to)
    with output.services() as services:
        services.store.grant(creator)
        found = look(services.store, creator, days=pictures.ACCOUNT_DAYS, top=500)
    if not found["days"] and not found["counters"]:
        raise NotFoundError(f"nothing was pulled of {creator} yet: there is nothing to draw")
    pictures.draw_account(creator, found, to)
    output.note(f"drew {to}")


def _show_lines(days: Sequence[Day]) -> None:
    lines = [("followers", [day.followers for day in days])]
    lines += [
        (name.replace("_", " "), [day.figure(name) for day in days])
        for name in ("video_views", "profile_views", "likes", "comments", "shares")
    ]
    lines.append(("followers, net of the day", [day.net_followers for day in days]))
    rows = [(name, sparkline(values), *_ends(values)) for name, values in lines if any(v is not None for v in values)]
    if rows:
        provisional = sum(day.is_provisional for day in days)
        title = f"since {days[0].day}; {output.counted(provisional, 'day')} provisional"
        output.print_table(("figure", "over time", "least", "most", "newest"), rows, title=title)


def _ends(values: list[int | None]) -> tuple[str, str, str]:
    known = [value for value in values if value is not None]
    return f"{min(known):,}", f"{max(known):,}", f"{known[-1]:,}"


def sparkline(values: list[int | None]) -> str:
    """Return values as a line of blocks; a blank for what is missing, the lowest block for the least value."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    least, spread = min(known), max(known) - min(known)
    return "".join(
        " " if value is None else BLOCKS[(value - least) * (len(BLOCKS) - 1) // spread if spread else 0]
        for value in values
    )


def _video_row(video: dict[str, Any]) -> tuple[object, ...]:
    posted = video["created_at"]
    caption = (video["caption"] or "")[:CAPTION]
    gone = " (vanished)" if video["vanished_at"] else ""
    day = posted.astimezone(UTC).date().isoformat() if posted else None
    figures = (video[name] for name in ("video_views", "likes", "comments", "shares"))
    return (video["item_id"], day, *figures, f"{caption}{gone}")
