"""The schema's migrations, run from code: no alembic.ini and no command of Alembic's is needed.

New revisions are written by hand into `migrations/versions`; a test holds models and migrations to be one schema.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select, text

from worker.store.clock import now
from worker.store.engine import Transactions, reads, writes
from worker.store.reports import SchemaState

MIGRATIONS: Final = Path(__file__).parent / "migrations"
UPGRADE_LOCK: Final = 4_851_702_133
"""Key of the advisory lock that lets one process migrate a PostgreSQL database at a time."""


class Schema(Transactions):
    """The clock and the shape of the database."""

    @reads
    def ping(self, connection: Connection) -> datetime:
        """Return the database's time."""
        return connection.execute(select(now())).scalar_one()

    now = ping

    def schema_state(self) -> SchemaState:
        """Return which migration the database is at and which one this code wants."""
        wanted = ScriptDirectory.from_config(_config()).get_current_head()
        return SchemaState(at=None if self.is_missing else self._revision(), wanted=wanted or "")

    def upgrade(self) -> SchemaState:
        """Bring the schema to what this code wants, in one transaction; a second process waits and finds it done.

        It makes SQLite's file, where there is none.
        """
        self.make_file()
        return self._upgrade()

    @reads
    def _revision(self, connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    @writes
    def _upgrade(self, connection: Connection) -> SchemaState:
        if self.kind == "postgresql":
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        wanted = ScriptDirectory.from_config(config).get_current_head() or ""
        return SchemaState(at=MigrationContext.configure(connection).get_current_revision(), wanted=wanted)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
