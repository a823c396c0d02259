"""A worker and commands that start while others do the same, or while the database is not there yet."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import psycopg
import pytest

from tests.celery.test_celery_outage import events, metric, refreshes_again
from tests.faults.proxy import Proxy
from tests.support.daemon import READY_SECONDS, Daemon
from worker.sandbox.process import RunningSandbox
from worker.store import open_store
from worker.store.schema import UPGRADE_LOCK

pytestmark = pytest.mark.slow_suite


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_processes_that_upgrade_a_file_at_once_all_end_well(
    new_daemon: Callable[..., Daemon], empty_database_url: str
) -> None:
    """Three `db upgrade` without a file: each exits with 0, and the schema is the code's."""
    daemon = new_daemon(DATABASE_URL=empty_database_url)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(daemon.run, "db", "upgrade") for _ in range(3)]

    assert_upgraded(empty_database_url, [each.result() for each in done])


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_processes_that_upgrade_a_server_at_once_take_turns(
    new_daemon: Callable[..., Daemon], empty_database_url: str, wait_until: Callable[..., None]
) -> None:
    """Two `db upgrade` meet at the lock, certainly: then one migrates, and the other finds it done."""
    daemon = new_daemon(DATABASE_URL=empty_database_url)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    with psycopg.connect(empty_database_url, autocommit=True) as connection, ThreadPoolExecutor(2) as pool:
        connection.execute("SELECT pg_advisory_lock(%s)", [UPGRADE_LOCK])
        done = [pool.submit(daemon.run, "db", "upgrade") for _ in range(2)]
        try:
            wait_until(lambda: connection.execute(waiting).fetchone() == (2,), READY_SECONDS)
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s)", [UPGRADE_LOCK])

    assert_upgraded(empty_database_url, [each.result() for each in done])


def assert_upgraded(url: str, done: Sequence[subprocess.CompletedProcess[str]]) -> None:
    """Fail unless every upgrade ended with 0, and the schema is what the code needs."""
    assert [each.returncode for each in done] == [0] * len(done), [each.stderr for each in done]
    store = open_store(url)
    assert store.schema_state().current
    store.close()


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_a_worker_that_starts_without_its_database_waits_and_goes_on_by_itself(
    new_daemon: Callable[..., Daemon],
    store_url: str,
    sandbox: RunningSandbox,
    free_port: int,
    wait_until: Callable[..., None],
) -> None:
    """Each try is a line; the heartbeat is fresh and /healthz answers, as a restart would not help; then it works."""
    with Proxy(store_url) as way:
        way.down()
        daemon = new_daemon(DATABASE_URL=way.url, METRICS_PORT=str(free_port))
        worker = daemon.worker()
        wait_until(lambda: len(events(worker, "store.awaited")) > 1, READY_SECONDS)

        assert worker.status is None
        assert Path(daemon.environ["EVERTOKEN_RUN_DIR"], "worker-worker@test").exists()
        with urlopen(f"http://127.0.0.1:{free_port}/healthz", timeout=5) as answer:
            assert answer.status == 200
        assert metric(free_port, "evertoken_store_away_seconds") > 0

        way.up()
        daemon.wait_ready(wait_until, worker)
        beat = daemon.beat()
        refreshes_again(daemon, sandbox, store_url, wait_until)
        assert metric(free_port, "evertoken_store_away_seconds") == 0
        daemon.stop(beat, worker)
