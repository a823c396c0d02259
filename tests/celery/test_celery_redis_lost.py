"""Redis is lost while a worker holds delayed messages, as it does all day: the worker outlives that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.restartable import Restartable
from tests.support.world import World
from worker.sandbox.broker import connect
from worker.sandbox.children import Child
from worker.sandbox.process import RunningSandbox

LOST = b"Connection to broker lost"

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@pytest.fixture
def restartable(wait_until: Callable[..., None]) -> Iterator[Restartable]:
    """A server of the test's own."""
    with TemporaryDirectory() as folder:
        server = Restartable(Path(folder), wait_until)
        yield server
        server.kill()


def hold_delayed_messages(daemon: Daemon, worker: Child, redis_url: str, wait_until: Callable[..., None]) -> None:
    """Hand the worker messages for later; they are not acknowledged until then."""
    daemon.wait_ready(wait_until, worker)
    for grant_id in ("1", "2"):
        called = daemon.run("call", "tasks.pull.pull_account", "--args", f"[{grant_id}]", "--countdown", "3600")
        assert called.returncode == 0, called.stderr
    with connect(redis_url) as client:
        wait_until(lambda: client.hlen("evertoken:unacked") == 2, READY_SECONDS)


@pytest.mark.slow_suite
def test_a_worker_with_delayed_messages_outlives_the_loss_of_redis(
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    restartable: Restartable,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Whatever Celery does with messages that it cannot give back, the worker goes on when Redis is there again."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.worker()
    hold_delayed_messages(daemon, worker, restartable.url, wait_until)
    for losses in (1, 2):
        restartable.kill()
        wait_until(lambda losses=losses: worker.log.read_bytes().count(LOST) >= losses or worker.status, READY_SECONDS)
        assert worker.status is None, worker.tail()
        restartable.start()
        world = World(sandbox, daemon.environ)
        try:
            grant = world.creator()
            assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
            wait_until(lambda world=world, grant=grant: world.look(grant).pair_generation > 1, READY_SECONDS)
        finally:
            world.close()
    daemon.stop(worker)

    assert worker.status == 0
    assert b"Traceback" not in worker.log.read_bytes()


def full(url: str) -> Callable[[], None]:
    """Let the server refuse every write that takes memory; return what ends that."""
    with connect(url) as client:
        client.config_set("maxmemory", "1")

    def relieve() -> None:
        with connect(url) as client:
            client.config_set("maxmemory", "0")

    return relieve


def replica(url: str) -> Callable[[], None]:
    """Make the server the read-only replica of one that is not there, as in a failover; return what ends that."""
    with connect(url) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")

    def promote() -> None:
        with connect(url) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    return promote


@pytest.mark.slow_suite
@pytest.mark.parametrize("trouble", [full, replica], ids=lambda trouble: trouble.__name__)
def test_a_worker_outlives_a_redis_that_refuses_its_commands(  # noqa: PLR0917 - fixtures
    trouble: Callable[[str], Callable[[], None]],
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    restartable: Restartable,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """A Redis that answers with errors is as good as one that is away; when it is well again the worker goes on."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.worker()
    hold_delayed_messages(daemon, worker, restartable.url, wait_until)
    os.kill(worker.pid, signal.SIGSTOP)
    assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
    recover = trouble(restartable.url)
    before = len(worker.log.read_bytes())
    os.kill(worker.pid, signal.SIGCONT)
    wait_until(lambda: len(worker.log.read_bytes()) > before or worker.status is not None, READY_SECONDS)
    recover()
    world = World(sandbox, daemon.environ)
    try:
        grant = world.creator()

        def refreshed() -> bool:
            assert worker.status is None, worker.tail()
            assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
            return world.look(grant).pair_generation > 1

        wait_until(refreshed, READY_SECONDS)
    finally:
        world.close()
    daemon.stop(worker)


@pytest.mark.slow_suite
def test_a_worker_with_delayed_messages_ends_while_redis_is_away(
    new_daemon: Callable[..., Daemon], restartable: Restartable, wait_until: Callable[..., None], database_kind: str
) -> None:
    """It ends in good order when asked to, though it can give no message back."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.worker()
    hold_delayed_messages(daemon, worker, restartable.url, wait_until)
    restartable.kill()
    wait_until(lambda: LOST in worker.log.read_bytes(), READY_SECONDS)

    daemon.stop(worker)

    assert b"Traceback" not in worker.log.read_bytes()
