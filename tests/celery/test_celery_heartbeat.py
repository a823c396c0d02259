"""The heartbeat files of worker and beat, when they cannot be written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import worker.watchdog
from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.world import World
from worker.sandbox.process import RunningSandbox
from worker.telemetry import Fact

TOLD = b'"event": "heartbeat.unwritten"'


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_heartbeat_that_cannot_be_written_is_logged_once_and_stops_nothing(
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    tmp_path: Path,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Its age shows it; worker and beat go on with their work, and no connection is given up for it."""
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


@pytest.fixture
def touch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[Fact]]:
    """Touch a heartbeat in the folder of the test, and return the facts that were logged."""
    logged: list[Fact] = []
    monkeypatch.setattr(worker.watchdog, "report", logged.append)
    monkeypatch.setattr(worker.watchdog, "_unwritten", set())

    def touched(name: str) -> list[Fact]:
        worker.watchdog.touch(tmp_path / "run", name)
        return logged

    return touched


def test_a_heartbeat_is_fresh_after_each_touch(touch: Callable[[str], list[Fact]], tmp_path: Path) -> None:
    """The file is made with its folder, and an old one becomes new."""
    path = tmp_path / "run" / "worker.alive"
    assert touch(path.name) == []
    os.utime(path, (0, 0))

    assert touch(path.name) == []
    assert path.stat().st_mtime > 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "link to a folder", "pipe", "folder"])
def test_a_heartbeat_touches_its_own_file_alone(touch: Callable[[str], list[Fact]], tmp_path: Path, kind: str) -> None:
    """Whatever lies in the file's place, nothing else is made or touched, nothing waits, and it is logged once."""
    (tmp_path / "run").mkdir()
    path, target = tmp_path / "run" / "worker.alive", tmp_path / "target"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
    if kind == "link to a file":
        target.write_text("kept")
    elif kind == "link to a folder":
        target.mkdir()
    for old in (path, target):
        if old.exists():
            os.utime(old, (0, 0))

    touch(path.name)
    assert [fact.name for fact in touch(path.name)] == ["heartbeat.unwritten"]
    assert target.exists() is (kind in {"link to a file", "link to a folder"})
    assert all(old.stat().st_mtime == 0 for old in (path, target) if old.exists())
