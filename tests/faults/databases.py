"""Faults of the database itself: a writer that keeps its lock, a server that is read-only, a row that is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from tests.faults.aging import run_sql
from worker.store import Store

LOCK_SECONDS = 1
LOCK_TRIES = 30


@contextmanager
def writes_held(url: str) -> Iterator[None]:
    """Hold a lock that lets no other transaction write, until the block ends.

    If the lock is not granted at once it is requested again: others wait behind it, so it must not wait long.
    """
    if url.startswith("sqlite"):
        with_lock = sqlite3.connect(
            url.removeprefix("sqlite:///"), timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _insist(sqlite3.OperationalError, lambda: with_lock.execute("BEGIN IMMEDIATE"))
            yield
            with_lock.execute("ROLLBACK")
        finally:
            with_lock.close()
        return
    with psycopg.connect(url) as connection:

        def lock() -> None:
            connection.rollback()
            connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'".encode())
            connection.execute("LOCK TABLE grants, pairs, attempts IN SHARE ROW EXCLUSIVE MODE")

        _insist(psycopg.errors.LockNotAvailable, lock)
        yield
        connection.rollback()


def _insist(refusal: type[Exception], take: Callable[[], object]) -> None:
    for _ in range(LOCK_TRIES - 1):
        try:
            take()
        except refusal:
            continue
        return
    take()


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Let a whole PostgreSQL server be read-only, as a standby is, until the block ends."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")


def refuse_pairs(store: Store, grant_id: int) -> None:
    """Let the database refuse to store a pair of one grant."""
    if store.kind == "sqlite":
        run_sql(
            store,
            f"CREATE TRIGGER refuse BEFORE INSERT ON pairs WHEN NEW.grant_id = {int(grant_id)}"
            " BEGIN SELECT RAISE(ABORT, 'refused by a test'); END",
        )
    else:
        run_sql(
            store,
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''refused by a test''; END'",
            f"CREATE TRIGGER refuse BEFORE INSERT ON pairs FOR EACH ROW WHEN (NEW.grant_id = {int(grant_id)})"
            " EXECUTE FUNCTION refuse()",
        )


def take_pairs(store: Store) -> None:
    """Let the database take every pair again."""
    if store.kind == "sqlite":
        run_sql(store, "DROP TRIGGER IF EXISTS refuse")
    else:
        run_sql(store, "DROP TRIGGER IF EXISTS refuse ON pairs", "DROP FUNCTION IF EXISTS refuse")
