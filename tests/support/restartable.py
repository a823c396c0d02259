"""A Redis-protocol server that a test takes away and gives back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from worker.sandbox.broker import answers, plan_broker


class Restartable:
    """A Redis-protocol server that can be killed and started again, empty."""

    def __init__(self, folder: Path, wait_until: Callable[..., None]) -> None:
        """Start it.

        Args:
            folder: for its files.
            wait_until: waits for a condition.
        """
        self._plan = plan_broker(folder)
        self._wait_until = wait_until
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self._plan.url
        self.start()

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(self._plan.command, stdout=subprocess.DEVNULL)
        self._wait_until(lambda: answers(self.url))

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop it as it is: its connections stay open and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
