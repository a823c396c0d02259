"""Behind a real PgBouncer in transaction mode, where each transaction may run on another client's connection."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection

from tests.conftest import APP_ID, ServerProcess
from tests.store.conftest import Fleet
from tests.support.daemon import PROJECT, Daemon, daemon_settings, plain_environ
from tests.support.pooler import start_pooler
from tests.support.small_accounts import small_sandbox
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.store import open_store
from worker.vault import Keyring

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)]

CLIENTS = 6
ROUNDS = 40
LIFE_SECONDS = 60
RENEW_AT = "0.1"
SUITE_SECONDS = 900
SPEAKS_OF_ITS_OWN_CONNECTION = (
    "lasts_for_that_transaction", "prepared_by_name", "while_nobody_used_them", "a_read_only_database",
    "a_missing_right", "may_not_be_made_or_filled",
)  # fmt: skip
"""Tests that look at one server connection across transactions, or log in as somebody whom the pooler does not know."""
NEIGHBOURS_WORK = (
    "SET statement_timeout = 3600000", "SET search_path = pg_catalog", "SET synchronous_commit = off",
    "SET ROLE pg_monitor", "PREPARE _pg3_0 AS SELECT 'of the neighbour'", "RESET ALL", "DEALLOCATE ALL",
    "SET lock_timeout = 1",
)  # fmt: skip
"""What another client of the pooler does for its whole session, so that it stays on the server's connections."""


@pytest.fixture
def pooled_url(store_url: str, postgres_server: ServerProcess) -> Iterator[str]:
    """Address of this test's database through a pooler with two connections for everybody."""
    with start_pooler(postgres_server, default_pool_size="2") as pooler:
        yield re.sub(r":\d+/", f":{pooler.port}/", store_url)


@pytest.fixture
def neighbour(pooled_url: str) -> Iterator[list[str]]:
    """Another client of the pooler, which works without a pause; yields what it read in each round."""
    rounds: list[str] = []
    leaving = threading.Event()

    def work() -> None:
        with psycopg.connect(pooled_url, autocommit=True, prepare_threshold=None) as link:
            while not leaving.is_set():
                for statement in NEIGHBOURS_WORK:
                    try:
                        link.execute(statement.encode())
                    except psycopg.Error as fault:
                        rounds.append(type(fault).__name__)
                rounds.append("a round")

    thread = threading.Thread(target=work)
    thread.start()
    yield rounds
    leaving.set()
    thread.join()


@pytest.mark.timeout(SUITE_SECONDS)
def test_the_stores_suite_passes_behind_a_pooler(tmp_path: Path, database_kind: str) -> None:
    """Every promise of the store holds if transactions are spread over the server's connections in turn."""
    left_out = "".join(f" and not {name}" for name in SPEAKS_OF_ITS_OWN_CONNECTION)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/store", "--pooler", "-n", "0", "-p", "no:cacheprovider",
         "-k", f"postgresql{left_out}", f"--junitxml={tmp_path / 'report.xml'}"],
        cwd=PROJECT, capture_output=True, text=True, timeout=SUITE_SECONDS - 10, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-4000:]
    counted = re.search(r'tests="(\d+)"', (tmp_path / "report.xml").read_text())
    assert counted is not None
    assert int(counted[1]) > 100


def test_no_clients_statement_runs_in_place_of_anothers(
    fleet: Fleet, pooled_url: str, neighbour: list[str], wait_until: Callable[..., None]
) -> None:
    """Many clients on two connections each read and change what they asked for, beside a neighbour's settings."""
    grants = [fleet.add(f"creator {number}") for number in range(CLIENTS)]
    wait_until(lambda: "a round" in neighbour)

    def work(number: int) -> set[str]:
        name, seen = f"creator {number}", set()
        with closing(open_store(pooled_url, pool_size=2, statement_seconds=5, app_id=APP_ID)) as store:
            for turn in range(ROUNDS):
                # Each client runs other statements than its neighbours, in another order.
                if number % 2:
                    seen.add(store.grant(name).creator_id)
                    store.request_pull(name)
                else:
                    store.raise_alarm(f"{number}/{turn}", "kind", "detail")
                    seen.add(store.current_pair(name).creator_id)
        return seen

    with ThreadPoolExecutor(CLIENTS) as pool:
        results = list(pool.map(work, range(CLIENTS)))

    assert results == [{f"creator {number}"} for number in range(CLIENTS)]
    assert fleet.store.undelivered_count() == ROUNDS * CLIENTS // 2
    after = [fleet.store.grant(grant.creator_id) for grant in grants]
    assert [grant.next_refresh_at for grant in after] == [grant.next_refresh_at for grant in grants]
    assert neighbour.count("a round") > 1


def test_nothing_of_ours_stays_on_a_connection_of_the_pooler(store_url: str, postgres_server: ServerProcess) -> None:
    """Whoever gets the connection next finds it as it was, and its own settings do not reach us."""
    names = ("statement_timeout", "lock_timeout", "synchronous_commit", "search_path")
    with start_pooler(postgres_server, default_pool_size="1") as pooler:
        url = re.sub(r":\d+/", f":{pooler.port}/", store_url)
        store = open_store(url, statement_seconds=7)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:

            def theirs() -> list[object]:
                return [row[0] for name in names if (row := other.execute(f"SHOW {name}".encode()).fetchone())]

            def ours(connection: Connection) -> list[object]:
                return [connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]

            before = theirs()
            first = store.transact(ours, writes=True)
            between = theirs()
            other.execute("SET statement_timeout = 60000; SET synchronous_commit = off; SET search_path = pg_catalog")
            second = store.transact(ours, writes=True)
            other.execute("RESET ALL")
            third = store.transact(ours, writes=True)
        store.close()

    assert between == before
    assert first == second == third == ["7s", "3500ms", "on", '"$user", public']


def test_an_upgrade_runs_through_a_pooler(empty_database_url: str, postgres_server: ServerProcess) -> None:
    """Nobody needs a second address for migrations, and processes that upgrade at once wait for each other."""
    with start_pooler(postgres_server, default_pool_size="4") as pooler, ThreadPoolExecutor(3) as pool:
        url = re.sub(r":\d+/", f":{pooler.port}/", empty_database_url)
        stores = [open_store(url) for _ in range(3)]
        states = list(pool.map(lambda store: store.upgrade(), stores))
        for store in stores:
            store.close()

    assert [state.current for state in states] == [True] * 3


@pytest.fixture
def world(pooled_url: str, redis_url: str, keyring: Keyring, tmp_path: Path) -> Iterator[World]:
    """Creators whose tokens live for seconds, in a database behind the pooler."""
    with small_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS)) as sandbox:
        settings = {
            "DATABASE_URL": pooled_url,
            "REDIS_URL": redis_url,
            "KEYRING": keyring.to_json(),
            "RENEW_AT": RENEW_AT,
        }
        with closing(World(sandbox, plain_environ() | daemon_settings(sandbox, tmp_path, **settings))) as made:
            yield made


@pytest.mark.timeout(300)
def test_a_daemon_behind_a_pooler_refreshes_and_pulls(
    world: World, neighbour: list[str], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Two workers and beat over two connections keep every creator's tokens alive, beside a neighbour's settings."""
    grants = world.creators(12)

    def done() -> bool:
        seen = [world.look(grant) for grant in grants]
        return all(grant.pair_generation >= 3 and grant.pulled_at is not None for grant in seen)

    with Daemon(tmp_path, world.environ) as daemon:
        children = daemon.worker("one"), daemon.worker("two"), daemon.beat()
        daemon.wait_ready(wait_until, *children)
        wait_until(done, 2 * LIFE_SECONDS)
        daemon.stop(*children)
    judged = world.verdict(*grants)
    logs = b"".join(child.log.read_bytes() for child in children)

    assert judged.sound, judged
    assert b"Traceback" not in logs
    assert b"store.unavailable" not in logs
    assert neighbour.count("a round") > 1
