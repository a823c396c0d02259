"""The `keys` commands that act on what is stored: rotate, retire and abandon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.upkeep.rekey import RekeyReport


@click.command(cls=output.Command)
@click.option("--retire", "then_retire", is_flag=True, help="Afterwards take every other key out of use.")
@output.json_option
def rotate(*, then_retire: bool, as_json: bool) -> None:
    """Seal every stored pair again with the active key, while workers run.

    You may stop it and run it again: it goes on from there. Exit status 1 if a pair does not open, if some are
    still sealed with another key, or if a key could not be retired.
    """
    from worker.errors import NotReadyError  # noqa: PLC0415 - Celery loads this module on every start
    from worker.upkeep.rekey import RekeyReport  # noqa: PLC0415 - as above

    kept: list[str] = []
    with output.services(changes_pairs=True) as services:
        rekeyer = services.rekeyer
        report = RekeyReport(services.keyring.active)
        total = rekeyer.left()
        try:
            with _progress(total, quiet=as_json) as progress:
                rekeyer.rotate(report, progress)
        except BaseException:
            output.note(f"stopped: {_counts(report)}; run the same command again, it goes on from there")
            raise
        left = rekeyer.left()
        others = sorted(set(services.store.sentinels()) - {report.key_id}) if then_retire else []
        for key_id in others:
            try:
                rekeyer.retire(key_id)
            except NotReadyError as error:
                kept.append(str(error))
    if as_json:
        retired = len(others) - len(kept)
        output.print_json(asdict(report) | {"left": left, "retired": retired, "not_retired": kept})
    else:
        click.echo(f"{_counts(report)}; {left} are sealed with another key")
        for sentence in kept:
            output.note(sentence)
    if left or kept:
        sys.exit(output.FINDING)


@click.command(cls=output.Command)
@click.argument("key_id", type=click.IntRange(min=1))
@click.option(
    "--in",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also take it out of this keyring's file; the key is kept beside it in a separate file.",
)
@click.option(
    "--forget-silent", is_flag=True, help="Ignore the last reports of processes that ended without a goodbye."
)
@output.json_option
def retire(key_id: int, *, path: Path | None, forget_silent: bool, as_json: bool) -> None:
    """Take a key out of use if nothing needs it: no pair, no record in a journal, and no living process.

    Only then may a keyring lack it. Keep the key for as long as you keep backups of the database.
    """
    from worker.cli import keyring_file  # noqa: PLC0415 - Celery loads this module on every start

    changed = None if path is None else keyring_file.read(path).without(key_id)
    with output.services(changes_pairs=True) as services:
        services.rekeyer.retire(key_id, forget_silent=forget_silent)
    aside = None
    if path is not None and changed is not None:
        aside = keyring_file.keep_aside(path, key_id)
        keyring_file.replace(path, changed.to_json())
    if as_json:
        output.print_json({"retired": key_id, "kept_in": None if aside is None else str(aside)})
        return
    click.echo(f"key {key_id} is retired: no process needs it any more")
    where = "take it out of the keyrings" if aside is None else f"it is out of {path} and kept in {aside}"
    output.note(f"{where}; keep it apart from the database's backups, for as long as you keep those")


@click.command("abandon", cls=output.Command)
@click.argument("key_id", type=click.IntRange(min=1))
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.json_option
def abandon(key_id: int, *, yes: bool, as_json: bool) -> None:
    """Go on without a key that is lost for good: wipe what it sealed; it cannot be undone.

    Creators whose current pair it sealed are asked to authorize again, once each. All others go on. First look for a
    copy of the key: docs/runbook/keys-lost.md. Back the database up if the key may still turn up. If it sealed no pair,
    there is no question.
    """
    with output.services() as services:
        services.preflight.check_schema()
        pairs = services.rekeyer.lost_pairs(key_id)
        if pairs and not yes:
            click.confirm(
                f"wipe the {output.counted(pairs, 'pair')} of key {key_id}, and ask their creators?",
                abort=True,
                err=True,
            )
        done = services.rekeyer.abandon(key_id)
    if as_json:
        output.print_json({"abandoned": key_id, "pairs": done.pairs, "asked": done.asked})
    elif not done.pairs:
        click.echo(
            f"key {key_id} is abandoned: no stored pair was sealed with it, so nothing was wiped, nobody is asked"
        )
    else:
        click.echo(
            f"key {key_id} is abandoned: {output.counted(done.pairs, 'pair')} wiped, "
            f"{output.counted(done.asked, 'creator')} asked to authorize again"
        )


@contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar over the pairs; only on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done: None  # noqa: ARG005 - takes a number and shows nothing
        return
    from rich.console import Console  # noqa: PLC0415 - Celery loads this module on every start
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("sealing again"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sealing again", total=total)
        yield lambda done: bar.update(task, advance=done)


def _counts(report: RekeyReport) -> str:
    text = f"key {report.key_id}: {report.resealed} pairs sealed again"
    if report.passed_over:
        text += f", {report.passed_over} changed meanwhile by others"
    if report.unreadable:
        grants = ", ".join(map(str, report.unreadable_grants))
        text += f", {report.unreadable} do not open and were left as they are (grants {grants})"
    return text
