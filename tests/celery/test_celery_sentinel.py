"""Redis under Sentinels as broker and limiter: the master dies, and refreshing goes on with the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from tests.support.certificates import new_authority, server_context
from tests.support.daemon import Daemon
from tests.support.hanging import silent
from tests.support.sentinels import (
    PASSWORD,
    SENTINEL_PASSWORD,
    SERVICE,
    Watched,
    start_sentinel,
    start_server_with_password,
)
from tests.support.tls_front import TlsFront
from tests.support.world import World
from worker.sandbox.process import RunningSandbox

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)]

FAILOVER_SECONDS = 60.0
HEARD_SECONDS = 3.0
"""An idle worker hears Redis every second; one whose channels are not ours is never heard."""


@pytest.fixture
def watched(wait_until: Callable[..., None]) -> Iterator[Watched]:
    """A master with a replica, and three Sentinels that know both."""
    with Watched() as servers:
        wait_until(servers.settled, 20)
        yield servers


def checks(daemon: Daemon) -> dict[str, str]:
    """Return state and detail of the doctor's checks."""
    said = json.loads(daemon.run("doctor", "--json", "--offline").stdout)
    return {check["check"]: f"{check['state']} {check['detail']}" for check in said["checks"]}


def test_refreshing_goes_on_within_a_minute_when_the_master_dies(
    watched: Watched,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    free_port: int,
    wait_until: Callable[..., None],
) -> None:
    """Worker and beat find the new master, the worker's messages are still watched, and no password is in a log."""
    daemon = new_daemon(REDIS_URL=watched.url, METRICS_PORT=str(free_port))
    with closing(World(sandbox, daemon.environ)) as world:
        grant = world.creator(scope="user.info.basic")
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        wait_until(lambda: world.look(grant).pair_generation >= 1, 30)

        watched.servers[0].process.kill()
        before = world.look(grant).pair_generation
        world.make_due(grant)
        wait_until(lambda: world.look(grant).pair_generation > before, FAILOVER_SECONDS)
        generation = world.look(grant).pair_generation
        with watched.client(watched.servers[1]) as client:
            wait_until(lambda: client.info("replication")["role"] == "master", FAILOVER_SECONDS)
        world.make_due(grant)
        wait_until(lambda: world.look(grant).pair_generation > generation, FAILOVER_SECONDS)
        wait_until(lambda: 0 < silent(free_port) < HEARD_SECONDS, FAILOVER_SECONDS)
        said = checks(daemon)
        daemon.stop(worker, beat)
        sound = world.verdict(grant).sound

    assert sound
    assert said["sentinels"].startswith(
        f"warn 127.0.0.1:{watched.servers[1].port} is the master, as 3 of 3 Sentinels say; no replica is up for "
    )
    assert said["redis"] == "ok answers, and never evicts"
    assert said["workers"].startswith("ok")
    logs = b"".join(path.read_bytes() for path in Path(daemon.folder, "logs").iterdir())
    assert PASSWORD.encode() not in logs + json.dumps(said).encode()
    assert SENTINEL_PASSWORD.encode() not in logs + json.dumps(said).encode()


@pytest.mark.parametrize("trusted", [True, False])
def test_with_tls_nothing_is_said_to_a_sentinel_or_master_that_has_not_proved_who_it_is(
    new_daemon: Callable[..., Daemon], tmp_path: Path, database_kind: str, *, trusted: bool
) -> None:
    """The broker's and the limiter's client both ask the Sentinel and then its master, over TLS alone."""
    authority = new_authority(tmp_path)
    context = server_context(tmp_path, authority)
    query = f"&ssl_ca_certs={authority.file}" if trusted else ""
    with (
        start_server_with_password() as server,
        TlsFront(server.port, context, plain_too=True) as master,
        start_sentinel("localhost", master.port, quorum=1) as sentinel,
        TlsFront(sentinel.port, context) as front,
    ):
        daemon = new_daemon(
            REDIS_URL=f"sentinels://:{PASSWORD}@localhost:{front.port}/0?service={SERVICE}"
            f"&sentinel_password={SENTINEL_PASSWORD}{query}"
        )
        called = daemon.run("call", "tasks.refresh.scan_due")
        shared = daemon.run_python(
            "from worker.services import build_services; print(build_services().limiter.status().shared)"
        )
        with redis.Redis(port=server.port, password=PASSWORD) as client:
            waiting = client.llen("evertoken:refresh")

    assert (called.returncode == 0) is trusted
    assert shared.stdout.strip() == str(trusted)
    assert waiting == int(trusted)
    assert bool(front.heard) is bool(master.heard) is trusted
    assert (front.refused == 0) is trusted
