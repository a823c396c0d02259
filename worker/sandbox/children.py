"""Child processes with a log file each, ended by their process ids, also when this process is killed.

As a program of its own, this is the keeper. It reads `+PID` and `-PID` lines from standard input until that ends, which
is when the process that wrote them is gone. Then it terminates what is still listed, youngest first, kills what does
not end, and removes the folders that its arguments name. So a killed stack leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

KILLED_WAIT_SECONDS: Final = 10.0
TAIL_BYTES: Final = 8_192
TAIL_LINES: Final = 12
PATIENCE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.1


class Child:
    """One child process.

    Attributes:
        name: what people call it.
        log: the file that takes its standard output and standard error.
        asked_to_end: True once it was asked to stop; an end before that is a fault.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self.asked_to_end = False
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; negative for the signal that ended it, None while it runs."""
        return self._process.poll()

    @property
    def died(self) -> bool:
        """True if it has ended without being asked to."""
        return not self.asked_to_end and self.status is not None

    def tail(self) -> str:
        """Return the last lines of its log, unchanged: redact them before you show them."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def ask_to_end(self) -> None:
        """Send SIGTERM: the child finishes what it is doing."""
        self.asked_to_end = True
        if self.status is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, and kill it if it does not end.

        Returns:
            False if it had to be killed.
        """
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(KILLED_WAIT_SECONDS)
            return False
        return True


class Children:
    """The child processes of a stack; end them with `stop` or by closing.

    Args:
        logs: folder of the log files; created if it is missing.
        private: a folder that is removed after the last child has ended.
    """

    def __init__(self, logs: Path, *, private: Path | None = None) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: list[Child] = []
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.sandbox.children", *([] if private is None else [str(private)])],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )

    def start(self, name: str, command: Sequence[str], *, environ: Mapping[str, str], folder: Path) -> Child:
        """Start a child in its own session, so that Ctrl-C in a terminal reaches only us.

        Args:
            name: what people call it; its log is `NAME.log`.
            command: program and arguments.
            environ: its whole environment.
            folder: where it runs.

        Raises:
            OSError: the program cannot be run.
        """
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                env=dict(environ),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._running.append(child)
        self._tell_keeper(f"+{child.pid}")
        return child

    def died(self) -> list[Child]:
        """Return those that ended without being asked."""
        return [child for child in self._running if child.died]

    def stop(self, *children: Child, seconds: float) -> list[Child]:
        """Ask children to end, together, and wait for them.

        Returns:
            Those that had to be killed because they did not end in time.
        """
        for child in children:
            child.ask_to_end()
        killed = [child for child in children if not child.wait(seconds)]
        for child in children:
            if child in self._running:
                self._running.remove(child)
                self._tell_keeper(f"-{child.pid}")
        return killed

    def close(self, *, seconds: float) -> list[Child]:
        """End all running children, the youngest first, then the keeper; return those that were killed."""
        killed = [child for started in reversed(self._running) for child in self.stop(started, seconds=seconds)]
        stdin = self._keeper_input()
        if not stdin.closed:
            stdin.close()
        self._keeper.wait()
        return killed

    def _tell_keeper(self, line: str) -> None:
        self._keeper_input().write(f"{line}\n")

    def _keeper_input(self) -> IO[str]:
        if self._keeper.stdin is None:  # pragma: no cover  # it is a pipe, as asked above
            raise RuntimeError("the keeper has no pipe")
        return self._keeper.stdin


def listed(lines: Iterable[str]) -> list[int]:
    """Read lines to their end and return the processes still listed, the oldest first."""
    pids: dict[int, None] = {}
    for line in lines:
        if line.startswith("+"):
            pids[int(line[1:])] = None
        else:
            pids.pop(int(line[1:]), None)
    return list(pids)


def end_all(pids: list[int]) -> None:
    """Terminate processes, the youngest first, and kill those that have not ended after a time."""
    left = [pid for pid in reversed(pids) if _signal(pid, signal.SIGTERM)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        left = [pid for pid in left if _signal(pid, 0)]
    for pid in left:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends when its input ends, and only then
    end_all(listed(sys.stdin))
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)
