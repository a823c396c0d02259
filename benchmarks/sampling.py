"""Where a worker's processor time goes: `python -P benchmarks/sampling.py OUT ARGUMENTS` runs Celery so.

A thread looks at all others some hundred times a second. Python tells how much processor time each has used, so the
time since the last look is put down to the innermost line of a known room in that thread's stack. Sums so far are
written to OUT at the end, each with its moment, so that a part of the run can be cut out. The look itself costs
something: the shares are right, the sum comes from a run without it.
"""

from __future__ import annotations

import atexit
import itertools
import json
import re
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

LOOK_SECONDS: Final = 0.004
KEEP_SECONDS: Final = 0.05
OTHER: Final = "start of threads, waiting, other"
STEPS: Final = (
    ("journal", r"/worker/journal/"),
    ("redaction", r"/worker/vault/redaction"),
    ("sealing", r"/worker/vault/|/cryptography/"),
    ("limiter", r"/worker/limiter/"),
    ("log lines and metrics", r"/worker/telemetry/|/structlog/|/logging/|/prometheus_client/"),
    ("database", r"/worker/store/|/sqlalchemy/|/psycopg|/sqlite3/|/sqlmodel/"),
    (
        "HTTP",
        (
            r"/worker/(tiktok/(client|transport|values)|egress/)|/requests/|/urllib3/|/pytiktok/|/http/client"
            r"|/lib/python[\d.]+/ssl\.py"
        ),
    ),
    ("reading answers", r"/worker/tiktok/(answers|parsing|codes|waits)"),
    ("engine", r"/worker/(refresh|policy)/"),
    ("messages", r"/celery/|/kombu/|/worker/(celery|consumer)|/vine/|/billiard/"),
)
_PATTERNS: Final = [(step, re.compile(pattern)) for step, pattern in STEPS]


class Look:
    """Puts the processor time of threads down to steps."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, dict[str, float]]] = []
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._used: dict[int, int] = {}
        self._steps: dict[CodeType, str | None] = {}

    def run(self) -> None:
        """Look until the process ends."""
        me = threading.get_ident()
        keep = 0.0
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            for thread, frame in sys._current_frames().items():  # noqa: SLF001 - the one way to see other threads
                if thread != me:
                    self._note(thread, frame)
            if now >= keep:
                self.kept.append((now, dict(self._spent)))
                keep = now + KEEP_SECONDS

    def _note(self, thread: int, frame: FrameType) -> None:
        try:
            used = time.clock_gettime_ns(time.pthread_getcpuclockid(thread))
        except OSError:  # it has just ended
            return
        last = self._used.get(thread, used)
        spent = used - last if used >= last else used  # a thread that ended leaves its number to a new one
        self._used[thread] = used
        if spent:
            self._spent[self._step(frame)] += spent / 1e9

    def _step(self, frame: FrameType | None) -> str:
        while frame is not None:
            code = frame.f_code
            if code not in self._steps:
                found = (step for step, pattern in _PATTERNS if pattern.search(code.co_filename))
                self._steps[code] = next(found, None)
            if step := self._steps[code]:
                return step
            frame = frame.f_back
        return OTHER


def between(path: Path, began: float, ended: float) -> dict[str, float]:
    """Return seconds of processor time by step, from one moment of a sampled run to another."""
    kept = json.loads(path.read_text(encoding="utf-8"))
    inside = [sums for at, sums in kept if began <= at <= ended]
    first, last = inside[0], inside[-1]
    return {step: last[step] - first.get(step, 0.0) for step in last}


def main() -> None:
    """Run Celery under the look."""
    out, look = Path(sys.argv[1]), Look()
    atexit.register(lambda: out.write_text(json.dumps(look.kept), encoding="utf-8"))
    threading.Thread(target=look.run, daemon=True, name="look").start()
    sys.argv = ["celery", *itertools.islice(sys.argv, 2, None)]
    from celery.__main__ import main as celery_main  # noqa: PLC0415 - what is looked at starts after the look

    celery_main()


if __name__ == "__main__":
    main()
