"""`celery -A worker keys`: the keyring that seals tokens."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from worker.cli import output
from worker.errors import UsageError

OWNER_ONLY = 0o600


@click.group()
def keys() -> None:
    """Make a keyring and see which keys are in use."""


@keys.command(cls=output.Command)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A new file, readable by its owner only.")
@output.json_option
def new(out: Path | None, *, as_json: bool) -> None:
    """Make a keyring with one fresh key.

    It needs no settings. Without --out the keyring itself is printed: it is the secret that opens every token.
    """
    from worker.vault import Keyring  # noqa: PLC0415 - Celery loads this module on every start

    keyring = Keyring.new()
    if out is None:
        click.echo(keyring.to_json())
        return
    _write_new(out, keyring.to_json())
    if as_json:
        output.print_json({"file": str(out), "active": keyring.active})
    else:
        click.echo(f"wrote a keyring with key {keyring.active} to {out}; set EVERTOKEN_KEYRING_FILE={out}")
        output.note("keep a copy where the database's backups are not: without it no token can be opened again")


@keys.command(cls=output.Command)
@output.json_option
def status(*, as_json: bool) -> None:
    """Show each key: what it seals, and whether this keyring opens it; exit 1 where something does not open."""
    from worker.cli.key_use import key_rows  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        rows = key_rows(services)
    if as_json:
        output.print_json({"keys": [asdict(row) for row in rows]})
    else:
        opens = {True: "yes", False: "NO", None: "not tried"}
        output.print_table(
            ("key", "state", "pairs", "journal", "opens", "remark"),
            [(row.key_id, row.state, row.pairs, row.journal, opens[row.opens], row.remark) for row in rows],
        )
    if any(row.opens is False for row in rows):
        sys.exit(output.FINDING)


def _write_new(path: Path, text: str) -> None:
    """Write a file that did not exist, durably, readable by its owner only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), OWNER_ONLY)
    except FileExistsError:
        raise UsageError(f"{path} exists; a keyring is never overwritten, since it opens every token") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror})") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
