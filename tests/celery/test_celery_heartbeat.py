"""The heartbeat files of worker and beat, where they cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.world import World
from worker.sandbox.process import RunningSandbox

TOLD = b'"event": "heartbeat.unwritten"'


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_heartbeat_that_cannot_be_written_is_told_once_and_stops_nothing(
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    tmp_path: Path,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Its age is what tells; worker and beat go on with their work, and no connection is given up for it."""
    (tmp_path / "file").touch()
    daemon = new_daemon(RUN_DIR=str(tmp_path / "file" / "run"))
    worker, beat = daemon.worker(), daemon.beat()
    daemon.wait_ready(wait_until, worker)
    world = World(sandbox, daemon.environ)
    try:
        for _ in range(3):
            grant = world.creator()
            wait_until(lambda grant=grant: world.look(grant).pair_generation > 1, READY_SECONDS)
    finally:
        world.close()
    daemon.stop(beat, worker)

    assert [child.log.read_bytes().count(TOLD) for child in (worker, beat)] == [1, 1]
    assert b"Connection to broker lost" not in worker.log.read_bytes()
