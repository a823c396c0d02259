"""An outage of the database is reported once when it begins and once when it has ended, and a refusal is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import Connection, text

from tests.faults.databases import read_only
from tests.faults.proxy import Proxy
from worker.errors import StoreRefusedError, StoreUnavailableError
from worker.store import Store, open_store
from worker.store.engine import Outages

if TYPE_CHECKING:
    from tests.conftest import ServerProcess

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


def _run(statement: str, value: object) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(text(statement), {"value": value})


class Calls:
    """What was reported, in order."""

    def __init__(self, outages: Outages) -> None:
        self.lines: list[str] = []
        self.seconds: list[float] = []
        outages.watch(on_away=self.lines.append, on_back=self._back)

    def _back(self, seconds: float) -> None:
        self.lines.append("back")
        self.seconds.append(seconds)


@pytest.fixture
def proxy(postgres_server: ServerProcess, store_url: str) -> Iterator[Proxy]:
    """A way to the test's PostgreSQL that can be cut."""
    with Proxy(store_url) as way:
        yield way


@POSTGRESQL
def test_a_server_that_is_away_is_reported_once_and_once_when_it_is_back(proxy: Proxy, database_kind: str) -> None:
    """However many statements fail in between, of whichever kind."""
    with closing(open_store(proxy.url)) as store:
        calls = Calls(store.outages)
        store.ping()
        proxy.down()
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                store.ping()
            with pytest.raises(StoreUnavailableError):
                store.raise_alarm("key", "kind", "detail")
        assert store.outages.seconds() > 0
        proxy.up()
        store.raise_alarm("key", "kind", "detail")
        store.ping()

        assert [line.startswith("the database is not available: ") for line in calls.lines] == [True, False]
        assert calls.lines[-1] == "back"
        assert calls.seconds[0] > 0
        assert store.outages.seconds() == 0


@SQLITE
def test_a_file_that_is_taken_away_is_an_outage_even_for_open_connections(store: Store, tmp_path: Path) -> None:
    """Open connections would go on writing into a file that nobody ever finds again."""
    calls = Calls(store.outages)
    store.ping()
    file, aside = tmp_path / "evertoken.db", tmp_path / "aside.db"
    file.rename(aside)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="there is no file"):
            store.raise_alarm("key", "kind", "detail")
    aside.rename(file)
    store.raise_alarm("key", "kind", "detail")

    assert len(calls.lines) == 2
    assert calls.lines[-1] == "back"


def test_a_database_that_takes_no_writes_is_away_until_one_is_taken(
    new_postgres: Callable[..., ServerProcess],
) -> None:
    """Reads that go on succeeding do not end the outage."""
    server = new_postgres()
    with closing(open_store(server.url)) as store:
        store.upgrade()
        calls = Calls(store.outages)
        with read_only(server.url):
            store.close()
            with pytest.raises(StoreUnavailableError, match="takes no writes"):
                store.raise_alarm("key", "kind", "detail")
            store.ping()
            assert store.outages.seconds() > 0
        store.close()
        store.raise_alarm("key", "kind", "detail")

    assert len(calls.lines) == 2


def test_a_refused_statement_is_no_outage(store: Store) -> None:
    """The caller gets one sentence on a missing table, an unfit number and an odd text, and no outage is reported."""
    calls = Calls(store.outages)
    for statement, value in (
        ("SELECT * FROM nowhere WHERE 0 = :value", 0),
        ("INSERT INTO notices (id) VALUES (:value)", 1),
        ("SELECT CAST(:value AS BIGINT)", "\udcff"),
        ("SELECT CAST(:value AS BIGINT)", 2**70),
    ):
        with pytest.raises(StoreRefusedError) as caught:
            store.transact(_run(statement, value), writes=True)
        assert "not available" not in str(caught.value)

    assert calls.lines == []
    assert store.outages.seconds() == 0


def test_a_missing_table_says_which_and_what_to_do(empty_database_url: str) -> None:
    """An address with a slip in its last part reaches another database, which lacks our tables."""
    with closing(open_store(empty_database_url)) as store:
        store.make_file()
        with pytest.raises(StoreRefusedError) as caught:
            store.fleet_status()

    assert "grants" in str(caught.value)
    assert "`celery -A worker db upgrade`" in str(caught.value)
    assert "EVERTOKEN_DATABASE_URL" in str(caught.value)


@pytest.mark.as_owner
@POSTGRESQL
def test_a_missing_right_names_the_table_and_the_user_to_help(
    store: Store, store_url: str, postgres_server: ServerProcess, database_kind: str
) -> None:
    """A role that may read tokens may not write a notice."""
    with psycopg.connect(store_url, autocommit=True) as owner:
        owner.execute("DROP ROLE IF EXISTS looker")
        owner.execute("CREATE ROLE looker LOGIN")
        owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker")
    with closing(open_store(store_url.replace("postgres@", "looker@"))) as looker:
        looker.fleet_status()
        with pytest.raises(StoreRefusedError, match=r"lacks a right.*permission denied for table notices"):
            looker.raise_alarm("key", "kind", "detail")
    with psycopg.connect(store_url, autocommit=True) as owner:
        owner.execute("DROP OWNED BY looker")
        owner.execute("DROP ROLE looker")


def test_a_name_that_the_server_does_not_know_points_to_the_setting(postgres_server: ServerProcess) -> None:
    """The server's own words, without the driver's, and where to look."""
    url = postgres_server.url.removesuffix("postgres") + "no_such_name"
    with closing(open_store(url)) as store, pytest.raises(StoreUnavailableError) as caught:
        store.ping()

    assert 'database "no_such_name" does not exist; look at EVERTOKEN_DATABASE_URL' in str(caught.value)


def test_a_file_that_is_no_database_points_to_the_setting(tmp_path: Path) -> None:
    """SQLite's own message does not say where to look."""
    (tmp_path / "notes.txt").write_text("not a database at all, but a text of some length\n" * 30)
    store = open_store(f"sqlite:///{tmp_path / 'notes.txt'}")
    with closing(store), pytest.raises(StoreUnavailableError, match="a file of another kind"):
        store.ping()


def test_a_statement_that_began_before_the_last_success_begins_no_outage() -> None:
    """Threads that waited in vain for a connection fail after the database is back."""
    clock = [10.0]
    outages = Outages(monotonic=lambda: clock[0])
    calls = Calls(outages)
    outages.failed("away", writes=False, began=10.0)
    clock[0] = 15.0
    outages.succeeded(writes=False)
    outages.failed("away", writes=False, began=11.0)

    assert calls.lines == ["away", "back"]
    assert calls.seconds == [5.0]
