"""Losses: says once that something does not arrive elsewhere, and that it arrives again."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Final

from worker.telemetry.facts import Fact
from worker.telemetry.logs import log_fact
from worker.telemetry.metrics import count_fact

AGAIN_SECONDS: Final = 600.0
"""A loss that goes on is counted each time, and logged again after this time."""


class Losses:
    """Counts every loss, and logs the first of a row."""

    def __init__(self, *, lost: Fact, over: Fact | None = None) -> None:
        """Take the fact of a loss, and the fact that it is over, if that can be known."""
        self._lost, self._over = lost, over
        self._lock = threading.Lock()
        self._logged_at: float | None = None

    def note(self, reason: str, count: int) -> None:
        """Note a loss.

        Args:
            reason: why, in our own words.
            count: how much was lost.
        """
        count_fact(self._lost)
        with self._lock:
            now = time.monotonic()
            if self._logged_at is not None and now - self._logged_at < AGAIN_SECONDS:
                return
            self._logged_at = now
        log_fact(replace(self._lost, fields={"reason": reason, "count": count}))

    def end(self) -> None:
        """Note that something arrived."""
        if self._logged_at is not None and self._over is not None:
            self._logged_at = None
            count_fact(self._over)
            log_fact(self._over)
