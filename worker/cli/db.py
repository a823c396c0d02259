"""`celery -A worker db`: the database's migrations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.store import SchemaState, Store


@click.group()
def db() -> None:
    """Create and migrate the database."""


@db.command(cls=output.Command)
@output.json_option
def upgrade(*, as_json: bool) -> None:
    """Bring the database to the newest migration; safe to run again."""
    with _store() as store:
        before = store.schema_state()
        store.upgrade()
        after = store.schema_state()
    if as_json:
        output.print_json({"before": before.at, "at": after.at, "wanted": after.wanted, "current": after.current})
    elif before.at == after.at:
        click.echo(f"nothing to do: the database is at {after.at}")
    else:
        click.echo(f"migrated the database from {before.at or 'empty'} to {after.at}")


@db.command(cls=output.Command)
@output.json_option
def check(*, as_json: bool) -> None:
    """Tell whether the database is at the newest migration; exit 1 where it is not."""
    with _store() as store:
        state = store.schema_state()
    if as_json:
        output.print_json({"at": state.at, "wanted": state.wanted, "current": state.current})
    else:
        click.echo(_sentence(state))
    if not state.current:
        sys.exit(output.FINDING)


def _sentence(state: SchemaState) -> str:
    if state.current:
        return f"the database is at {state.at}, the newest migration"
    at = state.at or "no migration"
    return f"the database is at {at} and must be at {state.wanted}: run `celery -A worker db upgrade`"


@contextmanager
def _store() -> Iterator[Store]:
    """Open the store alone: a migration needs neither Redis nor a journal."""
    from worker.store import open_store  # noqa: PLC0415 - Celery loads this module on every start

    store = open_store(output.settings().database_url)
    try:
        yield store
    finally:
        store.close()
