"""`celery -A worker grants import`: existing tokens become grants, and a report says what was done with each line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

import click

from worker.cli import output
from worker.errors import UsageError
from worker.pasted import read_file

if TYPE_CHECKING:
    from worker.consent.importer import ImportReport
    from worker.vault.exports import OpenedExport

SHOWN_LINES: Final = 8
"""Line numbers that the table names for one reason; `--json` has more."""


@click.command("import", cls=output.Command)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "form",
    type=click.Choice(("jsonl", "json", "csv")),
    help="Format of the file; by default its beginning decides.",
)
@click.option(
    "--map",
    "mapping",
    metavar="FIELD=COLUMN,...",
    help="The file's own names: creator=account_id,access=at,refresh=rt,issued_at=updated.",
)
@click.option("--columns", metavar="COLUMN,...", help="The columns of a CSV without a header, in their order.")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The recipient's private key, for a file of `grants export`.",
)
@click.option("--replace", is_flag=True, help="Replace the tokens of known creators if the file's are newer.")
@click.option("--dry-run", is_flag=True, help="Store nothing, and report what would be done with each line.")
@output.json_option
def import_file(
    file: BinaryIO,
    *,
    form: Any,
    mapping: str | None,
    columns: str | None,
    key_file: Path | None,
    replace: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import existing tokens from JSON or CSV; `-` reads standard input.

    Each line needs access_token, refresh_token and one of creator_id, open_id, business_id. It may have expires_in
    (or expires), refresh_token_expires_in (or refresh_expires_in, refresh_expires), scope, reference, and a time:
    issued_at (or created_at, obtained_at) or expires_at, as ISO 8601 or seconds or milliseconds since 1970, UTC
    unless it says otherwise. Columns of other names are named with --map. A token without a time may be of any age,
    so it is refreshed within an eighth of its life.

    Before an imported pair is used, TikTok is asked who owns it. If a creator has several lines, the one with the
    latest issue time counts, in any order.

    With --replace a pair replaces the stored one only if its issue time is later, or if TikTok refused the stored one.
    A known creator's line is refused if it has no issue time (expires_at needs expires_in beside it), and while a
    refresh that may have brought a newer pair is under way or in doubt.
    Exit status 1 says that at least one line was not imported and needs a person, or that there was no line.
    """
    from worker.consent.import_fields import FieldNames  # noqa: PLC0415 - Celery loads this module on every start
    from worker.consent.import_lines import Source  # noqa: PLC0415 - as above
    from worker.consent.importer import Importer, ImportReport  # noqa: PLC0415 - as above

    opened = _opened(file, key_file)
    source = Source(
        file if opened is None else io.BufferedReader(opened),
        form=form,
        names=FieldNames(read_map(mapping)),
        columns=columns.split(",") if columns else None,
    )
    report = ImportReport()
    with output.services(changes_pairs=not dry_run) as services, _progress(file, quiet=as_json) as progress:
        _refuse_other_app(opened, services.app_id)
        importer = Importer(store=services.store, sealer=services.sealer, renew_at=services.settings.renew_at)
        try:
            importer.run(source, report=report, replace=replace, dry_run=dry_run, progress=progress)
        except BaseException:
            if report.created or report.replaced:
                output.note(f"stopped: {_counts(report)}; run the same command again, it skips stored pairs")
            raise
    if as_json:
        output.print_json(_plain(report) | {"dry_run": dry_run})
    else:
        _print(report, dry_run=dry_run)
    if not report.lines:
        output.note("the file has no line of a creator: did the export fail?")
    if report.bad or not report.lines:
        sys.exit(output.FINDING)


def _opened(file: BinaryIO, key_file: Path | None) -> OpenedExport | None:
    """Return a sealed file opened; None for any other file.

    Raises:
        UsageError: the file is sealed and no key was given, or they do not fit.
    """
    from worker.vault.exports import OpenedExport, RecipientKey, is_sealed  # noqa: PLC0415 - as above

    if key_file is not None:
        return OpenedExport(file, RecipientKey.read(read_file(key_file, str(key_file), lines=True), str(key_file)))
    if is_sealed(file):
        raise UsageError("the file is sealed for a recipient: name the recipient's key with --key KEY")
    return None


def _refuse_other_app(opened: OpenedExport | None, app_id: str) -> None:
    if opened is not None and opened.app_id != app_id:
        raise UsageError(
            f"the sealed file has pairs of app {opened.app_id}, and EVERTOKEN_TIKTOK_APP_ID is {app_id}: only its own "
            "app can refresh a pair"
        )


def read_map(mapping: str | None) -> dict[str, str]:
    """Return the names that `--map` gives, by our field.

    Raises:
        UsageError: the text has another form.
    """
    pairs = [part.split("=", 1) for part in (mapping or "").split(",") if part.strip()]
    if any(len(pair) != len(("field", "column")) or not all(text.strip() for text in pair) for pair in pairs):
        raise UsageError("--map needs FIELD=COLUMN pairs with commas between, such as creator=account_id,refresh=rt")
    fields = [ours.strip().lower() for ours, _ in pairs]
    if len(set(fields)) != len(fields):
        raise UsageError("--map names a field twice; each is read from one column")
    return {ours: theirs for ours, theirs in pairs}  # noqa: C416 - a pair is a list, which dict() would not take


def _print(report: ImportReport, *, dry_run: bool) -> None:
    click.echo(("nothing stored; this would be done: " if dry_run else "") + _counts(report))
    if report.counts:
        names = {"new": "imported", "bad": "not imported"}
        output.print_table(
            ("lines", "what", "why", "which"),
            [
                (count, names.get(what, what), reason, _some(report.lines_of[what, reason], count))
                for (what, reason), count in sorted(report.counts.items(), key=lambda item: (item[0][0], -item[1]))
            ],
        )
    if report.read_columns:
        click.echo(f"read: {', '.join(f'{field} from {name}' for field, name in report.read_columns.items())}")
    if report.unread_columns:
        click.echo(f"not read: {', '.join(report.unread_columns)}; a column is named with --map FIELD=COLUMN")
    if report.unknown_age:
        click.echo(
            f"{output.counted(report.unknown_age, 'line')} had no time, so these pairs are refreshed soon, and "
            "--replace will not replace them without issued_at"
        )
    if report.unknown_life:
        click.echo(
            f"{output.counted(report.unknown_life, 'line')} did not say when their access tokens end, so an hour is "
            "assumed, and older tokens count as ended until they are refreshed; add expires_in or expires_at"
        )
    if report.zoneless:
        click.echo(
            f"{output.counted(report.zoneless, 'line')} had times without a zone, which were read as UTC; if they are "
            "local times, tokens count as ended too early or too late: add the zone, such as +02:00"
        )
    if report.unusual:
        click.echo(
            f"{output.counted(report.unusual, 'line')} have tokens that do not begin with act. and rft., as TikTok's "
            "do: are they encrypted, or another service's?"
        )


def _some(lines: list[int], count: int) -> str:
    text = ", ".join(str(line) for line in lines[:SHOWN_LINES])
    return text + (", ..." if count > SHOWN_LINES else "")


def _plain(report: ImportReport) -> dict[str, object]:
    return {
        "lines": report.lines,
        "created": report.created,
        "replaced": report.replaced,
        "skipped": report.skipped,
        "bad": report.bad,
        "unknown_age": report.unknown_age,
        "unknown_life": report.unknown_life,
        "unusual": report.unusual,
        "zoneless": report.zoneless,
        "columns_read": report.read_columns,
        "columns_not_read": report.unread_columns,
        "reasons": [
            {"what": what, "reason": reason, "lines": count, "which": report.lines_of[what, reason]}
            for (what, reason), count in report.counts.items()
        ],
    }


@contextmanager
def _progress(file: IO[bytes], *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar over the file's bytes, which are read twice; only on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - Celery loads this module on every start
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        size = _size(file)
        task = bar.add_task("importing", total=None if size is None else 2 * size)
        yield lambda size: bar.update(task, advance=size)


def _size(file: IO[bytes]) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        return None


def _counts(report: ImportReport) -> str:
    text = f"{output.counted(report.lines, 'line')}: {report.created} new, {report.replaced} replaced, "
    return text + f"{report.skipped} skipped, {report.bad} not imported"
