"""Redis is lost while a worker holds delayed messages, as it does all day: the worker outlives that."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
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
CALM = b'"event": "log.calm"'
MOST_LINES = 6
"""Of a long outage: lost, cannot connect, frequent restarts, Celery's own word about a setting, and two counts."""
REFRESHES_OFTEN = """
import sys
sys.argv = "celery -A worker worker -c 2 -Q refresh,pull,default -n worker@test".split()
from kombu.transport import redis
redis.MIN_BINDING_TTL, redis.BINDING_EXPIRES_FACTOR = 1000, 0
from celery.__main__ import main
main()
"""
"""Kombu refreshes its bindings every 20 minutes, and each second if that fails."""

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
    said = worker.log.read_bytes()
    # kombu writes the stack of an acknowledgement that Redis was lost under; that message comes again.
    assert said.count(b"Traceback") == said.count(b"Couldn't ack")
    assert worker.log.read_bytes().count(LOST) == 2
    assert worker.log.read_bytes().count(b"Cannot connect") <= 2


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


def full_for_all(url: str) -> Callable[[], None]:
    """Let the server be full for a worker that has to connect again, too; return what ends that."""
    relieve = full(url)
    with connect(url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    return relieve


def unsaved(url: str) -> Callable[[], None]:
    """Let the server fail to save itself, after which it refuses writes; return what ends that."""
    with connect(url) as client:
        folder = next(value for name, value in client.config_get("dir").items() if name in {"dir", b"dir"})
        in_the_way = Path(os.fsdecode(folder), "dump.rdb")
        in_the_way.unlink(missing_ok=True)
        in_the_way.mkdir()
        client.config_set("save", "3600 1000000")
        client.bgsave()

    def save() -> None:
        in_the_way.rmdir()
        with connect(url) as client:
            client.bgsave()

    return save


def refusals(url: str, kind: str) -> int:
    """Return how many commands the server has refused for this reason."""
    with connect(url) as client:
        return int(client.info("errorstats").get(f"errorstat_{kind}", {"count": 0})["count"])


def complaints(log: bytes) -> Counter[str]:
    """Return how often each warning and error was written, whenever Celery tries next."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]
    return Counter(line["event"].partition("Trying again")[0] for line in lines if line["level"] != "info")


@pytest.mark.slow_suite
@pytest.mark.parametrize(
    ("trouble", "kind", "tries"), [(full_for_all, "OOM", 40), (replica, "READONLY", 40), (unsaved, "MISCONF", 8)]
)
def test_each_outage_of_a_redis_that_refuses_is_a_few_lines(  # noqa: PLR0917 - fixtures
    trouble: Callable[[str], Callable[[], None]],
    kind: str,
    tries: int,
    new_daemon: Callable[..., Daemon],
    restartable: Restartable,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """The worker tries as often as ever, writes each cause once, and an outage after the all-clear is a new one."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.worker()
    daemon.wait_ready(wait_until, worker)
    for outage in (1, 2):
        begin, before = len(worker.log.read_bytes()), refusals(restartable.url, kind)
        recover = trouble(restartable.url)
        wait_until(lambda before=before: refusals(restartable.url, kind) >= before + tries, READY_SECONDS)
        assert worker.log.read_bytes().count(CALM) == outage - 1
        recover()
        wait_until(lambda outage=outage: worker.log.read_bytes().count(CALM) == outage, READY_SECONDS)

        written = complaints(worker.log.read_bytes()[begin:])
        assert sum(LOST.decode() in line for line in written) == 1, written
        assert sum("Cannot connect" in line for line in written) == 1, written
        assert set(written.values()) == {1}
    daemon.stop(worker)


@pytest.mark.slow_suite
def test_a_long_outage_is_said_each_minute_with_how_often_the_worker_tried(
    new_daemon: Callable[..., Daemon], restartable: Restartable, wait_until: Callable[..., None], database_kind: str
) -> None:
    """Several times a second, which was as many lines."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.worker()
    daemon.wait_ready(wait_until, worker)
    promote = replica(restartable.url)
    wait_until(lambda: b"log.repeated" in worker.log.read_bytes(), 90)
    promote()
    wait_until(lambda: CALM in worker.log.read_bytes(), READY_SECONDS)
    daemon.stop(worker)

    lines = [json.loads(line) for line in worker.log.read_bytes().splitlines() if line.startswith(b"{")]
    counted = next(line for line in lines if line["event"] == "log.repeated")
    calm = next(line for line in lines if line["event"] == "log.calm")
    assert counted["line"].startswith("consumer: Cannot connect to ")
    assert 60 <= counted["seconds"] <= calm["seconds"]
    assert 60 < counted["times"] <= calm["unwritten"]
    assert len([line for line in lines if line["level"] != "info"]) <= MOST_LINES


@pytest.mark.slow_suite
def test_a_full_redis_that_still_hands_out_messages_is_one_line(
    new_daemon: Callable[..., Daemon], restartable: Restartable, wait_until: Callable[..., None], database_kind: str
) -> None:
    """The connection is never lost, so the end is that the line no longer comes."""
    daemon = new_daemon(REDIS_URL=restartable.url)
    worker = daemon.script("worker", REFRESHES_OFTEN)
    daemon.wait_ready(wait_until, worker)
    for outage in (1, 2):
        before = refusals(restartable.url, "OOM")
        relieve = full(restartable.url)
        wait_until(lambda before=before: refusals(restartable.url, "OOM") >= before + 4, READY_SECONDS)
        relieve()
        wait_until(lambda outage=outage: worker.log.read_bytes().count(CALM) == outage, READY_SECONDS)
        assert worker.log.read_bytes().count(b"maybe_refresh_binding_expiry: Redis error") == outage
    assert LOST not in worker.log.read_bytes()
    daemon.stop(worker)


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
