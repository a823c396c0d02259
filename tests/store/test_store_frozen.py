"""A PostgreSQL whose processes stand still: its kernel keeps the connections alive, and no timeout of its own runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from sqlalchemy import Connection, text

from tests.conftest import FAST_POSTGRES, ServerProcess, start_postgres
from worker.errors import StoreUnavailableError
from worker.store import Store, engine, open_store
from worker.store.outbox import insert_notice
from worker.store.schema import UPGRADE_LOCK

STATEMENT_SECONDS = 0.5
GRACE_SECONDS = 0.5
LONGEST_SECONDS = 8.0
"""A statement's limit, the grace and the limit of a new connection, with room for a busy machine."""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long."""
    monkeypatch.setattr(engine, "GRACE_SECONDS", GRACE_SECONDS)
    monkeypatch.setitem(engine.CONNECTING, "connect_timeout", 2)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A PostgreSQL of these tests' own, which no pooler stands before."""
    with start_postgres(*FAST_POSTGRES) as started:
        yield started


@pytest.fixture
def held(server: ServerProcess) -> Iterator[Store]:
    """A store with one connection in its pool."""
    with closing(open_store(server.url, pool_size=1, statement_seconds=STATEMENT_SECONDS)) as store:
        store.upgrade()
        yield store
        for notice in store.undelivered_notices():
            store.delivery_accepted(notice.notice_id, "ops")


def processes(server: ServerProcess) -> list[int]:
    """Return the server's own process and those that serve connections."""
    with psycopg.connect(server.url) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()").fetchall()
    return [server.pid, *(int(pid) for (pid,) in rows)]


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Let processes stand still until the block ends."""
    with ExitStack() as going_on:
        for pid in pids:
            going_on.callback(os.kill, pid, signal.SIGCONT)
            os.kill(pid, signal.SIGSTOP)
        yield


def backend_of(store: Store) -> int:
    """Return the server process behind the store's one connection."""
    return int(store.transact(lambda connection: connection.scalar(text("SELECT pg_backend_pid()")) or 0, writes=False))


def test_a_server_that_stands_still_is_away_and_comes_back(server: ServerProcess, held: Store) -> None:
    """A thread of a worker hangs no longer than a statement, its grace and a new connection may take."""
    reported: list[str] = []
    held.outages.watch(on_away=reported.append, on_back=lambda _: reported.append("back"))
    with stopped(*processes(server)):
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(StoreUnavailableError, match="the database is not available: "):
                held.ping()
            assert time.monotonic() - began < LONGEST_SECONDS
        assert held.outages.seconds() > 0
    held.ping()

    assert len(reported) == 2
    assert reported[1] == "back"


def test_one_server_process_that_stands_still_costs_one_connection(held: Store) -> None:
    """The others live, so the transaction goes on over a new connection and nobody hears of it."""
    with stopped(backend_of(held)):
        held.ping()


@pytest.mark.parametrize("moment", ["statement", "commit"])
def test_a_server_that_stops_amid_a_transaction_leaves_nothing_half_done(held: Store, moment: str) -> None:
    """Two rows of one transaction: after a commit that was sent both are there or neither, and before it neither."""
    backend = backend_of(held)
    with ExitStack() as standing:

        def work(connection: Connection) -> None:
            insert_notice(connection, "one", "kind", "detail")
            insert_notice(connection, "two", "kind", "detail")
            standing.enter_context(stopped(backend))
            if moment == "statement":
                connection.execute(text("SELECT 1"))

        with pytest.raises(StoreUnavailableError, match="did not answer within 1 s"):
            held.transact(work, writes=True)
        assert held.undelivered_count() == 0, "meanwhile another connection goes on"
    assert held.undelivered_count() in ({0} if moment == "statement" else {0, 2})


def test_an_upgrade_waits_for_as_long_as_it_takes(
    server: ServerProcess, held: Store, wait_until: Callable[..., None]
) -> None:
    """A migration may take longer than any statement of a worker, and waits for another process's migration."""
    with psycopg.connect(server.url, autocommit=True) as other, ThreadPoolExecutor() as pool:
        other.execute("SELECT pg_advisory_lock(%s)", [UPGRADE_LOCK])
        began = time.monotonic()
        upgrade = pool.submit(held.upgrade)
        wait_until(lambda: time.monotonic() > began + STATEMENT_SECONDS + 2 * GRACE_SECONDS)
        assert not upgrade.done()
        other.execute("SELECT pg_advisory_unlock(%s)", [UPGRADE_LOCK])

        assert upgrade.result().current
    held.ping()
    with stopped(backend_of(held)):
        held.ping()
