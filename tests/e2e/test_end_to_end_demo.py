"""The demo as a person runs it: a verdict at the end, also after Ctrl-C, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import plain_environ

END_SECONDS = 180


@contextmanager
def running_demo(folder: Path, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Start a demo in a folder; leaving kills it, and its own lifeline ends the rest."""
    with subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "worker", "demo", *arguments],
        env=plain_environ() | settings, cwd=folder, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as demo:  # fmt: skip
        try:
            yield demo
        finally:
            demo.kill()


def verdict_of(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the end of a demo and return its verdict."""
    said, complained = demo.communicate(timeout=END_SECONDS)
    assert demo.returncode == 0, complained
    verdict: dict[str, Any] = json.loads(said)
    return verdict


def processes() -> dict[int, int]:
    """Return the living processes of this machine, each with its parent."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def tree_of(demo: subprocess.Popen[str]) -> set[int]:
    """Return the processes that a demo has started, directly or not."""
    parents, tree = processes(), {demo.pid}
    while more := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return tree - {demo.pid}


@pytest.mark.slow_suite
@pytest.mark.timeout(300)
def test_a_demo_keeps_every_token_alive_and_touches_no_real_settings(tmp_path: Path) -> None:
    """Each creator is refreshed twice and nothing is lost; a real deployment is neither read nor touched."""
    real = tmp_path / "real.db"
    (tmp_path / ".env").write_text("EVERTOKEN_TIKTOK_BASE_URL=https://elsewhere.example\nEVERTOKEN_ODD=1\n")
    settings = {"EVERTOKEN_DATABASE_URL": f"sqlite:///{real}", "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}

    with running_demo(tmp_path, "--creators", "10", "--for", "30", "--json", **settings) as demo:
        verdict = verdict_of(demo)

    assert verdict["creators"] == 10
    assert verdict["pairs_issued"] == verdict["pairs_stored"] >= 30
    assert verdict["fewest_refreshes"] >= 2
    assert verdict["pulls"] >= 20
    assert verdict["lost"] == verdict["double_refreshes"] == verdict["expired_creators"] == 0
    assert not real.exists()


@pytest.mark.slow_suite
def test_ctrl_c_ends_a_demo_within_seconds_with_its_verdict_and_leaves_no_process(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A person who has seen enough gets the verdict all the same, and the machine back as it was."""
    folder = tmp_path / "demo"
    with running_demo(tmp_path, "--creators", "5", "--for", "300", "--json", "--dir", str(folder)) as demo:
        wait_until(lambda: b"refresh" in read(folder / "ledger.jsonl"), 60)
        tree = tree_of(demo)
        demo.send_signal(signal.SIGINT)
        verdict = verdict_of(demo)

    assert {"redis", "worker-refresh", "worker-pull", "beat", "flower"} == {
        path.stem for path in (folder / "logs").iterdir()
    }
    assert len(tree) >= 6
    assert verdict["interrupted"] is True
    assert verdict["seconds"] < 100
    assert verdict["lost"] == 0
    assert not tree & set(processes())


@pytest.mark.slow_suite
def test_a_killed_demo_takes_its_processes_and_its_socket_with_it(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Even if nobody is left to end them, no worker goes on alone."""
    folder = tmp_path / "demo"
    temporary = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))  # a socket's path must be short
    arguments = ("--creators", "1", "--for", "300", "--dir", str(folder))
    with running_demo(tmp_path, *arguments, TMPDIR=str(temporary)) as demo:
        wait_until(lambda: b" ready." in read(folder / "logs" / "worker-refresh.log"), 60)
        tree = tree_of(demo)
        os.kill(demo.pid, signal.SIGKILL)
        demo.communicate()
    wait_until(lambda: not tree & set(processes()), 40)

    assert len(tree) >= 3
    temporary.rmdir()  # it is empty


def read(path: Path) -> bytes:
    """Return what is in a file; nothing if there is no file yet."""
    return path.read_bytes() if path.exists() else b""
