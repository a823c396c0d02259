"""`celery -A worker db`: the database's migrations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

from worker.cli import output
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.store import SchemaState, Store

WORKER: Final = "evertoken_worker"
READER: Final = "evertoken_reader"
DASHBOARD: Final = "evertoken_dashboard"
DEFAULT_FILE: Final = "var/evertoken.db"
"""The database's file unless a setting says otherwise."""


@click.group(cls=output.Group)
def db() -> None:
    """Create and migrate the database."""


@db.command(cls=output.Command)
@output.json_option
def upgrade(*, as_json: bool) -> None:
    """Bring the database to the newest migration; safe to run again.

    Tables of a newer version stay as they are if this version runs on them.
    A missing SQLite file is created, but not its folder.
    """
    with _store() as store:
        made = _new_file(store)
        before = store.schema_state()
        after = store.upgrade()
    if as_json:
        output.print_json({"before": before.at, **_facts(after)})
    elif made is not None:
        click.echo(f"made a new, empty database at migration {after.at}: {made}")
    elif before.at == after.at:
        click.echo(f"nothing to do: {after}")
    else:
        click.echo(f"migrated the database from {before.at or 'empty'} to {after.at}")


@db.command(cls=output.Command)
@output.json_option
def check(*, as_json: bool) -> None:
    """Check whether this version runs on the database's tables; exit 1 if it does not."""
    with _store() as store:
        state = store.schema_state()
    if as_json:
        output.print_json(_facts(state))
    else:
        click.echo(str(state))
    if not state.runs:
        sys.exit(output.FINDING)


@db.command(cls=output.Command)
@click.option("--worker", default=WORKER, show_default=True, help="Name of the role of workers and commands.")
@click.option("--reader", default=READER, show_default=True, help="Name of the role of applications that read tokens.")
@click.option(
    "--dashboard", default=DASHBOARD, show_default=True, help="Name of the role that reads the views of data."
)
@click.option(
    "--admit",
    type=click.File(encoding="utf-8"),
    help="Print no SQL: make the role of the address in this file (-: standard input) and give it a worker's rights.",
)
@click.option(
    "--admit-dashboard",
    type=click.File(encoding="utf-8"),
    help="Print no SQL: make the role of --dashboard with the password in this file; an empty file makes none.",
)
@output.json_option
def roles(
    *, worker: str, reader: str, dashboard: str, admit: TextIO | None, admit_dashboard: TextIO | None, as_json: bool
) -> None:
    """Print the SQL that gives PostgreSQL's roles their rights; safe to run again.

    Run it as the owner of the tables, after each upgrade: `evertoken db roles | psql OWNERS-ADDRESS`. A worker's role
    changes rows and no table; a reader's role reads access tokens and no refresh token; a dashboard's role reads the
    views of account data and no table.
    """
    with _store() as store:
        if admit is None and admit_dashboard is None:
            statements = store.role_statements(worker=worker, reader=reader, dashboard=dashboard)
            if as_json:
                output.print_json({"statements": statements})
            else:
                click.echo("".join(f"{statement};\n" for statement in statements), nl=False)
            return
        found: dict[str, str | None] = {}
        said = []
        if admit is not None:
            found["admitted"] = role = store.admit_worker(admit.read().strip())
            said.append(
                "nothing to do: that address names the owner of the tables" if role is None
                else f"{role} has the rights of a worker, and the password of that address"
            )  # fmt: skip
        if admit_dashboard is not None:
            password = admit_dashboard.read().strip()
            if password:
                store.admit_dashboard(dashboard, password)
            found["admitted_dashboard"] = dashboard if password else None
            said.append(
                f"{dashboard} reads the views of account data, and has the password of that file" if password
                else f"{dashboard} was not made: the file of its password is empty"
            )  # fmt: skip
    if as_json:
        output.print_json(found)
    else:
        click.echo("\n".join(said))


def _new_file(store: Store) -> Path | None:
    """Return the SQLite file if it does not exist yet.

    Raises:
        UsageError: its folder does not exist either, so the address may be mistyped; our own default folder is made.
    """
    path = store.path
    if path is None or path.exists():
        return None
    path = path.absolute()
    if not path.parent.is_dir() and path != Path(DEFAULT_FILE).absolute():
        raise UsageError(
            f"there is no folder {path.parent} for a new database; make it, or look at EVERTOKEN_DATABASE_URL"
        )
    return path


def _facts(state: SchemaState) -> dict[str, object]:
    return {"at": state.at, "wanted": state.wanted, "current": state.current, "runs": state.runs}


@contextmanager
def _store() -> Iterator[Store]:
    """Open the store alone: a migration needs neither Redis nor a journal."""
    from worker.store import open_store  # noqa: PLC0415 - Celery loads this module on every start

    settings = output.settings()
    store = open_store(settings.database_url, namespace=settings.namespace)
    try:
        yield store
    finally:
        store.close()
