"""The contract watch: compares each answer to a refresh with what is known of TikTok's contract.

Nearly always nothing is new, and then nothing is written. What differs goes to the database, where all processes weigh
it together, so that a change is announced once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from worker.errors import StoreUnavailableError
from worker.ground import Ground
from worker.policy.contract import ACCESS_LIFE, Term, agrees, terms_of
from worker.refresh.settlement import Answered
from worker.store import NewPair
from worker.telemetry import Fact

FRESH_SECONDS: Final = 15.0
"""How long a process believes what it has read of the terms; others may have met something odd meanwhile."""


class ContractWatch:
    """Notices changes of lives, rotation, fields and scopes; each process has one instance."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._lock = threading.Lock()
        self._known: dict[str, Term] = {}
        self._read_at = -math.inf

    def observe(self, pairs: Sequence[tuple[Answered, NewPair]]) -> None:
        """Compare answers whose pairs are stored; a database that is away costs nothing but these observations."""
        try:
            with self._lock:
                if time.monotonic() >= self._read_at + FRESH_SECONDS:
                    self._read()
            seen = [(answered.grant_id, _terms(answered, pair)) for answered, pair in pairs]
            odd = [(grant_id, news) for grant_id, terms in seen if (news := self._news(terms))]
            if not odd:
                return
            changes = self._ground.store.note_terms(odd)
            with self._lock:
                self._read()
        except StoreUnavailableError:
            return
        for change in changes:
            fields = {"term": change.term, "before": change.before, "now": change.now, "reason": change.told}
            self._ground.hook(Fact("contract.changed", fields, level="warning"))

    def access_seconds(self) -> float:
        """Return the life of access tokens as answers tell it; NaN while it is not known."""
        with self._lock:
            known = self._known.get(ACCESS_LIFE)
        return math.nan if known is None else float(known.value)

    def _read(self) -> None:
        self._known = {name: view.term for name, view in self._ground.store.terms().items()}
        self._read_at = time.monotonic()

    def _news(self, terms: Mapping[str, str]) -> dict[str, str]:
        """Return the terms that are not known, or not so, or that end a run of odd answers."""
        known = self._known
        return {
            term: value
            for term, value in terms.items()
            if (old := known.get(term)) is None or old.odd is not None or not agrees(term, old.value, value)
        }


def _terms(answered: Answered, pair: NewPair) -> dict[str, str]:
    answer = answered.answer
    return terms_of(
        access_seconds=answer.access_seconds,
        refresh_seconds=answer.refresh_seconds,
        refresh_ended_at=answered.refresh_ended_at,
        refresh_ends_at=pair.refresh_expires_at,
        rotated=not pair.refresh_kept,
        fields=() if answer.remarks else answer.fields,  # an odd answer may be cut off
        scope_before=answered.scope.split(","),
        scope=answer.scope,
    )
