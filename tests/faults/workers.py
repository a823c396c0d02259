"""Worker processes as a test sees them: hatched by the nursery, stopped, continued, killed and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

PATIENCE_SECONDS: Final = 20.0
REPOSITORY: Final = Path(__file__).parents[2]


class Worker:
    """One worker process.

    Attributes:
        status: exit code, or the negative number of the signal that ended it; None while it lives.
        was_stopped: True if it was ever stopped (SIGSTOP).
        stopped_at: when, on this process's monotonic clock.
        was_killed: True if it ended by SIGKILL.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.pid = 0
        self.status: int | None = None
        self.was_stopped = False
        self.stopped_at = 0.0
        self._stopped = False
        self._news = threading.Condition()

    @property
    def is_stopped(self) -> bool:
        """True while it stands still."""
        return self._stopped and self.status is None

    @property
    def was_killed(self) -> bool:
        """True if it ended by SIGKILL."""
        return self.status == -signal.SIGKILL

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.ended()

    def stop(self) -> None:
        """Suspend it, as a debugger or a frozen machine does, and wait until it stands still."""
        self.signal(signal.SIGSTOP)
        self.stopped()

    def resume(self) -> None:
        """Let it go on."""
        self._stopped = False
        self.signal(signal.SIGCONT)

    def finish(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended(seconds)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for its end, and return its exit code or the negative number of a signal."""
        with self._news:
            if not self._news.wait_for(lambda: self.status is not None, seconds):
                self.signal(signal.SIGUSR2)  # it writes its stacks, so that its log shows where it hangs
                self._news.wait_for(lambda: self.status is not None, 1.0)
                raise AssertionError(f"worker {self.pid} did not end within {seconds:g} s: {self.said()[-6000:]}")
            assert self.status is not None
            return self.status

    def stopped(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until it stands still."""
        with self._news:
            if not self._news.wait_for(lambda: self._stopped or self.status is not None, seconds) or not self._stopped:
                raise AssertionError(f"worker {self.pid} did not stop: {self.said()[-1500:]}")

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        """Send it a signal, if it still lives."""
        with self._news:
            if self.status is None:
                with suppress(ProcessLookupError):  # it is gone, and the news of it are on their way
                    os.kill(self.pid, number)

    def _hear(self, news: str, status: int | None) -> None:
        with self._news:
            if news == "stopped":
                self._stopped, self.was_stopped, self.stopped_at = True, True, time.monotonic()
            elif news == "ended":
                self.status = status
            self._news.notify_all()


class Nursery:
    """Hatches workers; a context that leaves none behind."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._workers: dict[int, Worker] = {}
        self._waiting: list[Worker] = []
        self._born = threading.Condition()
        self._ordering = threading.Lock()
        self._ear = threading.Thread(target=self._listen, daemon=True)
        self._ear.start()

    def hatch(self, job: dict[str, Any], environ: dict[str, str], log: Path) -> Worker:
        """Return a new worker process that has begun its job."""
        worker = Worker(log)
        order = json.dumps({"job": job, "environ": environ, "log": str(log)}).encode() + b"\n"
        with self._ordering, self._born:
            assert self._process.stdin is not None
            self._waiting.append(worker)
            self._process.stdin.write(order)
            self._process.stdin.flush()
            if not self._born.wait_for(lambda: worker.pid, PATIENCE_SECONDS):
                raise AssertionError("the nursery did not hatch a worker; what it said is on standard error")
        return worker

    def close(self) -> None:
        """End the nursery and with it every worker that is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)
        self._ear.join(PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as heard:
            for line in heard:
                said = json.loads(line)
                with self._born:
                    if "born" in said:
                        worker = self._waiting.pop(0)
                        worker.pid = said["born"]
                        self._workers[worker.pid] = worker
                        self._born.notify_all()
                        continue
                for news in ("stopped", "continued", "ended"):
                    if news in said:
                        self._workers[said[news]]._hear(news, said.get("status"))
