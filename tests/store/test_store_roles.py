"""Roles of PostgreSQL: a worker's role changes every row and no table, and gets its password without telling it."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.conftest import DASHBOARD_ROLE, READER_ROLE, WORKER_ROLE
from worker.errors import StoreRefusedError, UsageError
from worker.store import Store, open_store
from worker.store.account_models import DATA, VIEWS
from worker.store.models import METADATA

PASSWORD = "CANARY:of/the@role"
ADDRESS = "postgresql://evertoken_other:CANARY%3Aof%2Fthe%40role@127.0.0.1/fresh"


@pytest.fixture
def database_kind() -> str:
    """SQLite has no roles."""
    return "postgresql"


@pytest.fixture
def owner(store_url: str) -> Iterator[psycopg.Connection]:
    """A connection of the owner of the tables."""
    with psycopg.connect(store_url.replace(f"//{WORKER_ROLE}@", "//postgres@"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(owner: psycopg.Connection) -> Iterator[str]:
    """The name of a role that the test makes; it is gone afterwards."""
    yield "evertoken_other"
    owner.execute(b"DROP OWNED BY evertoken_other")
    owner.execute(b"DROP ROLE evertoken_other")


def test_the_worker_may_change_no_table(store: Store) -> None:
    """Whoever takes a worker over makes, changes, empties and removes none."""
    for statement in (
        "CREATE TABLE ours (id int)", "CREATE SCHEMA ours", "CREATE INDEX ON grants (status)", "TRUNCATE attempts",
        "ALTER TABLE grants ADD COLUMN ours int", "DROP TABLE pairs", "UPDATE evertoken_schema SET version_num = '1'",
    ):  # fmt: skip
        with pytest.raises(StoreRefusedError, match="lacks a right"):
            store.transact(lambda connection, run=statement: connection.exec_driver_sql(run), writes=True)  # type: ignore[misc]


def test_a_worker_that_migrates_is_sent_to_the_owner(store: Store) -> None:
    """`db upgrade` under a worker's role says who runs it, and not only which right is missing."""
    with pytest.raises(StoreRefusedError, match=r"the owner of the tables .* runs `db upgrade`"):
        store.upgrade()


def test_the_worker_has_every_right_on_every_table_of_the_models(store: Store, owner: psycopg.Connection) -> None:
    """`rights` finds the role, and what was taken from it or forgotten: `doctor` shows that."""
    found = store.rights()
    assert found is not None
    assert (found.role, found.changes_tables, found.lacking) == (WORKER_ROLE, False, ())

    owner.execute(f"REVOKE DELETE ON pairs FROM {WORKER_ROLE}".encode())
    owner.execute(f"REVOKE ALL ON tombstones FROM {WORKER_ROLE}".encode())

    found = store.rights()
    assert found is not None
    assert found.lacking == (
        "DELETE on pairs",
        *(f"{right} on tombstones" for right in ("DELETE", "INSERT", "SELECT", "UPDATE")),
    )


@pytest.mark.as_owner
def test_the_owner_is_said_to_change_tables(store: Store) -> None:
    """An installation with one role goes on as before, and `doctor` says what that role may do."""
    found = store.rights()

    assert found is not None
    assert found.changes_tables


def test_the_dashboards_role_reads_the_views_and_nothing_else(store_url: str, owner: psycopg.Connection) -> None:
    """It reads every view, changes none, and sees no table: no token, no secret of a consumer, no raw answer."""
    with psycopg.connect(store_url.replace(f"//{WORKER_ROLE}@", f"//{DASHBOARD_ROLE}@"), autocommit=True) as role:
        for view in VIEWS:
            role.execute(f"SELECT * FROM {view}".encode())  # noqa: S608 - our own names
        for table in (*METADATA.tables, "evertoken_schema"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.execute(f"SELECT count(*) FROM {table}".encode())  # noqa: S608 - our own names
        for statement in (
            "DELETE FROM account_daily", "UPDATE account_hourly SET hour = 1", "CREATE TABLE ours (id int)",
            "INSERT INTO account_hourly DEFAULT VALUES", "SELECT nextval('grants_id_seq')",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                role.execute(statement.encode())

    read = "SELECT DISTINCT table_name FROM information_schema.view_table_usage WHERE view_schema = current_schema()"
    assert {table for (table,) in owner.execute(read.encode())} <= {table.name for table in DATA}


def test_every_view_of_the_database_is_a_dashboards(owner: psycopg.Connection) -> None:
    """A view of a later migration gets its rights with the others."""
    found = owner.execute(b"SELECT table_name FROM information_schema.views WHERE table_schema = current_schema()")

    assert {view for (view,) in found} == set(VIEWS)


@pytest.mark.as_owner
def test_a_worker_is_admitted_by_its_address_again_and_again(
    store: Store, owner: psycopg.Connection, other: str
) -> None:
    """The role has a worker's rights and the address's password, of which the server keeps a verifier."""
    assert store.admit_worker(ADDRESS) == store.admit_worker(ADDRESS) == other

    (kept,) = owner.execute(b"SELECT rolpassword FROM pg_authid WHERE rolname = 'evertoken_other'").fetchone() or ("",)
    method, numbers, keys = kept.split("$")
    iterations, salt = numbers.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), base64.b64decode(salt), int(iterations))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    assert method == "SCRAM-SHA-256"
    assert keys.split(":")[0] == base64.b64encode(stored).decode()
    held = owner.execute(
        b"SELECT count(*) FROM information_schema.role_table_grants WHERE grantee = 'evertoken_other'"
    ).fetchone()
    assert held == (4 * len(METADATA.tables) + 1,)


@pytest.mark.as_owner
def test_the_owners_own_address_admits_nobody(store: Store) -> None:
    """Where workers connect as the owner, as before there were roles, nothing changes."""
    assert store.admit_worker("postgresql://postgres:any@127.0.0.1/fresh") is None


@pytest.mark.parametrize("address", ["postgresql://127.0.0.1/fresh", "postgresql://worker@127.0.0.1/fresh"])
def test_an_address_without_a_role_or_its_password_is_refused(store: Store, address: str) -> None:
    """A role without a password could not log in."""
    with pytest.raises(UsageError, match="a role and its password"):
        store.admit_worker(address)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a';--", 'a"b', "ö"])
def test_a_name_that_is_no_role_is_refused(store: Store, name: str) -> None:
    """Nothing of a name can be SQL."""
    with pytest.raises(UsageError, match="name of a role"):
        store.role_statements(worker=name, reader=READER_ROLE, dashboard=DASHBOARD_ROLE)


def test_sqlite_has_no_roles(tmp_path: Path) -> None:
    """The command says so; the doctor has nothing to say."""
    with closing(open_store(f"sqlite:///{tmp_path / 'evertoken.db'}")) as store:
        with pytest.raises(UsageError, match="SQLite has no roles"):
            store.role_statements(worker=WORKER_ROLE, reader=READER_ROLE, dashboard=DASHBOARD_ROLE)
        assert store.rights() is None


def test_rights_are_given_in_the_schema_of_the_tables(store_url: str) -> None:
    """The schema of a namespace or of the address comes before the rights, in what psql runs."""
    for url, namespace in ((store_url, "shop"), (f"{store_url}?schema=shop", None)):
        with closing(open_store(url, namespace=namespace)) as store:
            statements = store.role_statements(worker=WORKER_ROLE, reader=READER_ROLE, dashboard=DASHBOARD_ROLE)

        assert statements.index('SET search_path TO "shop"') < min(
            place for place, statement in enumerate(statements) if " ON " in statement
        )
