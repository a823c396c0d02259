"""The audit of hand-outs: a row for each token that leaves over HTTP, committed before the token does."""

from __future__ import annotations

from collections.abc import Sequence

from worker.errors import StoreUnavailableError
from worker.store import HandOut, Store
from worker.telemetry import Fact, FactValue, Hook


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

    def note(self, given: Sequence[HandOut]) -> None:
        """Store that tokens were handed out, in one transaction; return when the database took it or refused it."""
        if not given:
            return
        try:
            self._store.note_hand_outs(given)
        except StoreUnavailableError as error:
            for row in given:
                told: dict[str, FactValue] = {
                    "consumer_id": row.consumer_id,
                    "grant_id": row.grant_id,
                    "generation": row.generation,
                    "reason": str(error),
                }
                self._hook(Fact("token.unaudited", told, level="error"))
