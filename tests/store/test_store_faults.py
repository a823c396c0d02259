"""A database that is away, slow or contended: one kind of error, no secret in it, and nothing half done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from tests.conftest import APP_ID
from tests.support.claims import claim_one, save_one
from worker.errors import ConfigurationError, StoreUnavailableError
from worker.store import Store, open_store

if TYPE_CHECKING:
    from tests.conftest import ServerProcess
    from tests.store.conftest import Fleet

SECRET = "s3cr3t-of-the-database"
POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def _everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__) + repr(error.__cause__)


def _with_password(url: str) -> str:
    return url.replace("postgres@", f"postgres:{SECRET}@")


def test_a_database_that_is_away_is_one_kind_of_error_without_the_password(free_port: int) -> None:
    """Nothing of the address's secret is in the text, the repr or the chain of causes."""
    store = open_store(f"postgresql://worker:{SECRET}@127.0.0.1:{free_port}/evertoken")

    with pytest.raises(StoreUnavailableError, match="not available") as caught:
        store.ping()

    assert SECRET not in _everything(caught.value)
    assert SECRET not in repr(store)
    assert caught.value.__context__ is None


def test_an_address_that_cannot_be_read_is_refused_without_being_shown() -> None:
    """A slip in the settings does not print the password."""
    for url in (
        f"mysql://worker:{SECRET}@host/name",
        f"{SECRET}",
        "sqlite://",
        f"postgresql://w:{SECRET}@host:no/name",
        f"postgresql://w:p@host/name?sslmode=require&{SECRET}",
    ):
        with pytest.raises(ConfigurationError) as caught:
            open_store(url)
        assert SECRET not in _everything(caught.value)


def test_a_folder_that_cannot_be_made_is_the_same_kind_of_error(tmp_path: Path) -> None:
    """A SQLite path below a file says so, as a database that is not available."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreUnavailableError):
        open_store(f"sqlite:///{tmp_path / 'file' / 'evertoken.db'}").ping()


@SQLITE
def test_the_sqlite_file_and_its_side_files_are_for_their_owner_alone(fleet: Fleet, empty_database_url: str) -> None:
    """Sealed or not, tokens are nobody else's business."""
    store = open_store(empty_database_url)
    store.upgrade()
    path = Path(empty_database_url.removeprefix("sqlite:///"))

    modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob(path.name + "*")}

    assert modes == {0o600}
    store.close()


@SQLITE
def test_sqlite_is_durable_and_checks_its_references(fleet: Fleet) -> None:
    """Write-ahead log, full synchronisation and foreign keys are on for every connection."""
    pragmas = [fleet.sql(f"PRAGMA {name}")[0][0] for name in ("journal_mode", "synchronous", "foreign_keys")]

    assert pragmas == ["wal", 2, 1]


@POSTGRESQL
def test_postgresql_is_durable_and_bounded_in_time(fleet: Fleet) -> None:
    """Commits wait for the disk, statements and locks end."""
    names = ("synchronous_commit", "statement_timeout", "lock_timeout", "transaction_isolation")

    assert [fleet.sql(f"SHOW {name}")[0][0] for name in names] == ["on", "10s", "5s", "read committed"]


@pytest.mark.as_owner
@POSTGRESQL
def test_what_a_transaction_needs_lasts_for_that_transaction(store_url: str) -> None:
    """A pooler hands the connection to other clients: they get nothing of ours, and we get nothing of theirs."""
    names = ("statement_timeout", "lock_timeout", "synchronous_commit", "search_path", "role")
    store = open_store(store_url, pool_size=1)
    usual = _on_the_connection_of(store, *(f"SHOW {name}" for name in names))

    def look(connection: Connection) -> list[str]:
        return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

    ours = store.transact(look, writes=True)
    left = _on_the_connection_of(store, *(f"SHOW {name}" for name in names))
    _on_the_connection_of(
        store,
        "SET statement_timeout = 1", "SET lock_timeout = 0", "SET synchronous_commit = off",
        "SET search_path = pg_catalog", "SET ROLE pg_monitor",
    )  # fmt: skip

    assert ours == ["10s", "5s", "on", '"$user", public', "none"]
    assert left == usual
    assert usual[:2] == ["0", "0"]
    assert store.transact(look, writes=True) == ours
    assert store.raise_alarm("key", "kind", "detail")
    store.close()


@POSTGRESQL
def test_no_statement_is_prepared_by_name(store_url: str) -> None:
    """Behind a pooler a name may be another client's, and then its statement runs in place of ours."""
    store = open_store(store_url, pool_size=1)
    for number in range(20):
        store.raise_alarm(f"key {number}", "kind", "detail")
        store.undelivered_notices(3)

    assert _on_the_connection_of(store, "SELECT count(*) FROM pg_prepared_statements") == [0]
    store.close()


@POSTGRESQL
def test_connections_that_ended_while_nobody_used_them_fail_nothing(store_url: str) -> None:
    """The next transaction finds a new one, and what it does is done once."""
    store = open_store(store_url, pool_size=2)
    ran = []
    store.transact(lambda _: store.ping(), writes=False)
    with psycopg.connect(store_url, autocommit=True) as other:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert other.execute(f"SELECT count(pg_terminate_backend(pid, 5000)) {others}".encode()).fetchone() == (2,)

    store.transact(lambda connection: ran.append(connection.exec_driver_sql("SELECT 1").scalar_one()), writes=True)

    assert ran == [1]
    store.close()


@SQLITE
def test_a_writer_that_keeps_its_lock_too_long_is_a_database_not_available(store_url: str) -> None:
    """Waiting ends after the statement's time; afterwards all is well."""
    store = open_store(store_url, statement_seconds=0.2)
    blocker = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailableError, match="locked"):
        store.raise_alarm("key", "kind", "detail")
    assert store.brake().stopped is False

    blocker.execute("ROLLBACK")
    blocker.close()
    assert store.raise_alarm("key", "kind", "detail")
    store.close()


@SQLITE
def test_a_writing_method_takes_the_write_lock_before_it_reads(store_url: str) -> None:
    """What it has read cannot be changed by another before it writes."""
    store = open_store(store_url)
    other = sqlite3.connect(store_url.removeprefix("sqlite:///"), isolation_level=None, timeout=0)

    def read(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT count(*) FROM grants")
        other.execute("BEGIN IMMEDIATE")

    with pytest.raises(sqlite3.OperationalError, match="locked"):
        store.transact(read, writes=True)
    store.transact(read, writes=False)

    other.close()
    store.close()


def test_only_what_may_succeed_is_tried_again(store: Store) -> None:
    """A statement that the database refuses is refused once, and its values stay in no frame of the traceback."""
    tries = []

    def refused(connection: Connection) -> None:
        tries.append(1)
        connection.execute(text("INSERT INTO sentinels (key_id, sealed) VALUES (:key, NULL)"), {"key": 7})

    with pytest.raises(StoreUnavailableError) as caught:
        store.transact(refused, writes=True)

    assert len(tries) == 1
    held = [value for frame, _ in traceback.walk_tb(caught.tb) for value in frame.f_locals.values()]
    assert not [value for value in held if isinstance(value, SQLAlchemyError)]


@POSTGRESQL
def test_a_row_that_is_held_for_a_moment_delays_and_fails_nothing(fleet: Fleet, store_url: str) -> None:
    """A lock timeout is met by trying the whole method again."""
    claim = fleet.claim(fleet.add().grant_id)
    store = open_store(store_url, statement_seconds=3, app_id=APP_ID)
    holder = psycopg.connect(store_url)
    holder.execute("SELECT 1 FROM grants FOR UPDATE")
    release = threading.Timer(2.0, holder.rollback)
    release.start()

    saved = save_one(store, claim, fleet.pair("patient"))

    release.join()
    holder.close()
    assert saved.moved
    store.close()


@pytest.mark.as_owner
@POSTGRESQL
def test_a_statement_that_takes_too_long_is_ended_by_the_server(fleet: Fleet, store_url: str) -> None:
    """A trigger that sleeps is cut off, and the claim it belonged to has not happened."""
    grant = fleet.add()
    fleet.sql(
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NEW; END'"
    )
    fleet.sql("CREATE TRIGGER doze BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION doze()")
    store = open_store(store_url, statement_seconds=0.3, app_id=APP_ID)

    with pytest.raises(StoreUnavailableError, match="57014"):
        claim_one(store, grant.grant_id, owner="a", lease_seconds=60)

    assert fleet.store.grant("ada").generation == 1
    store.close()


@pytest.mark.as_owner
@POSTGRESQL
def test_a_deadlock_is_tried_again_from_the_top(fleet: Fleet, store_url: str) -> None:
    """Two batches that lock the same rows crosswise both succeed."""
    grants = [fleet.add("ada"), fleet.add("bob")]
    other = psycopg.connect(store_url)
    other.execute("SET deadlock_timeout = '10s'")
    other.execute("SELECT 1 FROM grants WHERE creator_id = 'bob' FOR UPDATE")
    crossing = threading.Thread(
        target=lambda: other.execute("SELECT 1 FROM grants WHERE creator_id = 'ada' FOR UPDATE")
    )

    def cross(connection: Any) -> int:
        connection.exec_driver_sql("SELECT 1 FROM grants WHERE creator_id = 'ada' FOR UPDATE")
        if not crossing.ident:
            crossing.start()
        connection.exec_driver_sql("SELECT 1 FROM grants WHERE creator_id = 'bob' FOR UPDATE")
        return len(grants)

    release = threading.Timer(1.7, other.rollback)
    release.start()
    assert fleet.store.transact(cross, writes=True) == 2
    release.join()
    crossing.join()
    other.close()


@pytest.mark.as_owner
@POSTGRESQL
def test_a_read_only_database_takes_no_claim(fleet: Fleet, store_url: str) -> None:
    """After a failover to a standby nothing is sent, because nothing can be claimed."""
    grant = fleet.add()
    fleet.sql(f"ALTER DATABASE {store_url.rpartition('/')[2]} SET default_transaction_read_only = on")
    store = open_store(store_url, app_id=APP_ID)

    with pytest.raises(StoreUnavailableError, match="25006"):
        claim_one(store, grant.grant_id, owner="a", lease_seconds=60)

    assert store.grant("ada").generation == 1
    store.close()


def test_a_killed_server_is_not_available_and_its_heir_is_found_again(
    new_postgres: Callable[..., ServerProcess], wait_until: Callable[..., None]
) -> None:
    """Connections that died with the server are replaced without anybody's doing."""
    server = new_postgres("restart_after_crash=on")
    store = open_store(_with_password(server.url), statement_seconds=2)
    store.upgrade()
    backend = store.transact(lambda link: link.exec_driver_sql("SELECT pg_backend_pid()").scalar_one(), writes=False)

    os.kill(backend, signal.SIGKILL)

    def answers() -> bool:
        try:
            return store.ping() is not None
        except StoreUnavailableError:
            return False

    wait_until(answers, 20)
    store.close()


def test_all_connections_in_use_is_an_error_that_says_so(store_url: str) -> None:
    """A pool that is too small is distinguished from a database that is away."""
    store = open_store(store_url, pool_size=1, statement_seconds=0.2)

    with pytest.raises(StoreUnavailableError, match="in use"):
        store.transact(lambda _: store.ping(), writes=False)

    store.close()


def test_values_of_a_failed_statement_are_not_in_the_error(fleet: Fleet) -> None:
    """Sealed bytes and people's data stay out of error texts, whatever the driver would print."""
    value = int("42" * 4)

    with pytest.raises(StoreUnavailableError) as caught:
        fleet.sql("INSERT INTO sentinels (key_id, sealed) VALUES (:key, NULL)", key=value)

    assert str(value) not in _everything(caught.value)


def _ping_in_child(store: Store, results: Any) -> None:
    results.put([store.raise_alarm(f"child {number}", "kind", "detail") for number in range(20)])


def test_a_store_that_was_used_before_a_fork_works_in_parent_and_child(store: Store) -> None:
    """The child opens its own connections and leaves the parent's alone."""
    store.raise_alarm("before", "kind", "detail")
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_ping_in_child, args=(store, results)) for _ in range(3)]

    for child in children:
        child.start()
    ours = [store.raise_alarm(f"parent {number}", "kind", "detail") for number in range(20)]
    theirs = [results.get(timeout=30) for _ in children]
    for child in children:
        child.join(30)

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert all(ours)
    assert sum(sum(column) for column in theirs) == 20
    assert store.undelivered_count() == 41
    results.close()
    results.join_thread()


def test_a_closed_store_opens_again_by_itself(store: Store) -> None:
    """Closing ends connections and not the store."""
    store.ping()
    store.close()

    assert store.ping()


def _on_the_connection_of(store: Store, *statements: str) -> list[Any]:
    """Run statements outside any transaction on a connection of the store, as another client of its pooler would."""
    with closing(store._engine().raw_connection()) as raw:
        link = raw.dbapi_connection
        assert isinstance(link, psycopg.Connection)
        results = [link.execute(statement.encode()) for statement in statements]
        return [row[0] for result in results if result.description and (row := result.fetchone())]
