"""The audit of hand-outs: a row for each token that leaves over HTTP, committed before the token does.

Many threads hand out at the same time, and a commit costs more than a row. So the first of them writes the rows of all
that came meanwhile in one transaction, and the others wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.errors import StoreUnavailableError
from worker.store import HandOut, Store
from worker.telemetry import Fact, FactValue, Hook

MOST_AT_ONCE: Final = 500
GATHER_SECONDS: Final = 0.002
"""How long the first waits for others if others came the last time: a commit costs more than ten rows."""


@dataclass
class _Group:
    """Rows of one transaction, and whether it has ended."""

    rows: list[HandOut] = field(default_factory=list)
    written: threading.Event = field(default_factory=threading.Event)


class Audit:
    """Notes hand-outs; safe to share between threads.

    A token is handed out although its row cannot be written, since tokens matter more; the log then has the fact.

    Args:
        store: where the rows go.
        hook: where facts go.
    """

    def __init__(self, store: Store, hook: Hook) -> None:
        self._store = store
        self._hook = hook
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._next = _Group()
        self._crowded = False

    def note(self, given: HandOut) -> None:
        """Store that a token was handed out; return when it is committed, or when the database refused it."""
        with self._lock:
            group = self._next
            group.rows.append(given)
            if len(group.rows) >= MOST_AT_ONCE:
                self._next = _Group()
        if group.rows[0] is not given:
            group.written.wait()
            return
        with self._writing:
            if self._crowded:
                time.sleep(GATHER_SECONDS)
            with self._lock:
                if self._next is group:
                    self._next = _Group()
            self._crowded = len(group.rows) > 1
            try:
                self._write(group.rows)
            finally:
                group.written.set()

    def _write(self, rows: Sequence[HandOut]) -> None:
        try:
            self._store.note_hand_outs(rows)
        except StoreUnavailableError as error:
            for row in rows:
                told: dict[str, FactValue] = {
                    "consumer_id": row.consumer_id,
                    "grant_id": row.grant_id,
                    "generation": row.generation,
                    "reason": str(error),
                }
                self._hook(Fact("token.unaudited", told, level="error"))
