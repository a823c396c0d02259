"""The daemon's own commands as child processes: workers, beat and the command line, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from tests.support.warm import server_for
from worker.sandbox.children import Child, Children
from worker.sandbox.process import RunningSandbox

FOREIGN: Final = ("EVERTOKEN_", "CELERY_", "FLOWER_")
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 60.0
ROOT_IS_FINE: Final = "ignore:You're running the worker with superuser privileges"
"""If tests run as root, Celery would warn of it in every log."""
PROJECT: Final = Path(__file__).resolve().parents[2]


def daemon_settings(sandbox: RunningSandbox, folder: Path, **settings: str) -> dict[str, str]:
    """Return an environment for a daemon against this sandbox; settings are given without their prefix."""
    usual = {
        "TIKTOK_APP_ID": sandbox.options.app_id,
        "TIKTOK_APP_SECRET": sandbox.options.app_secret,
        "TIKTOK_REDIRECT_URI": sandbox.options.redirect_uri,
        "TIKTOK_BASE_URL": sandbox.url,
        "TIKTOK_AUTHORIZE_URL": sandbox.authorize_url,
        "JOURNAL_DIR": str(folder / "journal"),
        "RUN_DIR": str(folder / "run"),
        "LEASE_SECONDS": "30",
        "DEADLINE_SECONDS": "10",
        "STORE_SECONDS": "5",
        "SCAN_SECONDS": "0.5",
        "UPKEEP_SECONDS": "2",
        "QUOTA_PER_SECOND": "1000",
        "QUOTA_PER_MINUTE": "60000",
        "QUOTA_PER_ACCOUNT_MINUTE": "1000",
    }
    return {f"EVERTOKEN_{name}": value for name, value in (usual | settings).items()}


def plain_environ() -> dict[str, str]:
    """Return this process's environment without anybody's settings, in which the project is found from any folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return kept | {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": ROOT_IS_FINE}


def seconds_to_end(child: Child, most: float) -> float:
    """Ask a process to end, and return how long that took; one that takes longer than `most` fails the test."""
    began = time.monotonic()
    child.ask_to_end()
    assert child.wait(most), f"{child.name} was still there after {most} s:\n{child.tail()}"
    return time.monotonic() - began


class Daemon:
    """Starts the daemon's processes; leaving it ends those that still run."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], *, warm: bool = False, warm_commands: bool = False
    ) -> None:
        """Start nothing yet.

        Args:
            folder: where they run; it holds no `.env`.
            settings: as `daemon_settings` returns them.
            warm: True to start processes with their libraries imported, which is quick; see `tests.support.warm`.
            warm_commands: True to do so with commands alone, so that the system shows of the others what they are.
        """
        self.folder = folder
        self.environ = plain_environ() | dict(settings)
        self._warm = warm
        self._warm_commands = warm or warm_commands
        self._started: list[Child] = []
        self._children = Children(folder / "logs")

    def worker(self, name: str = "worker", *arguments: str, queues: str = "refresh,pull,default") -> Child:
        """Start a worker; `wait_ready` waits for it."""
        options = ("-c", "4", "-Q", queues, "-n", f"{name}@test", "--without-mingle", "--without-gossip")
        return self._start(name, "worker", *options, *arguments)

    def beat(self) -> Child:
        """Start beat; `wait_ready` waits for it."""
        return self._start("beat", "beat", "--max-interval", "1")

    def exporter(self, *arguments: str) -> Child:
        """Start the exporter."""
        return self._start("exporter", "exporter", *arguments)

    def script(self, name: str, script: str) -> Child:
        """Start a script in Python, such as one that starts a worker with changes to it."""
        return self._launch(name, ["-c", script])

    def wait_ready(self, wait_until: Callable[..., None], *children: Child) -> None:
        """Wait until workers take messages and beat ticks; one that ended fails the test with the end of its log."""
        for child in children:
            ticked = Path(self.environ["EVERTOKEN_RUN_DIR"], "beat") if child.name == "beat" else None

            def ready(child: Child = child, ticked: Path | None = ticked) -> bool:
                assert child.status is None, child.tail()
                return ticked.exists() if ticked is not None else b" ready." in child.log.read_bytes()

            wait_until(ready, READY_SECONDS)

    def stop(self, *children: Child) -> None:
        """End children in good order; one that has to be killed fails the test."""
        killed = self._children.stop(*children, seconds=STOP_SECONDS)
        assert killed == [], "\n".join(f"{child.name} had to be killed:\n{child.tail()}" for child in killed)

    def run(self, *arguments: str, text: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `celery -A worker` to its end."""
        environ = self.environ | {f"EVERTOKEN_{name}": value for name, value in settings.items()}
        return self._run(["-m", "celery", "-A", "worker", *arguments], environ, text)

    def run_python(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the daemon's environment."""
        return self._run(["-c", script], self.environ)

    def run_module(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a module of Python in the daemon's environment."""
        return self._run(["-m", *arguments], self.environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._started):
            child.ask_to_end()
            child.wait(STOP_SECONDS)
        self._children.close(seconds=STOP_SECONDS)

    def _start(self, name: str, *arguments: str) -> Child:
        return self._launch(name, ["-m", "celery", "-A", "worker", *arguments])

    def _launch(self, name: str, command: list[str]) -> Child:
        if not self._warm:
            return self._children.start(name, [sys.executable, *command], environ=self.environ, folder=self.folder)
        log = self.folder / "logs" / f"{name}.log"
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            files = (nothing.fileno(), output.fileno(), output.fileno())
            process: Any = server_for(self.environ).start(
                command, environ=self.environ, folder=self.folder, files=files
            )
        self._started.append(Child(name, process, log))
        return self._started[-1]

    def _run(
        self, arguments: list[str], environ: Mapping[str, str], text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        if self._warm_commands:
            return server_for(environ).run(
                arguments, environ=environ, folder=self.folder, text=text, seconds=COMMAND_SECONDS
            )
        return subprocess.run(
            [sys.executable, *arguments],
            env=environ, cwd=self.folder, capture_output=True, text=True, input=text, timeout=COMMAND_SECONDS,
            check=False,
        )  # fmt: skip
