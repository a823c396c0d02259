"""The `grants` commands that change something: import, refresh, pull and revoke."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.consent.importer import BadLine, ImportReport

REFRESH_TASK: Final = "tasks.refresh.refresh_grants"
PULL_TASK: Final = "tasks.pull.pull_account"
LONGEST_WAIT_SECONDS: Final = 10.0
"""How long `--now` waits for a permit of the quota."""
LISTED_BAD_LINES: Final = 10_000
"""Bad lines that the JSON report lists; all are counted."""


@click.command("import", cls=output.Command)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format", "form", type=click.Choice(("jsonl", "csv")), help="How to read it; otherwise its first line tells."
)
@click.option("--replace", is_flag=True, help="Replace the tokens of known creators where the file's are newer.")
@click.option("--dry-run", is_flag=True, help="Check every line and store nothing.")
@output.json_option
def import_file(file: BinaryIO, *, form: Any, replace: bool, dry_run: bool, as_json: bool) -> None:
    """Import existing tokens from JSON lines or CSV; `-` reads standard input.

    Each line needs access_token, refresh_token and one of creator_id, open_id, business_id. It may have expires_in (or
    expires), refresh_token_expires_in (or refresh_expires_in, refresh_expires), scope, and a time: issued_at (or
    created_at, obtained_at) or expires_at, as ISO 8601 or seconds since 1970, UTC unless it says otherwise. A token
    without a time may be of any age, so it is refreshed within an eighth of its life.

    With --replace a pair takes the place of the stored one only where its issue time is later. A known creator's line
    is refused where its issue time is not told (expires_at needs expires_in beside it), and while a refresh that may
    have brought a newer pair is under way or in doubt.
    Exit status 1 tells that at least one line was not imported.
    """
    from worker.consent.importer import (  # noqa: PLC0415 - Celery loads this module on every start
        Importer,
        ImportReport,
    )

    report, bad = ImportReport(), _BadLines(as_json=as_json)
    with output.services(changes_pairs=not dry_run) as services, _progress(file, quiet=as_json) as progress:
        importer = Importer(store=services.store, sealer=services.sealer, renew_at=services.settings.renew_at)
        try:
            importer.run(
                file, report=report, on_bad=bad, form=form, replace=replace, dry_run=dry_run, progress=progress
            )
        except BaseException:
            if report.lines:
                output.note(f"stopped: {_counts(report)}; run the same command again, known creators are skipped")
            raise
    if as_json:
        output.print_json(asdict(report) | {"dry_run": dry_run, "bad_lines": bad.listed})
    else:
        click.echo(("checked, nothing stored: " if dry_run else "") + _counts(report))
    if report.bad:
        sys.exit(output.FINDING)


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--now", "at_once", is_flag=True, help="Refresh in this process and tell the outcome.")
@output.json_option
@click.pass_context
def refresh(ctx: click.Context, creator: str, *, at_once: bool, as_json: bool) -> None:
    """Refresh one grant before its time: marked due and handed to the workers, or with --now right here."""
    with output.services(changes_pairs=at_once) as services:
        grant_id = services.store.request_refresh(creator)
        if at_once:
            done = with_permit(lambda: services.refresher.refresh(grant_id, force=True))
            _tell_outcome(creator, done, good="refreshed", as_json=as_json)
            return
    _publish(ctx, REFRESH_TASK, [[grant_id]], creator, grant_id, as_json=as_json)


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--now", "at_once", is_flag=True, help="Pull in this process and tell the outcome.")
@output.json_option
@click.pass_context
def pull(ctx: click.Context, creator: str, *, at_once: bool, as_json: bool) -> None:
    """Pull one creator's account data: handed to the workers, or with --now right here."""
    with output.services(changes_pairs=at_once) as services:
        grant_id = services.store.request_pull(creator)
        if at_once:
            done = with_permit(lambda: services.puller.pull(grant_id))
            _tell_outcome(creator, done, good="pulled", as_json=as_json)
            return
    _publish(ctx, PULL_TASK, [grant_id], creator, grant_id, as_json=as_json)


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.json_option
def revoke(creator: str, *, yes: bool, as_json: bool) -> None:
    """End a creator's consent at TikTok, then forget the tokens here; only a new authorization brings it back."""
    with output.services(changes_pairs=True) as services:
        services.store.grant(creator)
        if not yes:
            click.confirm(f"revoke the consent of creator {creator}?", abort=True, err=True)
        told = services.authorizer.revoke(creator)
    if as_json:
        output.print_json({"creator_id": creator, "status": "revoked", "at_tiktok": told})
    elif told:
        output.say(f"creator {creator} is revoked, and the tokens are wiped")
    else:
        output.say(
            f"creator {creator} is revoked here, and the tokens are wiped; TikTok was not asked, because they are "
            "another creator's"
        )


class _BadLines:
    """Tells each bad line as it comes, and keeps a bounded list for the JSON report."""

    def __init__(self, *, as_json: bool) -> None:
        self.listed: list[dict[str, object]] = []
        self._as_json = as_json

    def __call__(self, bad: BadLine) -> None:
        if not self._as_json:
            output.note(f"line {bad.line}: {bad.reason}")
        elif len(self.listed) < LISTED_BAD_LINES:
            self.listed.append(asdict(bad))


@contextmanager
def _progress(file: IO[bytes], *, quiet: bool) -> Iterator[Callable[[int], None] | None]:
    """Show a progress bar over the file's bytes, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - Celery loads this module on every start
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("importing", total=_size(file))
        yield lambda size: bar.update(task, advance=size)


def _size(file: IO[bytes]) -> int | None:
    try:
        return os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        return None


def _counts(report: ImportReport) -> str:
    text = f"{output.counted(report.lines, 'line')}: {report.created} new, {report.replaced} replaced, "
    text += f"{report.skipped} skipped, {report.bad} bad"
    return text + (f"; {report.unknown_age} of unknown age, refreshed soon" if report.unknown_age else "")


def with_permit(act: Callable[[], Any]) -> Any:
    """Run a use case; where the quota is spent, wait for a permit, but not for long."""
    end = time.monotonic() + LONGEST_WAIT_SECONDS
    while (done := act()).kind == "denied" and time.monotonic() + done.wait_seconds < end:
        time.sleep(done.wait_seconds)
    return done


def _tell_outcome(creator: str, done: Any, *, good: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"creator_id": creator} | asdict(done))
    else:
        output.say(f"creator {creator}: {done.kind}" + (f" ({done.reason})" if done.reason else ""))
    if done.kind != good:
        sys.exit(output.FINDING)


def _publish(ctx: click.Context, task: str, args: list[Any], creator: str, grant_id: int, *, as_json: bool) -> None:
    """Hand a task to the workers; the row is marked already, so a queue that is away only costs time."""
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - Celery loads this module on every start

    try:
        task_id = ctx.obj.app.send_task(task, args=args, retry=False).id
    except OperationalError:
        task_id = None
    if as_json:
        output.print_json({"creator_id": creator, "grant_id": grant_id, "task": task, "task_id": task_id})
    elif task_id is None:
        output.say(f"creator {creator} is marked; Redis does not answer, so the next scan hands it out")
    else:
        output.say(f"creator {creator} is handed to the workers as {task} {task_id}")
