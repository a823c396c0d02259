"""The schema's migrations, run from code: no alembic.ini and no command of Alembic's is needed.

New revisions are written by hand into `migrations/versions`; a test checks that models and migrations give one schema.

`compatible_from` of a migration names the oldest migration whose code still runs on its tables. An upgrade stores it
beside the revision, so that an older version, which does not know the revision, knows whether it runs.
"""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text, update
from sqlalchemy.schema import CreateSchema

from worker.errors import NotReadyError
from worker.store.clock import now
from worker.store.engine import Transactions, bound_answers, reads, writes
from worker.store.models import METADATA
from worker.store.values import SchemaFit, SchemaState

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSIONS: Final = Table(
    "evertoken_schema",
    MetaData(),
    Column("version_num", String(32), primary_key=True),
    Column("compatible_from", String(32)),
)
"""One row: the revision, kept by Alembic, and the oldest revision whose code runs on these tables.

Not Alembic's usual table, because an application that shares the database may keep its own revisions there.
"""
FIRST_VERSIONS: Final = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""Where revisions up to `LAST_OF_FIRST` were kept. Code from that time looks only there."""
LAST_OF_FIRST: Final = "0003"
UPGRADE_LOCK: Final = 4_851_702_133
"""Number of the advisory lock that lets one process at a time migrate a PostgreSQL database."""

OUR_USER: Final = text("SELECT quote_ident(current_user)")
MAY_MAKE_SCHEMA: Final = text("SELECT has_database_privilege(current_database(), 'CREATE')")
MAY_FILL_SCHEMA: Final = text(
    "SELECT has_schema_privilege(:schema, 'USAGE') AND has_schema_privilege(:schema, 'CREATE')"
)


class Schema(Transactions):
    """The clock and the schema of the database."""

    @reads
    def ping(self, connection: Connection) -> datetime:
        """Return the database's time."""
        return connection.execute(select(now())).scalar_one()

    def schema_state(self) -> SchemaState:
        """Return the migration that the database is at, the one that this code needs, and whether they fit."""
        if self.is_missing:
            return _state(chain(), None, None)
        return self._state()

    def upgrade(self) -> SchemaState:
        """Bring the schema to what this code needs, in one transaction; a second process waits and finds it done.

        SQLite's file is created if it is missing, and so is the schema of a namespace. Tables of a newer version on
        which this code runs stay as they are.

        Raises:
            NotReadyError: this code does not run on the newer tables, foreign tables have the same names, or there is
                no schema and our user may not make it.
        """
        self.make_file()
        return self._upgrade()

    @reads
    def _state(self, connection: Connection) -> SchemaState:
        return _look(connection, chain())

    @writes
    def _upgrade(self, connection: Connection) -> SchemaState:
        if self.kind == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            bound_answers(connection, None)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        revisions = chain()
        before = _look(connection, revisions)
        if before.fit is SchemaFit.TOO_NEW:
            raise NotReadyError(str(before))
        if before.fit is SchemaFit.NEWER:
            return before
        if before.at is None:
            self._ensure_schema(connection)
            _refuse_taken_names(connection)
        VERSIONS.create(connection, checkfirst=True)
        if before.at is not None and connection.execute(select(VERSIONS)).first() is None:
            connection.execute(VERSIONS.insert().values(version_num=before.at))
        from alembic import command  # noqa: PLC0415 - a process that reads tokens never needs it

        config = _config()
        config.attributes |= {"connection": connection, "version_table": VERSIONS.name}
        command.upgrade(config, "head")
        compatible_from = max(revisions.values(), key=list(revisions).index)
        connection.execute(update(VERSIONS).values(compatible_from=compatible_from))
        if _keeps_ours(connection, revisions):
            _mark_first_versions(connection, revisions, compatible_from)
        return _look(connection, revisions)

    def _ensure_schema(self, connection: Connection) -> None:
        """Make the schema of a namespace; refuse one that the address names and that does not exist."""
        schema = self._schema
        if schema is None or self.kind != "postgresql":
            return
        exists = inspect(connection).has_schema(schema)
        if not exists and self._address.schema is not None:
            raise NotReadyError(
                f"the database has no schema {schema}, which EVERTOKEN_DATABASE_URL names: correct the name, or make it"
                " with CREATE SCHEMA"
            )
        if not exists and not connection.execute(MAY_MAKE_SCHEMA).scalar_one():
            raise NotReadyError(
                f"the database has no schema {schema}, and our user may not make it: let the database's owner run "
                f"`CREATE SCHEMA {schema} AUTHORIZATION {connection.execute(OUR_USER).scalar_one()}`"
            )
        if not exists:
            connection.execute(CreateSchema(schema))
        elif not connection.execute(MAY_FILL_SCHEMA, {"schema": schema}).scalar_one():
            raise NotReadyError(
                f"our user may make no tables in the schema {schema}: let its owner run "
                f'`GRANT USAGE, CREATE ON SCHEMA "{schema}" TO {connection.execute(OUR_USER).scalar_one()}`'
            )


def _look(connection: Connection, revisions: dict[str, str]) -> SchemaState:
    if inspect(connection).has_table(VERSIONS.name):
        row = connection.execute(select(VERSIONS)).first()
        return _state(revisions, *(row or (None, None)))
    if _keeps_ours(connection, revisions):
        return _state(revisions, connection.execute(select(FIRST_VERSIONS.c.version_num)).scalar_one(), None)
    return _state(revisions, None, None)


def _state(revisions: dict[str, str], at: str | None, compatible_from: str | None) -> SchemaState:
    wanted = next(reversed(revisions))
    if at is None or at in revisions:
        fit = SchemaFit.CURRENT if at == wanted else SchemaFit.BEHIND
    else:
        # Migrations that this code knows are older than those that it does not know.
        fit = SchemaFit.NEWER if compatible_from in revisions else SchemaFit.TOO_NEW
    return SchemaState(at=at, wanted=wanted, fit=fit)


def _keeps_ours(connection: Connection, revisions: dict[str, str]) -> bool:
    """Return True if the table of the first versions exists and is ours, not another application's."""
    looker = inspect(connection)
    if not all(looker.has_table(name) for name in (FIRST_VERSIONS.name, "grants", "pairs", "attempts", "sentinels")):
        return False
    found = connection.execute(select(FIRST_VERSIONS.c.version_num)).scalars().all()
    return len(found) == 1 and found[0] in revisions


def _mark_first_versions(connection: Connection, revisions: dict[str, str], compatible_from: str) -> None:
    """Store for old code its own newest revision if it runs on these tables, otherwise one that it must refuse."""
    order = list(revisions)
    runs = order.index(compatible_from) <= order.index(LAST_OF_FIRST)
    connection.execute(update(FIRST_VERSIONS).values(version_num=LAST_OF_FIRST if runs else order[-1]))


def _refuse_taken_names(connection: Connection) -> None:
    looker = inspect(connection)
    taken = sorted(name for name in METADATA.tables if looker.has_table(name))
    if taken:
        raise NotReadyError(
            f"the database has tables of another application by the names {', '.join(taken)}: give Evertoken a "
            "database or, on PostgreSQL, a separate schema (?schema=NAME at the end of EVERTOKEN_DATABASE_URL)"
        )


@cache
def chain() -> dict[str, str]:
    """Return each revision of this code, the oldest first, with its `compatible_from`; the strictest if it has none."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    scripts = reversed(list(ScriptDirectory.from_config(_config()).walk_revisions()))
    return {script.revision: getattr(script.module, "compatible_from", script.revision) for script in scripts}


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
