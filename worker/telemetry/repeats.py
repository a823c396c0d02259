"""Lines that Celery and kombu repeat while the broker is in trouble: one a minute for each, and one when it is over.

A Redis that is full or read-only answers at once, so a worker tries and fails several times a second, with a line each
time. Celery goes on as it does; only what it says is counted here. Lines of ours are never held back.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worker.telemetry.facts import Fact

FOREIGN: Final = ("kombu", "celery.worker.consumer")
CONNECTION: Final = "celery.worker.consumer.connection"
"""Logger that says at INFO that a worker has connected; it says nothing else."""
MINUTE: Final = 60.0
SETTLED_SECONDS: Final = 1.0
"""A line that has not come again for so long after the worker connected is over; one that comes later is a new one."""
LOOK_SECONDS: Final = 2.0
MOST_KINDS: Final = 64
"""Lines beyond so many different ones at a time are written."""
LINE_LETTERS: Final = 200
NUMBERS: Final = re.compile(r"\d+(\.\d+)?")


@dataclass
class Repeated:
    """A line that was written: when it came last and was last said, and how often it came since and in all."""

    line: str
    last: float
    said: float
    more: int = 0
    held: int = 0


class Repeats(logging.Filter):
    """Lets the first of equal warnings and errors pass; the others are said once a minute, with their number."""

    def __init__(self, report: Callable[[Fact], None]) -> None:
        """Hold back nothing yet.

        Args:
            report: gets `log.repeated` and `log.calm`.
        """
        super().__init__()
        self._report = report
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # a child has neither the thread nor what its parent wrote
        atexit.register(self.end)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, int, str], Repeated] = {}
        self._connected = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line that was written lately and is counted instead."""
        if record.name == CONNECTION:
            self._connected = time.monotonic()
        if record.levelno < logging.WARNING or not record.name.startswith(FOREIGN):
            return True
        line = record.getMessage()
        kind, now = (record.name, record.levelno, NUMBERS.sub("0", line)), time.monotonic()
        over: list[Repeated] = []
        with self._lock:
            known = self._kinds.get(kind)
            if known is not None and self._is_over(known, now):
                over.append(self._kinds.pop(kind))
                known = None
            if known is not None:
                known.last, known.more, known.held = now, known.more + 1, known.held + 1
                return False
            if len(self._kinds) < MOST_KINDS:
                if not self._kinds:
                    threading.Thread(target=self._watch, name="repeats", daemon=True).start()
                self._kinds[kind] = Repeated(line[:LINE_LETTERS], now, now)
        self._say_over(over)
        return True

    def look(self) -> bool:
        """Say what was held back for a minute and what is over; return False if nothing is left to watch."""
        now = time.monotonic()
        with self._lock:
            over = [self._kinds.pop(kind) for kind, each in list(self._kinds.items()) if self._is_over(each, now)]
            facts = [
                self._repeated(each, now)
                for each in self._kinds.values()
                if each.more and now - each.said >= MINUTE
            ]  # fmt: skip
            left = bool(self._kinds)
        for fact in facts:
            self._report(fact)
        self._say_over(over)
        return left

    def end(self) -> None:
        """Say what was held back, since the process ends."""
        with self._lock:
            facts = [self._repeated(each, time.monotonic()) for each in self._kinds.values() if each.more]
        for fact in facts:
            self._report(fact)

    def _watch(self) -> None:
        while self.look():
            time.sleep(LOOK_SECONDS)

    def _is_over(self, each: Repeated, now: float) -> bool:
        settled = each.last < self._connected <= now - SETTLED_SECONDS
        return settled or now - each.last >= MINUTE

    @staticmethod
    def _repeated(each: Repeated, now: float) -> Fact:
        fact = Fact(
            "log.repeated", {"line": each.line, "times": each.more, "seconds": round(now - each.said)}, level="warning"
        )
        each.more, each.said = 0, now
        return fact

    def _say_over(self, over: list[Repeated]) -> None:
        for each in over:
            if each.held:
                self._report(Fact("log.calm", {"line": each.line, "times": each.held}))
