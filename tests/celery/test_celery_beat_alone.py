"""A beat that is part of a worker ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_beat_whose_worker_was_killed_ends(
    new_daemon: Callable[..., Daemon], wait_until: Callable[..., None], database_kind: str
) -> None:
    """It would fill the queues for ever, and nobody would know of it."""
    daemon = new_daemon()
    worker = daemon._start("worker", "worker", "-n", "one@test", "-P", "threads", "-c", "2", "--beat")
    daemon.wait_ready(wait_until, worker)
    wait_until(lambda: children_of(worker.pid), 30)
    beats = children_of(worker.pid)

    os.kill(worker.pid, signal.SIGKILL)

    wait_until(lambda: not any(lives(beat) for beat in beats), 30)
    assert b"beat.left_alone" in worker.log.read_bytes()
