"""Lines that Celery and kombu repeat while the broker is in trouble: the first of each cause is written.

A Redis that is full or read-only answers at once, so a worker tries and fails several times a second, with a line each
time. Celery tries as often as before; only what it writes of that is held back, and no other line is.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from worker.telemetry.facts import Fact, FactValue, Hook

CONSUMER: Final = "celery.worker.consumer.consumer"
REDIS: Final = "kombu.transport.redis"
LOST: Final = "consumer: Connection to broker lost"
"""Celery says this only of a connection that was there, so it is always written."""
REPEATED: Final = (
    "consumer: Cannot connect to",
    "Frequent restarts detected",
    "maybe_refresh_binding_expiry: Redis error",  # each second, if a full Redis still hands out messages
)
"""How the lines begin that come again and again."""
NEXT_TRY: Final = "Trying again in"
"""From here on the lines of one cause differ: when, and for which time."""
MINUTE: Final = 60.0
QUIET_SECONDS: Final = 10.0
"""A connected worker that has not repeated a line for so long is out of trouble."""
LOOK_SECONDS: Final = 1.0
MOST_CAUSES: Final = 64
"""Lines of further causes in one outage are all written."""


@dataclass
class Counted:
    """How often a line came since it was written or last reported."""

    since: float
    times: int = 0


class Repeats(logging.Filter):
    """Lets the first line of each cause in an outage pass, and reports how often it came again."""

    def __init__(self, report: Hook) -> None:
        """Have counted nothing yet; the filter is for the loggers `CONSUMER` and `REDIS`.

        Args:
            report: gets `log.repeated` and `log.calm`.
        """
        super().__init__()
        self._report = report
        self._lock = threading.RLock()
        self._causes: dict[str, Counted] = {}
        self._connected = self._watched = False
        self._begun = self._last = 0.0
        self._unwritten = 0
        atexit.register(self._report_counts, 0.0)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line whose cause was written in this outage; it is counted instead."""
        try:
            line = record.getMessage()
            return not line.startswith((LOST, *REPEATED)) or self._is_first(line, record)
        except Exception:  # noqa: BLE001 - whatever it is, Celery must not fail over a line of its log
            return True

    def ready(self) -> None:
        """Note that the worker is connected and takes messages: the outage is over, and what comes now is a new one."""
        with self._lock:
            self._connected = True
            self._end()

    def _is_first(self, line: str, record: logging.LogRecord) -> bool:
        cause = line.partition(NEXT_TRY)[0].strip()
        if record.name == REDIS and record.exc_info:
            cause += f": {record.exc_info[1]}"
        with self._lock:
            if record.name == CONSUMER:
                self._connected = False
            if line.startswith(LOST):
                return True
            self._last = time.monotonic()
            if not self._causes:
                self._begun = self._last
            if not self._watched:
                threading.Thread(target=self._watch, name="repeats", daemon=True).start()
                self._watched = True
            if counted := self._causes.get(cause):
                counted.times += 1
                self._unwritten += 1
            elif len(self._causes) < MOST_CAUSES:
                self._causes[cause] = Counted(self._last)
            return counted is None

    def _watch(self) -> None:
        while self._goes_on():
            time.sleep(LOOK_SECONDS)

    def _goes_on(self) -> bool:
        with self._lock:
            if self._connected and time.monotonic() - self._last >= QUIET_SECONDS:
                self._end()
            self._report_counts(MINUTE)
            self._watched = bool(self._causes)
            return self._watched

    def _report_counts(self, after: float) -> None:
        with self._lock:
            now = time.monotonic()
            for cause, counted in self._causes.items():
                times, seconds = counted.times, now - counted.since
                if times and seconds >= after:
                    counted.since, counted.times = now, 0
                    fields: dict[str, FactValue] = {"line": cause, "times": times, "seconds": round(seconds)}
                    self._report(Fact("log.repeated", fields, level="warning"))

    def _end(self) -> None:
        if self._unwritten:
            seconds = round(time.monotonic() - self._begun)
            self._report(Fact("log.calm", {"unwritten": self._unwritten, "seconds": seconds}))
        self._causes.clear()
        self._unwritten = 0
