"""Real processes that start in a fraction of the time: a server imports the libraries once and forks each from itself.

Half of a short test's time goes into importing Celery, SQLAlchemy, Flower and so on again. A process from here has
those libraries imported and nothing of ours: `worker`, `tasks` and all settings are read in the new process, in its
own environment and folder. What the system shows of it (`ps`, `/proc`) is the server's command line and environment,
so tests that look there start their processes themselves.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.metadata
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.forks import Forks

LIBRARIES: Final = (
    "alembic.command", "alembic.autogenerate", "celery.apps.beat", "celery.apps.worker", "celery.backends.redis",
    "celery.beat", "celery.bin.amqp", "celery.bin.base", "celery.bin.beat", "celery.bin.call", "celery.bin.control",
    "celery.bin.events", "celery.bin.graph", "celery.bin.list", "celery.bin.logtool", "celery.bin.migrate",
    "celery.bin.multi", "celery.bin.purge", "celery.bin.result", "celery.bin.shell", "celery.bin.upgrade",
    "celery.bin.worker", "celery.concurrency.solo", "celery.concurrency.thread", "celery.events.snapshot",
    "celery.fixups.django", "celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer",
    "celery.worker.strategy", "click_repl", "cryptography.hazmat.primitives.ciphers.aead", "dotenv", "flower.command",
    "http.server", "kombu.transport.redis", "prometheus_client", "psycopg", "psycopg_binary", "pydantic",
    "redis.sentinel", "requests", "rich.console", "rich.progress", "rich.table", "sqlalchemy.dialects.sqlite.pysqlite",
    "sqlalchemy.dialects.postgresql.psycopg", "sqlmodel", "structlog",
)  # fmt: skip
FORK_SECONDS: Final = 30.0
ORDER_BYTES: Final = 1 << 20
STANDARD: Final = 3
"""Standard input, output and error."""


class WarmProcess:
    """One process, in the words of `subprocess.Popen`.

    Attributes:
        pid: its process id.
        returncode: its exit status, or the negative number of the signal that ended it; None while it is not known.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._heard = b""
        self.returncode: int | None = None
        line.settimeout(FORK_SECONDS)
        self.pid = int(self._read_line())

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after these seconds.
        """
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = int(self._read_line())
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def _read_line(self) -> bytes:
        while b"\n" not in self._heard:
            read = self._line.recv(64)
            if not read:
                raise AssertionError("the server of warm processes is gone; what it said is on standard error")
            self._heard += read
        said, _, self._heard = self._heard.partition(b"\n")
        return said


class WarmServer:
    """The server, which ends with this process and takes what it has forked along."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Start it.

        Args:
            environ: what Python reads at its start, such as `PYTHONPATH`, is taken from here.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="evertoken-warm-")
        self._path = str(Path(self._folder.name, "socket"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm", str(self._listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
            cwd=Path(__file__).parents[2],
            env=dict(environ),
            start_new_session=True,
        )
        self._listener.close()
        atexit.register(self.close)

    def start(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, files: tuple[int, int, int]
    ) -> WarmProcess:
        """Fork a process, in a session of its own.

        Args:
            arguments: what follows `python`: `-m module ...` or `-c script`.
            environ: its whole environment.
            folder: where it runs.
            files: descriptors that become its standard input, output and error.
        """
        order = {"arguments": list(arguments), "environ": dict(environ), "folder": str(folder)}
        line = socket.socket(socket.AF_UNIX)
        line.connect(self._path)
        socket.send_fds(line, [b" "], list(files))
        line.sendall(json.dumps(order).encode() + b"\n")
        return WarmProcess(line)

    def run(
        self, arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, text: str | None, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end and return what it printed; `text` is what it reads.

        Raises:
            subprocess.TimeoutExpired: it did not end in time, and was killed.
        """
        with ExitStack() as opened:
            given, said, complained = (opened.enter_context(tempfile.TemporaryFile()) for _ in range(STANDARD))
            given.write((text or "").encode())
            given.seek(0)
            files = (given.fileno(), said.fileno(), complained.fileno())
            process = self.start(arguments, environ=environ, folder=folder, files=files)
            try:
                status = process.wait(seconds)
            finally:
                process.kill()
            said.seek(0)
            complained.seek(0)
            printed = (said.read().decode(), complained.read().decode())
        return subprocess.CompletedProcess([sys.executable, *arguments], status, *printed)

    def close(self) -> None:
        """End the server and all that it forked."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(FORK_SECONDS)
            self._folder.cleanup()


@functools.cache
def warm_server(*python: tuple[str, str]) -> WarmServer:
    """Return this process's server for these settings of Python itself; it starts at first use."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return WarmServer(others | dict(python))


def server_for(environ: Mapping[str, str]) -> WarmServer:
    """Return the server whose interpreter read the same settings as one in this environment would."""
    return warm_server(*sorted((name, value) for name, value in environ.items() if name.startswith("PYTHON")))


# --- the server's own process ---


def serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork a process for each order until standard input ends; return None then, and in a fork its order."""
    forks, lines = Forks(), dict[int, socket.socket]()
    while True:
        ready, news = forks.wait(0, listener.fileno())
        if news:
            for pid, status in forks.news():
                with lines.pop(pid) as line, suppress(BrokenPipeError, ConnectionResetError):
                    line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        if listener.fileno() in ready:
            order = _take_order(listener, forks, lines)
            if order is not None:
                return order
        if 0 in ready:
            forks.kill()
            return None


def _take_order(listener: socket.socket, forks: Forks, lines: dict[int, socket.socket]) -> dict[str, Any] | None:
    line, _ = listener.accept()
    _, files, _, _ = socket.recv_fds(line, 1, STANDARD)
    with line.makefile("rb") as said:
        order: dict[str, Any] = json.loads(said.readline(ORDER_BYTES))
    pid = forks.fork()
    if pid == 0:
        for end in (line, listener, *lines.values()):
            end.close()
        os.setsid()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        return order
    for file in files:
        os.close(file)
    lines[pid] = line
    line.sendall(f"{pid}\n".encode())
    return None


def become(order: dict[str, Any]) -> None:
    """Do what `python ARGUMENTS` does, in the order's folder and environment."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    time.tzset()
    how, what, *rest = order["arguments"]
    if how == "-c":
        sys.argv, sys.path[0] = ["-c", *rest], ""
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102 - as Python does for -c
    else:
        assert how == "-m", how
        sys.argv, sys.path[0] = [what, *rest], order["folder"]
        runpy.run_module(what, run_name="__main__", alter_sys=True)


def main() -> None:
    """Import the libraries, serve, and go on as what was asked for in each fork."""
    for name in LIBRARIES:
        importlib.import_module(name)
    importlib.metadata.entry_points()
    ours = [name for name in sys.modules if name.partition(".")[0] in {"worker", "tasks"}]
    assert ours == [], f"{ours} must be imported in the processes themselves"
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        order = serve(listener)
    if order is not None:
        become(order)


if __name__ == "__main__":
    main()
