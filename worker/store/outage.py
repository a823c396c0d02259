"""Outages: since when the database is away, told once when one begins and once when it has ended.

An outage is what stops every statement, or every write: no connection, a full or read-only disk. A row that the
database refuses is none, and neither is a lock that another transaction holds.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

OnAway = Callable[[str], None]
OnBack = Callable[[float], None]

READS: Final = False
WRITES: Final = True


class Outages:
    """Follows the outcomes of one process's transactions; thread-safe."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with a database that is taken to be there.

        Args:
            monotonic: clock of this process, in seconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failing: set[bool] = set()
        self._since = self._answered_at = -math.inf
        self._on_away: OnAway = lambda _: None
        self._on_back: OnBack = lambda _: None

    def watch(self, on_away: OnAway, on_back: OnBack) -> None:
        """Report outages from now on.

        Args:
            on_away: called once when an outage begins, with the reason as safe text.
            on_back: called once when it has ended, with its length in seconds.
        """
        self._on_away, self._on_back = on_away, on_back

    def seconds(self) -> float:
        """Return for how long the database has been away; 0 while it is there."""
        with self._lock:
            return self._monotonic() - self._since if self._failing else 0.0

    def failed(self, reason: str, *, writes: bool, began: float) -> None:
        """Take in that a transaction met an outage.

        Args:
            reason: safe text.
            writes: True for a transaction that writes.
            began: when the transaction began, on this process's clock; one that began before the last success says
                nothing new.
        """
        with self._lock:
            if began < self._answered_at:
                return
            is_news = not self._failing
            self._failing.add(writes)
            if is_news:
                self._since = began
        if is_news:
            self._on_away(reason)

    def succeeded(self, *, writes: bool) -> None:
        """Take in that a transaction was committed; a read says nothing of a database that takes no writes."""
        self._answered_at = self._monotonic()
        if not self._failing:
            return
        with self._lock:
            was_away = bool(self._failing)
            self._failing -= {READS, WRITES} if writes else {READS}
            is_over = was_away and not self._failing
            seconds = self._answered_at - self._since
        if is_over:
            self._on_back(seconds)
