"""The schema: migrations and models are one, and an upgrade is safe to run by everybody at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from worker.errors import NotReadyError, StoreUnavailableError
from worker.store import SchemaFit, Store, open_store
from worker.store.models import METADATA
from worker.store.schema import LAST_OF_FIRST, MIGRATIONS, VERSIONS, chain

RETIRED: Final = {("workers", "journal_replayed_at")}
"""Columns that nothing uses now. The version before reads them, so a migration of a later release drops them."""
POSTGRESQL = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


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
    """Alembic finds nothing to change in a migrated database, types and indexes included, but what retires."""
    store = open_store(store_url)

    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True, "compare_server_default": True, "version_table": VERSIONS.name}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    found = store.transact(compare, writes=False)
    assert [change[0] for change in found] == ["remove_column"] * len(RETIRED)
    assert {(change[2], change[3].name) for change in found} == RETIRED
    store.close()


def test_nobody_makes_an_empty_database_by_looking_for_one(tmp_path: Path) -> None:
    """A wrong address, or a wrong folder, is an error; only an upgrade makes the file."""
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


def test_every_migration_says_whose_code_still_runs_on_its_tables() -> None:
    """It names a revision that is not newer than itself, so that an older version can look it up."""
    revisions = list(chain())
    files = sorted(path for path in (MIGRATIONS / "versions").glob("v*.py"))
    silent = [path.name for path in files if "\ncompatible_from = " not in path.read_text(encoding="utf-8")]

    for at, (revision, compatible_from) in enumerate(chain().items()):
        assert compatible_from in revisions[: at + 1], revision
    assert silent == []


@pytest.mark.as_owner
def test_tables_of_a_newer_version_that_this_one_runs_with_stay_as_they_are(store: Store) -> None:
    """Going back a version needs no step: an upgrade by the older one finds nothing to do."""
    _write(store, "UPDATE evertoken_schema SET version_num = '9999'")

    state = store.upgrade()

    assert (state.at, state.fit, state.runs, state.current) == ("9999", SchemaFit.NEWER, True, False)
    assert store.schema_state() == state
    assert "this version runs with it" in str(state)


@pytest.mark.as_owner
@pytest.mark.parametrize("compatible_from", ["9998", None])
def test_tables_that_this_version_does_not_run_with_are_refused_and_left_alone(
    store: Store, compatible_from: str | None
) -> None:
    """The sentence names both migrations and says what to do."""
    _write(store, "UPDATE evertoken_schema SET version_num = '9999', compatible_from = :oldest", oldest=compatible_from)

    assert store.schema_state().fit is SchemaFit.TOO_NEW
    assert not store.schema_state().runs
    with pytest.raises(NotReadyError, match=r"at 9999, .*: install the newer version again, or restore the backup"):
        store.upgrade()
    assert _read(store, "SELECT version_num FROM evertoken_schema") == ["9999"]


def test_an_upgrade_records_what_the_strictest_migration_asks_of_older_code(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One strict migration among lenient ones counts until it is an old one for everybody."""
    asked = dict(zip(chain(), ["0001", "0002", *["0001"] * len(chain())], strict=False))
    monkeypatch.setattr("worker.store.schema.chain", lambda: asked)
    store = open_store(empty_database_url)

    store.upgrade()

    assert _read(store, "SELECT compatible_from FROM evertoken_schema") == ["0002"]
    store.close()


def test_another_applications_table_of_revisions_is_neither_read_nor_touched(empty_database_url: str) -> None:
    """Its revision may even be called as one of ours."""
    store = open_store(empty_database_url)
    store.make_file()
    _write(store, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    _write(store, "INSERT INTO alembic_version VALUES ('0003')")

    assert store.schema_state().at is None
    assert store.upgrade().current
    _write(store, "UPDATE alembic_version SET version_num = 'theirs'")
    assert store.schema_state().current
    assert store.upgrade().current
    assert _read(store, "SELECT version_num FROM alembic_version") == ["theirs"]
    store.close()


def test_tables_of_another_application_by_our_names_are_named_before_anything_is_made(empty_database_url: str) -> None:
    """Whoever shares a database gets a sentence that says what to do about it."""
    store = open_store(empty_database_url)
    store.make_file()
    _write(store, "CREATE TABLE notices (words TEXT)")

    with pytest.raises(NotReadyError, match=r"tables of another application by the names notices: .*schema=NAME"):
        store.upgrade()
    assert store.schema_state().at is None
    store.close()


@pytest.mark.as_owner
def test_a_revision_that_was_kept_in_alembics_usual_table_moves_to_ours(store: Store) -> None:
    """A database of the first versions needs no step of its own, and runs before the upgrade as after it."""
    _begin_as_the_first_versions(store, newest := list(chain())[-1])

    assert store.schema_state().at == newest
    assert store.upgrade().current
    assert _read(store, "SELECT version_num FROM evertoken_schema") == [newest]


@pytest.mark.as_owner
@pytest.mark.parametrize(("asked", "runs"), [("0003", True), ("9999", False)])
def test_code_of_the_first_versions_finds_its_own_revision_only_while_it_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch, asked: str, *, runs: bool
) -> None:
    """It knows nothing of `compatible_from`, so the old table says what it must believe."""
    _begin_as_the_first_versions(store, LAST_OF_FIRST)
    monkeypatch.setattr("worker.store.schema.chain", lambda: {**chain(), "9999": asked})
    monkeypatch.setattr("alembic.command.upgrade", lambda *_: None)

    store.upgrade()

    assert (_read(store, "SELECT version_num FROM alembic_version") == [LAST_OF_FIRST]) is runs


@POSTGRESQL
def test_a_schema_of_the_address_holds_every_table(empty_database_url: str) -> None:
    """Two deployments share a database, and neither sees the other's rows or another application's tables."""
    plain = open_store(empty_database_url)
    _write(plain, "CREATE SCHEMA one", 'CREATE SCHEMA "Two-2"', "CREATE TABLE grants (words TEXT)")
    stores = [open_store(f"{empty_database_url}?schema={name}") for name in ("one", "Two-2")]

    for store in stores:
        assert store.upgrade().current
        store.raise_alarm("key", "kind", "detail")
    stores[0].raise_alarm("another", "kind", "detail")

    assert [store.undelivered_count() for store in stores] == [2, 1]
    assert _read(plain, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == ["grants"]
    for store in (*stores, plain):
        store.close()


@POSTGRESQL
def test_a_schema_that_is_not_there_is_named(empty_database_url: str) -> None:
    """An upgrade makes no schema: a mistyped name would be a second, empty deployment."""
    store = open_store(f"{empty_database_url}?schema=mistyped")

    with pytest.raises(NotReadyError, match="no schema mistyped"):
        store.upgrade()
    store.close()


def test_time_is_the_databases_own(store_url: str) -> None:
    """Two readings never go backwards, and carry their zone."""
    store = open_store(store_url)

    first, second = store.ping(), store.ping()

    assert first <= second
    assert first.utcoffset() is not None
    store.close()


def _plain(value: object) -> str:
    """Return a reflected detail as text, with SQL fragments written out."""
    if isinstance(value, dict):
        return str({key: _plain(part) for key, part in sorted(value.items())})
    return str(value)


def _write(store: Store, *statements: str, **values: str | None) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement), values)

    store.transact(work, writes=True)


def _read(store: Store, statement: str) -> list[object]:
    return store.transact(lambda connection: list(connection.execute(text(statement)).scalars()), writes=False)


def _begin_as_the_first_versions(store: Store, revision: str) -> None:
    _write(
        store,
        "DROP TABLE evertoken_schema",
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES (:revision)",
        revision=revision,
    )
