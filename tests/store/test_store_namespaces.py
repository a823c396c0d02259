"""Several installations in one PostgreSQL database: each has a schema, which an upgrade makes if it may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.conftest import ServerProcess
from tests.support.pooler import start_pooler
from worker.errors import NotReadyError, StoreRefusedError
from worker.store import Store, open_store

POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@pytest.fixture
def opened() -> Iterator[Callable[..., Store]]:
    """Opens stores that are closed with the test."""
    with ExitStack() as stack:

        def make(url: str, namespace: str | None = None) -> Store:
            store = open_store(url, namespace=namespace)
            stack.callback(store.close)
            return store

        yield make


def tables(url: str) -> dict[str, set[str]]:
    """Return the tables of each schema that is not PostgreSQL's own."""
    found: dict[str, set[str]] = {}
    with psycopg.connect(url) as connection:
        for schema, name in connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ):
            found.setdefault(schema, set()).add(name)
    return found


@POSTGRESQL
def test_an_upgrade_makes_the_schema_of_a_namespace_and_puts_everything_into_it(
    empty_database_url: str, opened: Callable[..., Store]
) -> None:
    """Two namespaces and an installation without one share a database; a row of one is none of the others'."""
    stores = [opened(empty_database_url, name) for name in ("one", "two", None)]

    for number, store in enumerate(stores):
        assert store.upgrade().current
        assert store.upgrade().current
        for alarm in range(number + 1):
            store.raise_alarm(f"key {alarm}", "kind", "detail")

    assert [store.undelivered_count() for store in stores] == [1, 2, 3]
    found = tables(empty_database_url)
    assert found.keys() == {"one", "two", "public"}
    assert found["one"] == found["two"] == found["public"]
    assert {"evertoken_schema", "grants"} <= found["one"]


@POSTGRESQL
def test_a_schema_that_may_not_be_made_or_filled_names_the_statement(
    empty_database_url: str, opened: Callable[..., Store]
) -> None:
    """Each statement that the text names is run by the owner, and then the upgrade goes on."""
    with psycopg.connect(empty_database_url, autocommit=True) as owner:
        owner.execute('DROP ROLE IF EXISTS "Lesser user"')
        owner.execute('CREATE ROLE "Lesser user" LOGIN')
        lesser = re.sub(r"//.*?@", "//Lesser%20user@", empty_database_url)
        try:
            for name, make in (("one", ""), ("two", "CREATE SCHEMA two")):
                if make:
                    owner.execute(make.encode())
                store = opened(lesser, name)
                with pytest.raises(NotReadyError, match=f"the schema {name}|no schema {name}") as refused:
                    store.upgrade()
                (statement,) = re.findall("`(.*)`", str(refused.value))
                owner.execute(statement.encode())
                assert store.upgrade().current
        finally:
            owner.execute('DROP SCHEMA IF EXISTS one, two CASCADE; DROP ROLE "Lesser user"')


@POSTGRESQL
def test_a_schema_in_the_address_goes_before_the_namespace(
    empty_database_url: str, opened: Callable[..., Store]
) -> None:
    """So an installation gets a namespace in Redis and leaves its tables where they are."""
    plain = opened(empty_database_url)
    plain.upgrade()
    plain.raise_alarm("key", "kind", "detail")

    moved = opened(f"{empty_database_url}?schema=public", "one")

    assert moved.schema_state().current
    assert moved.undelivered_count() == 1
    with pytest.raises(NotReadyError, match="no schema mistyped"):
        opened(f"{empty_database_url}?schema=mistyped", "one").upgrade()


@POSTGRESQL
def test_a_process_with_a_mistyped_namespace_finds_no_tables_and_says_so(
    empty_database_url: str, opened: Callable[..., Store]
) -> None:
    """It does not fall back to the tables of an installation without a namespace."""
    opened(empty_database_url).upgrade()
    mistyped = opened(empty_database_url, "mistyped")

    assert mistyped.schema_state().at is None
    with pytest.raises(StoreRefusedError, match="EVERTOKEN_NAMESPACE"):
        mistyped.undelivered_count()


@POSTGRESQL
@pytest.mark.slow_suite
def test_namespaces_stay_apart_behind_a_pooler(
    empty_database_url: str, postgres_server: ServerProcess, opened: Callable[..., Store]
) -> None:
    """Transactions of both take turns on one server connection, which keeps no schema between them."""
    with start_pooler(postgres_server, default_pool_size="1") as pooler:
        url = re.sub(r":\d+/", f":{pooler.port}/", empty_database_url)
        one, two = opened(url, "one"), opened(url, "two")
        for store in (one, two):
            store.upgrade()
        for number in range(20):
            one.raise_alarm(f"key {number}", "kind", "detail")
            assert two.undelivered_count() == 0
        assert one.undelivered_count() == 20


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_namespace_changes_nothing_on_sqlite(
    empty_database_url: str, opened: Callable[..., Store], tmp_path: Path
) -> None:
    """A file of its own holds one installation."""
    assert opened(empty_database_url, "one").upgrade().current
    assert opened(empty_database_url).schema_state().current
    assert (tmp_path / "empty.db").exists()
