"""Connections to Redis that fall silent without an end: worker and beat notice, and go on over new ones."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.black_hole import BlackHole
from tests.support.daemon import Daemon
from tests.support.world import World
from worker.sandbox.process import RunningSandbox

RECOVERY_SECONDS = 60.0


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_worker_and_beat_go_on_after_their_connections_fell_silent(
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    redis_url: str,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Without a timeout on the socket both would wait for ever; with it a grant that falls due is refreshed again."""
    redis_port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with BlackHole(redis_port) as hole:
        daemon = new_daemon(REDIS_URL=f"redis://127.0.0.1:{hole.port}/0")
        worker, beat = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, worker, beat)
        world = World(sandbox, daemon.environ)
        try:
            grant = world.creator()
            wait_until(lambda: world.look(grant).pair_generation > 1, 20)
            hole.swallow()
            swallowed_at = time.monotonic()
            world.make_due(grant)
            wait_until(lambda: len(world.refreshes(grant)) > 1, RECOVERY_SECONDS)
            recovered_after = time.monotonic() - swallowed_at
        finally:
            world.close()
        daemon.stop(beat, worker)

    assert b"raised unexpected" not in worker.log.read_bytes()
    assert recovered_after > 1, "the connections never fell silent"
    assert recovered_after < RECOVERY_SECONDS
