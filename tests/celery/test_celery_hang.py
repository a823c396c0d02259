"""Worker and beat that hang are found and end; those that only wait for Redis are left alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from tests.celery.test_celery_redis_lost import full, replica
from tests.support.black_hole import BlackHole
from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.hanging import (
    BEAT,
    BEAT_FAILS,
    BEAT_STANDS,
    FOR_EVER,
    FORGETS,
    QUICK,
    STANDS,
    WORKER,
    ask,
    silent,
    start,
)
from tests.support.restartable import Restartable
from tests.support.world import World
from worker.sandbox.process import RunningSandbox
from worker.watchdog import STATUS

HANG_SECONDS = 4.0
HUNG_SECONDS = 130.0
"""Longer than a lease: a task that waits for ever for a connection without a timeout is waited for that long."""

pytestmark = [
    pytest.mark.slow_suite,
    pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True),
    pytest.mark.timeout(300),
]


@pytest.fixture
def restartable(wait_until: Callable[..., None]) -> Iterator[Restartable]:
    """A server of the test's own."""
    with TemporaryDirectory() as folder:
        server = Restartable(Path(folder), wait_until)
        yield server
        server.kill()


def hang(daemon: Daemon, hole: BlackHole) -> None:
    """Let the fault begin."""
    (daemon.folder / "hang").touch()
    hole.swallow()


@pytest.mark.parametrize(
    ("options", "change"),
    [
        pytest.param(QUICK, FORGETS, id="asks no more"),
        pytest.param(QUICK, STANDS, id="its loop stands", marks=pytest.mark.slow_suite),
        pytest.param(FOR_EVER, "", id="half open and no timeout", marks=pytest.mark.night),
    ],
)
def test_a_worker_that_hangs_stores_what_it_has_and_ends(  # noqa: PLR0917 - fixtures
    options: dict[str, float | None],
    change: str,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    redis_url: str,
    free_port: int,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """`/healthz` turns red, the answer that comes late is stored, and the supervisor sees a status that is not 0."""
    with BlackHole(int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])) as hole:
        url = f"redis://127.0.0.1:{hole.port}/0"
        daemon = new_daemon(
            REDIS_URL=url, HANG_SECONDS="2", METRICS_PORT=str(free_port), DEADLINE_SECONDS="30", LEASE_SECONDS="90"
        )
        worker = start(daemon, "worker", WORKER, options, change)
        daemon.wait_ready(wait_until, worker)
        assert ask(free_port, "/healthz")[0] == 200
        world = World(sandbox, daemon.environ)
        try:
            grant = world.creator()
            sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=8, times=1)
            assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
            wait_until(lambda: world.look(grant).generation > 1, READY_SECONDS)
            hang(daemon, hole)
            wait_until(lambda: ask(free_port, "/healthz")[0] == 503, HUNG_SECONDS)
            wait_until(lambda: worker.status is not None, HUNG_SECONDS)
            assert world.look(grant).pair_generation > 1
        finally:
            world.close()

    log = worker.log.read_text()
    assert worker.status == STATUS, log
    assert log.count('"event": "worker.hangs"') == 1
    assert "most recent call first" in log
    assert log.index("worker.hangs") < log.index("refresh.saved"), "the answer came before the hang was found"


@pytest.mark.parametrize(
    ("options", "change"),
    [
        pytest.param(QUICK, BEAT_STANDS, id="its loop stands"),
        pytest.param(QUICK, BEAT_FAILS, id="publishes nothing", marks=pytest.mark.night),
        pytest.param(FOR_EVER, "", id="half open and no timeout", marks=pytest.mark.night),
    ],
)
def test_a_beat_that_hangs_ends(  # noqa: PLR0917 - fixtures
    options: dict[str, float | None],
    change: str,
    new_daemon: Callable[..., Daemon],
    redis_url: str,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Its supervisor starts another."""
    with BlackHole(int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])) as hole:
        daemon = new_daemon(REDIS_URL=f"redis://127.0.0.1:{hole.port}/0", HANG_SECONDS="2")
        beat = start(daemon, "beat", BEAT, options, change)
        with redis.Redis.from_url(redis_url) as client:  # a connection that is not open yet cannot be forgotten
            wait_until(lambda: client.keys("evertoken:refresh*"), READY_SECONDS)
        hang(daemon, hole)
        wait_until(lambda: beat.status is not None, HUNG_SECONDS)

    log = beat.log.read_text()
    assert beat.status == STATUS, log
    assert log.count('"event": "beat.hangs"') == 1


def paused(server: Restartable) -> Callable[[], None]:
    """Let Redis stand still, with its connections open; return what ends that."""
    server.pause()
    return server.resume


def killed(server: Restartable) -> Callable[[], None]:
    """Let Redis be gone; return what brings it back, empty."""
    server.kill()
    return server.start


def full_up(server: Restartable) -> Callable[[], None]:
    """Let Redis refuse writes, and drop all connections, so that the worker must connect again and cannot."""
    return _and_dropped(server, full)


def read_only(server: Restartable) -> Callable[[], None]:
    """Let Redis be a replica, as the one that a failover left behind, with all connections dropped."""
    return _and_dropped(server, replica)


def _and_dropped(server: Restartable, trouble: Callable[[str], Callable[[], None]]) -> Callable[[], None]:
    from worker.sandbox.broker import connect  # noqa: PLC0415 - here alone

    recover = trouble(server.url)
    with connect(server.url) as client, suppress(Exception):
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    return recover


@pytest.mark.parametrize(
    "trouble",
    [
        paused,
        pytest.param(killed, marks=pytest.mark.slow_suite),
        pytest.param(full_up, marks=pytest.mark.night),
        pytest.param(read_only, marks=pytest.mark.slow_suite),
    ],
)
def test_redis_away_ends_neither_worker_nor_beat(  # noqa: PLR0917 - fixtures
    trouble: Callable[[Restartable], Callable[[], None]],
    new_daemon: Callable[..., Daemon],
    restartable: Restartable,
    free_port: int,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """For longer than the limit: both stay well and go on as the same processes when Redis serves again."""
    daemon = new_daemon(
        REDIS_URL=restartable.url, HANG_SECONDS=str(HANG_SECONDS), METRICS_PORT=str(free_port), SCAN_SECONDS="300"
    )
    worker, beat = start(daemon, "worker", WORKER, QUICK), start(daemon, "beat", BEAT, QUICK)
    daemon.wait_ready(wait_until, worker, beat)
    wait_until(lambda: silent(free_port) > 0, READY_SECONDS)
    heartbeats = [daemon.folder / "run" / name for name in ("worker-worker@test", "beat")]
    recover = trouble(restartable)

    def away_for_longer() -> bool:
        assert (worker.status, beat.status) == (None, None), worker.tail() + beat.tail()
        assert ask(free_port, "/healthz")[0] == 200
        return silent(free_port) > HANG_SECONDS * 1.5

    before = [file.stat().st_mtime_ns for file in heartbeats]
    if trouble in {full_up, read_only}:  # a worker that need not connect again may go on asking
        deadline = os.times().elapsed + HANG_SECONDS * 1.5
        wait_until(lambda: away_for_longer() or os.times().elapsed > deadline, READY_SECONDS)
    else:
        wait_until(away_for_longer, READY_SECONDS)
    assert all(file.stat().st_mtime_ns > at for file, at in zip(heartbeats, before, strict=True))
    recover()
    wait_until(lambda: 0 < silent(free_port) < 1.5, READY_SECONDS)
    assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0

    assert (worker.status, beat.status, ask(free_port, "/healthz")[0]) == (None, None, 200)
    daemon.stop(beat, worker)
    assert b".hangs" not in worker.log.read_bytes() + beat.log.read_bytes()
