"""`celery -A worker keys`: the keyring that seals tokens."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from worker.cli import output
from worker.cli.key_rotation import abandon, retire, rotate
from worker.errors import UsageError

KEYRING_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group(cls=output.Group)
def keys() -> None:
    """Make a keyring, see which keys are in use, and rotate them while everything runs."""


@keys.command(cls=output.Command)
@click.option("--out", type=KEYRING_FILE, help="A new file, readable by its owner only.")
@click.option("--add-to", type=KEYRING_FILE, help="Add a key to this keyring; it opens and does not seal yet.")
@output.json_option
def new(out: Path | None, add_to: Path | None, *, as_json: bool) -> None:
    """Make a keyring with one fresh key, or add a fresh key to a keyring.

    It needs no settings. Without --out the keyring itself is printed: it is the secret that opens every token.
    """
    from worker.cli import keyring_file  # noqa: PLC0415 - Celery loads this module on every start
    from worker.vault import Keyring  # noqa: PLC0415 - as above

    if out is not None and add_to is not None:
        raise UsageError("--out makes a keyring and --add-to changes one; name one of the two")
    if add_to is not None:
        changed, key_id = keyring_file.read(add_to).with_new_key()
        keyring_file.replace(add_to, changed.to_json())
        _print_result(
            f"added key {key_id} to {add_to}: it opens, and key {changed.active} goes on sealing",
            f"give this keyring to every process and restart them, applications that read tokens first; then "
            f"run `celery -A worker keys activate {key_id} --in {add_to}`, and restart them once more",
            {"file": str(add_to), "added": key_id, "active": changed.active},
            as_json=as_json,
        )
        return
    keyring = Keyring.new()
    if out is None:
        click.echo(keyring.to_json())
        return
    keyring_file.write_new(out, keyring.to_json())
    _print_result(
        f"wrote a keyring with key {keyring.active} to {out}; set EVERTOKEN_KEYRING_FILE={out}",
        "keep a copy apart from the database's backups: without it no token can be opened again",
        {"file": str(out), "active": keyring.active},
        as_json=as_json,
    )


@keys.command(cls=output.Command)
@click.argument("key_id", type=click.IntRange(min=1))
@click.option("--in", "path", type=KEYRING_FILE, required=True, help="The keyring's file.")
@output.json_option
def activate(key_id: int, path: Path, *, as_json: bool) -> None:
    """Make a key of a keyring's file the one that seals.

    A process that gets this keyring seals with the key as soon as every living process holds it, not before.
    """
    from worker.cli import keyring_file  # noqa: PLC0415 - Celery loads this module on every start

    keyring_file.replace(path, keyring_file.read(path).with_active(key_id).to_json())
    _print_result(
        f"key {key_id} is active in {path}",
        "give this keyring to every process and restart them; then `celery -A worker keys rotate`",
        {"file": str(path), "active": key_id},
        as_json=as_json,
    )


@keys.command(cls=output.Command)
@output.json_option
def status(*, as_json: bool) -> None:
    """Show each key: what it seals, and whether this keyring opens it; exit 1 if something does not open."""
    from worker.cli.key_use import KeyUse, key_rows  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        rows, living = key_rows(services)
    if as_json:
        output.print_json({"keys": [asdict(row) for row in rows], "processes": living})
    else:
        opens = {True: "yes", False: "NO", None: "not tried"}

        def processes(row: KeyUse) -> tuple[str, str]:
            return f"{row.held_by} of {living} processes", f"{row.seals_in} of {living}"

        output.print_table(
            ("key", "state", "pairs", "journal", "held by", "seals in", "opens", "remark"),
            [
                (row.key_id, row.state, row.pairs, row.journal, *processes(row), opens[row.opens], row.remark)
                for row in rows
            ],
        )
    if any(row.opens is False for row in rows):
        sys.exit(output.FINDING)


@keys.command(cls=output.Command)
@click.option("--out", type=KEYRING_FILE, required=True, help="A new file, or one that holds a reader's keyring.")
@output.json_option
def reader(out: Path, *, as_json: bool) -> None:
    """Write the keyring for applications that read access tokens: it opens those, nothing else, and seals nothing.

    It is made from EVERTOKEN_KEYRING, and again after each new key, and names the app. Whoever has it opens no refresh
    token and no record of the journal, and signs no consent link. A file that holds anything but an older reader's
    keyring of these keys is left as it is.
    """
    from worker.cli import keyring_file  # noqa: PLC0415 - Celery loads this module on every start

    with output.services(fit=False) as services:
        made, without = services.keyring.reader(services.app_id), sorted(services.keyring.direct)
    keyring_file.write_for_readers(out, made.to_json())
    then = f"give it to applications that read tokens, as EVERTOKEN_KEYRING_FILE={out}, and restart them"
    if without:
        then += (
            f"; keys {without} have no key for access tokens alone and are left out: what they sealed opens for "
            "readers after `celery -A worker keys rotate` with a newer key"
        )
    _print_result(
        f"wrote a reader's keyring with keys {sorted(made.keys)} to {out}",
        then,
        {"file": str(out), "keys": sorted(made.keys), "left_out": without},
        as_json=as_json,
    )


@keys.command(cls=output.Command)
@click.option("--out", type=KEYRING_FILE, required=True, help="A new file for the private key, for its owner only.")
@output.json_option
def recipient(out: Path, *, as_json: bool) -> None:
    """Make the key pair of a recipient of `grants export`, and print its public part.

    It needs no settings. The private key stays where the file is to be opened; the public part is no secret.
    """
    from worker.cli import keyring_file  # noqa: PLC0415 - Celery loads this module on every start
    from worker.vault.exports import RecipientKey  # noqa: PLC0415 - as above

    made = RecipientKey.new()
    keyring_file.write_new(out, made.to_text(), what="a recipient's key")
    _print_result(
        made.recipient.text,
        f"wrote the private key to {out}; `grants export --for` takes the line above, which is no secret",
        {"file": str(out), "recipient": made.recipient.text, "name": made.recipient.name},
        as_json=as_json,
    )


keys.add_command(rotate)
keys.add_command(retire)
keys.add_command(abandon)


def _print_result(done: str, then: str, as_data: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        output.print_json(as_data)
    else:
        click.echo(done)
        output.note(then)
