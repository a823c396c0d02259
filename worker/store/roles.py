"""Rights of PostgreSQL's roles, made from the models: an owner migrates, workers change rows, others read a part.

The owner is whoever runs `db upgrade`. A worker's role may change every row and no table. A reader's role may read the
columns that serve access tokens, no refresh token among them, and ask for a refresh by the one that it may change. A
dashboard's role may read the views of account data, and no table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import unquote, urlsplit

from psycopg import Connection as Driver
from sqlalchemy import Connection, text

from worker.addresses import read_database
from worker.errors import UsageError
from worker.store.account_models import VIEWS
from worker.store.engine import Transactions, reads, writes
from worker.store.models import METADATA
from worker.store.schema import VERSIONS

ROLE_NAME: Final = re.compile(r"[A-Za-z_][\w-]{0,62}", re.ASCII)
OF_WORKER: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
OF_READER: Final = {
    "grants": (
        "id", "app_id", "creator_id", "status", "consent", "pair_generation", "issued_at", "access_expires_at",
        "next_refresh_at", "failures", "lease_until", "belongs_to", "reference",
    ),
    "pairs": ("grant_id", "consent", "generation", "sealed_access", "wiped_at"),
    "pauses": ("app_id", "reference", "creator_id", "paused_at"),
}  # fmt: skip
"""The columns that `SERVED_PAIR` and its conditions read."""
OTHERS: Final = "comment_threads"
"""The view of what other people wrote, which is no dashboard's until a person gives it."""
SCRAM: Final = b"scram-sha-256"


@dataclass(frozen=True)
class Rights:
    """What the role of this process may do in the database.

    Attributes:
        role: its name.
        changes_tables: True if it may create, change or remove tables.
        lacking: the rights of a worker that it does not have, such as `DELETE on pairs`.
    """

    role: str
    changes_tables: bool
    lacking: tuple[str, ...]


class Roles(Transactions):
    """The roles of a PostgreSQL database and their rights."""

    def role_statements(self, *, worker: str, reader: str, dashboard: str) -> list[str]:
        """Return the SQL that makes the roles and gives them their rights; it may run again at any time.

        Args:
            worker: name of the role of workers, desk, exporter and commands.
            reader: name of the role of applications that read access tokens.
            dashboard: name of the role of dashboards and notebooks, which see account data alone.

        Raises:
            UsageError: the database is an SQLite file, or a name cannot be that of a role.
        """
        self._refuse_sqlite()
        return [*self._of_worker(worker), *self._of_reader(reader), *self._of_dashboard(dashboard)]

    def admit_worker(self, url: str) -> str | None:
        """Make the role of an address, with its password, and give it a worker's rights.

        Args:
            url: the address by which workers connect.

        Returns:
            The role's name; None if it is the role that this store connects as, which needs nothing.

        Raises:
            UsageError: the address names no role and password, or the database is an SQLite file.
            ConfigurationError: the address cannot be read.
        """
        self._refuse_sqlite()
        parts = urlsplit(read_database("the worker's address", url).libpq)
        if not parts.username or not parts.password:
            raise UsageError("the worker's address must name a role and its password: postgresql://ROLE:PASSWORD@...")
        role = unquote(parts.username)
        return self._admit(role, unquote(parts.password), list(self._of_worker(role)))

    def admit_dashboard(self, role: str, password: str) -> None:
        """Make the role of dashboards, with a password, and let it read the views, but for what other people wrote.

        Raises:
            UsageError: the name cannot be that of a role, or the database is an SQLite file.
        """
        self._refuse_sqlite()
        self._admit(role, password, list(self._of_dashboard(role, views=[view for view in VIEWS if view != OTHERS])))

    def rights(self) -> Rights | None:
        """Return what this process's role may do; None for SQLite, which has no roles."""
        return None if self.kind == "sqlite" else self._rights()

    @reads
    def _rights(self, connection: Connection) -> Rights:
        role, changes = connection.execute(
            text(
                "SELECT current_user, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
                " OR has_database_privilege(current_database(), 'CREATE')"
                " OR EXISTS (SELECT FROM pg_class"
                " WHERE oid = to_regclass('grants') AND pg_has_role(relowner, 'MEMBER'))"
            )
        ).one()
        lacking = connection.execute(
            text(
                "SELECT r || ' on ' || t FROM unnest(CAST(:tables AS text[])) t, unnest(CAST(:rights AS text[])) r"
                " WHERE NOT has_table_privilege(to_regclass(t), r) ORDER BY 1"
            ),
            {"tables": sorted(METADATA.tables), "rights": list(OF_WORKER)},
        ).scalars()
        return Rights(role, changes, tuple(lacking))

    @writes
    def _admit(self, connection: Connection, role: str, password: str, rights: Sequence[str]) -> str | None:
        if role == connection.execute(text("SELECT current_user")).scalar_one():
            return None
        for statement in rights:
            connection.exec_driver_sql(statement)
        # The server, its log and its statistics get the password's verifier, and never the password.
        driver = cast("Driver", connection.connection.driver_connection)
        verifier = driver.pgconn.encrypt_password(password.encode(), role.encode(), SCRAM).decode("ascii")
        connection.exec_driver_sql(f"ALTER ROLE \"{role}\" LOGIN PASSWORD '{verifier}'")
        return role

    def _of_worker(self, role: str) -> Iterator[str]:
        yield from self._made(role)
        counters = [
            f"{table.name}_{table.autoincrement_column.name}_seq"
            for table in METADATA.sorted_tables
            if table.autoincrement_column is not None
        ]
        yield f'GRANT {", ".join(OF_WORKER)} ON {", ".join(sorted(METADATA.tables))} TO "{role}"'
        yield f'GRANT USAGE ON SEQUENCE {", ".join(sorted(counters))} TO "{role}"'
        yield f'GRANT SELECT ON {VERSIONS.name} TO "{role}"'

    def _of_reader(self, role: str) -> Iterator[str]:
        yield from self._made(role)
        for table, columns in OF_READER.items():
            yield f'GRANT SELECT ({", ".join(columns)}) ON {table} TO "{role}"'
        yield f'GRANT UPDATE (next_refresh_at) ON grants TO "{role}"'

    def _of_dashboard(self, role: str, *, views: Sequence[str] = VIEWS) -> Iterator[str]:
        yield from self._made(role)
        # A view reads its tables by the rights of its owner, so the role needs none on them.
        yield f'GRANT SELECT ON {", ".join(views)} TO "{role}"'

    def _made(self, role: str) -> Iterator[str]:
        """Make a role and let it into the schema."""
        if ROLE_NAME.fullmatch(role) is None:
            raise UsageError("the name of a role is of letters, digits, _ and -, and begins with no digit")
        yield (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}')"
            f' THEN CREATE ROLE "{role}" LOGIN; END IF; END $$'
        )
        if self._schema is not None:
            yield f'SET search_path TO "{self._schema}"'
        grant = "'GRANT USAGE ON SCHEMA ' || quote_ident(current_schema()) || ' TO "
        yield f'DO $$ BEGIN EXECUTE {grant}"{role}"\'; END $$'

    def _refuse_sqlite(self) -> None:
        if self.kind == "sqlite":
            raise UsageError("SQLite has no roles: whoever may read its file may read it all; PostgreSQL has them")
