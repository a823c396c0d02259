"""The schema: migrations and models are one, and an upgrade is safe to run by everybody at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from worker.errors import StoreUnavailableError
from worker.store import open_store
from worker.store.models import METADATA


def test_an_empty_database_is_upgraded_to_what_the_code_wants(empty_database_url: str) -> None:
    """Before, the state says that it is behind; afterwards, that nothing is left to do."""
    store = open_store(empty_database_url)

    before = store.schema_state()
    store.upgrade()

    assert (before.at, before.current) == (None, False)
    assert store.schema_state().current
    assert store.grants() == []
    store.close()


def test_a_database_that_is_behind_says_so_and_refuses_work(empty_database_url: str) -> None:
    """A worker that starts before the upgrade gets one clear kind of error."""
    store = open_store(empty_database_url)

    with pytest.raises(StoreUnavailableError):
        store.due(10)
    assert not store.schema_state().current
    store.close()


def test_models_and_migrations_are_one_schema(store_url: str) -> None:
    """Alembic finds nothing to add to a migrated database, defaults, types and indexes included."""
    store = open_store(store_url)

    def compare(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    assert store.transact(compare, writes=False) == []
    store.close()


def test_nobody_makes_an_empty_database_by_looking_for_one(tmp_path: Path) -> None:
    """A wrong address, or a wrong folder, is told; only an upgrade makes the file."""
    path = tmp_path / "elsewhere" / "evertoken.db"
    store = open_store(f"sqlite:///{path}")

    assert not store.schema_state().current
    with pytest.raises(StoreUnavailableError, match=r"there is no file .*evertoken\.db.* db upgrade"):
        store.ping()
    assert not path.parent.exists()
    assert store.upgrade().current
    assert store.ping()
    store.close()


def test_checks_and_partial_indexes_are_those_of_the_models(store_url: str, empty_database_url: str) -> None:
    """What Alembic does not compare is compared by name and text: a schema made from the models is the same."""
    migrated, modelled = open_store(store_url), open_store(empty_database_url)
    modelled.make_file()
    modelled.transact(METADATA.create_all, writes=True)

    def read(connection: Connection) -> dict[str, list[str]]:
        looker = inspect(connection)
        details = (
            looker.get_check_constraints,
            looker.get_indexes,
            looker.get_foreign_keys,
            looker.get_unique_constraints,
        )
        return {table: sorted(_plain(row) for look in details for row in look(table)) for table in METADATA.tables}

    ours = migrated.transact(read, writes=False)
    assert ours == modelled.transact(read, writes=False)
    assert any("failures = 0" in detail for detail in ours["grants"])
    assert any("outcome_known" in detail for detail in ours["attempts"])
    for store in (migrated, modelled):
        store.close()


def test_processes_that_upgrade_at_once_wait_for_each_other(empty_database_url: str) -> None:
    """A whole deployment may start on an empty database."""
    stores = [open_store(empty_database_url) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda store: store.upgrade(), stores))

    assert [state.current for state in states] == [True] * 4
    for store in stores:
        store.close()


def test_time_is_the_databases_own(store_url: str) -> None:
    """Two readings never go backwards, and carry their zone."""
    store = open_store(store_url)

    first, second = store.ping(), store.now()

    assert first <= second
    assert first.utcoffset() is not None
    store.close()


def _plain(value: object) -> str:
    """Return a reflected detail as text, with SQL fragments written out."""
    if isinstance(value, dict):
        return str({key: _plain(part) for key, part in sorted(value.items())})
    return str(value)
