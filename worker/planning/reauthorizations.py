"""The coming re-authorizations: how many consents end in which week, for the metrics."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

from worker.errors import StoreUnavailableError
from worker.store import EndingWeek, Store

LOOK_SECONDS: Final = 300.0
"""How long a count of the fleet is used; the next one reads every grant again."""
WEEK_DAYS: Final = 7


class Reauthorizations:
    """Counts the consents that end in the coming year."""

    def __init__(self, *, store: Store, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Count nothing yet.

        Args:
            store: where the fleet is.
            monotonic: clock of this process, in seconds.
        """
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._weeks: list[EndingWeek] | None = None
        self._looked_at = -math.inf

    def within(self, days: int) -> float:
        """Return how many consents end within some days, in whole weeks; NaN if the database is away."""
        with self._lock:
            now = self._monotonic()
            if now >= self._looked_at + LOOK_SECONDS:
                self._looked_at = now
                try:
                    self._weeks = self._store.ends_by_week()
                except StoreUnavailableError:
                    self._weeks = None
            return math.nan if self._weeks is None else float(total_within(self._weeks, days))


def total_within(weeks: list[EndingWeek], days: int) -> int:
    """Return how many consents end within some days, in whole weeks."""
    return sum(week.grants for week in weeks if week.week < math.ceil(days / WEEK_DAYS))


def busiest(weeks: list[EndingWeek]) -> list[EndingWeek]:
    """Return the week in which most consents end; empty if none ends."""
    return [max(weeks, key=lambda week: week.grants)] if weeks else []
