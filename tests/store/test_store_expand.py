"""Expand first, contract later: a migration takes nothing from code that it says still runs on its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from worker.store import open_store
from worker.store.schema import VERSIONS, _config, chain


@dataclass(frozen=True)
class Shape:
    """What code relies on in tables.

    Attributes:
        columns: each column's type, by table and name.
        required: columns that an insert must name.
        empty: columns that are NULL unless an insert names them, so that no rule of uniqueness holds for them.
        unique: the columns of each unique constraint or index, by table.
        refuses: checks and foreign keys that an insert may fail at, by table.
    """

    columns: dict[tuple[str, str], str]
    required: set[tuple[str, str]]
    empty: set[tuple[str, str]]
    unique: set[tuple[str, frozenset[str]]]
    refuses: set[tuple[str, str]]

    @property
    def tables(self) -> set[str]:
        """The tables."""
        return {table for table, _ in self.columns}


def shape_of(connection: Connection) -> Shape:
    """Read the shape of a database."""
    looker = inspect(connection)
    looker.clear_cache()
    shape = Shape({}, set(), set(), set(), set())
    for table in looker.get_table_names():
        key = looker.get_pk_constraint(table)["constrained_columns"]
        for column in looker.get_columns(table):
            place = (table, column["name"])
            shape.columns[place] = str(column["type"])
            counted = key == [column["name"]] and "INT" in str(column["type"])
            if not column["nullable"] and column["default"] is None and not counted:
                shape.required.add(place)
            if column["nullable"] and column["default"] is None:
                shape.empty.add(place)
        shape.unique.add((table, frozenset(key)))
        for each in looker.get_unique_constraints(table):
            shape.unique.add((table, frozenset(each["column_names"])))
        for index in looker.get_indexes(table):
            if index["unique"]:
                shape.unique.add((table, frozenset(name or "" for name in index["column_names"])))
        for check in looker.get_check_constraints(table):
            shape.refuses.add((table, str(check["sqltext"])))
        for foreign in looker.get_foreign_keys(table):
            shape.refuses.add((table, f"{foreign['constrained_columns']} -> {foreign['referred_table']}"))
    return shape


def taken(before: Shape, after: Shape) -> list[str]:
    """Return what code that ran on the shape before may miss, or may be refused, on the one after."""
    old = before.tables
    found = [f"the table {table} is gone" for table in sorted(old - after.tables)]
    for (table, column), kind in sorted(before.columns.items()):
        if table in after.tables and (table, column) not in after.columns:
            found.append(f"the column {table}.{column} is gone")
        elif table in after.tables and after.columns[table, column] != kind:
            found.append(f"the column {table}.{column} was {kind} and is {after.columns[table, column]}")
    for table, name in sorted(after.required - before.required):
        if table in old:
            found.append(f"an insert must name {table}.{name}")
    for table, columns in sorted(after.unique - before.unique, key=str):
        wider = any(each == table and narrow <= columns for each, narrow in before.unique)
        added = after.empty.difference(before.columns)
        if table in old and not wider and added.isdisjoint((table, name) for name in columns):
            found.append(f"{table} has to be unique by {', '.join(sorted(columns))}")
    found += [f"{table} refuses by {rule}" for table, rule in sorted(after.refuses - before.refuses) if table in old]
    return found


@contextmanager
def connected(folder: Path) -> Iterator[Connection]:
    """A database without any table."""
    engine = sa.create_engine(f"sqlite:///{folder / 'evertoken.db'}")
    with engine.begin() as connection:
        VERSIONS.create(connection)
        yield connection
    engine.dispose()


def shapes(connection: Connection) -> Iterator[tuple[str, Shape]]:
    """Run all migrations, one after the other, and return each one's revision with the shape after it."""
    config = _config()
    config.attributes |= {"connection": connection, "version_table": VERSIONS.name}
    for revision in chain():
        command.upgrade(config, revision)
        yield revision, shape_of(connection)


def test_no_migration_takes_from_code_that_it_says_still_runs(tmp_path: Path) -> None:
    """From the oldest code that a migration names on, nothing is removed, renamed, narrowed or newly required."""
    by_revision: dict[str, Shape] = {}
    found: dict[str, list[str]] = {}
    with connected(tmp_path) as connection:
        for revision, shape in shapes(connection):
            by_revision[revision] = shape
            oldest = chain()[revision]
            if missed := taken(by_revision[oldest], shape):
                found[f"{revision} says that code of {oldest} still runs"] = missed

    assert found == {}
    assert len(by_revision) == len(chain())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda op: op.drop_table("pauses"), "the table pauses is gone"),
        (lambda op: op.rename_table("pauses", "holds"), "the table pauses is gone"),
        (lambda op: dropped(op, "grants", "checked_at"), "the column grants.checked_at is gone"),
        (lambda op: renamed(op, "grants", "verdict"), "the column grants.verdict is gone"),
        (lambda op: narrowed(op, "grants", "verdict"), "the column grants.verdict was VARCHAR(24) and is VARCHAR(3)"),
        (lambda op: required(op, "grants", "verdict"), "an insert must name grants.verdict"),
        (lambda op: unique(op, "attempts", "owner"), "attempts has to be unique by owner"),
        (lambda op: checked(op, "grants", "failures < 3"), "grants refuses by failures < 3"),
    ],
)
def test_a_migration_that_takes_something_away_is_found(
    tmp_path: Path, change: Callable[[Operations], None], says: str
) -> None:
    """Each kind of it, in tables as they are now; what is added beside is not reported."""
    with closing(open_store(f"sqlite:///{tmp_path / 'evertoken.db'}")) as store:
        store.upgrade()
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'evertoken.db'}")
    with engine.begin() as connection:
        before = shape_of(connection)
        op = Operations(MigrationContext.configure(connection))
        op.create_table(
            "added", sa.Column("id", sa.Integer, primary_key=True), sa.Column("at", sa.Integer, nullable=False)
        )
        op.add_column("grants", sa.Column("added", sa.Integer, nullable=False, server_default="0"))
        assert taken(before, shape_of(connection)) == []
        change(op)
        found = taken(before, shape_of(connection))
    engine.dispose()

    assert found == [says]


def dropped(op: Operations, table: str, column: str) -> None:
    """Drop a column."""
    with op.batch_alter_table(table) as batch:
        batch.drop_column(column)


def renamed(op: Operations, table: str, column: str) -> None:
    """Rename a column."""
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, new_column_name="renamed")


def narrowed(op: Operations, table: str, column: str) -> None:
    """Make a text shorter."""
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, type_=sa.String(3))


def required(op: Operations, table: str, column: str) -> None:
    """Let nobody leave a column empty."""
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, nullable=False)


def unique(op: Operations, table: str, column: str) -> None:
    """Let no two rows be alike."""
    op.create_index("only", table, [column], unique=True)


def checked(op: Operations, table: str, rule: str) -> None:
    """Refuse rows by a rule."""
    with op.batch_alter_table(table) as batch:
        batch.create_check_constraint("rule", sa.text(rule))
