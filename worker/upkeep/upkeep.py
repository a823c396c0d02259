"""Upkeep: journals of dead processes are replayed, superseded pairs wiped, and old history is let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from worker.consent.exchanges import Exchanges, OtherAccountError
from worker.ground import Ground
from worker.journal import JournalEntry, Orphan
from worker.policy.verdicts import AttemptOutcome
from worker.records import LINK, answer_in
from worker.refresh.replay import Replayer
from worker.refresh.settlement import Settlement
from worker.telemetry import Fact

WIPE_AFTER_SECONDS: Final = 2 * 86400
KEEP_HISTORY_SECONDS: Final = 90 * 86400
BATCH: Final = 500
BATCHES_SECONDS: Final = 10.0
"""A fleet at the highest quota replaces a thousand pairs a minute, so one batch a round would fall behind for ever."""


class ConsentReplayer(Replayer):
    """Stores journaled answers to exchanges of a code."""

    kind = "exchange"

    def __init__(
        self, ground: Ground, *, settlement: Settlement, own_after_seconds: float, exchanges: Exchanges
    ) -> None:
        super().__init__(ground, settlement=settlement, own_after_seconds=own_after_seconds)
        self._exchanges = exchanges

    def _store(self, entry: JournalEntry) -> None:
        self._exchanges.store_replayed(answer_in(entry), sent_at=entry.sent_at, handle=entry.extra.get(LINK))

    def _replay_one(self, orphan: Orphan) -> bool:
        try:
            return super()._replay_one(orphan)
        except OtherAccountError:
            orphan.set_aside()
            return False


class Upkeep:
    """What is done from time to time, by any worker, without harm when done twice."""

    def __init__(self, ground: Ground, *, refreshes: Replayer, consents: ConsentReplayer) -> None:
        self._ground = ground
        self._refreshes = refreshes
        self._consents = consents

    def replay(self) -> int:
        """Store what dead processes of this host, and failed threads of this one, had received and not yet stored.

        Returns:
            How many records were settled.

        Raises:
            StoreUnavailableError: the database went away; what was not settled stays in the journal.
        """
        return self._refreshes.replay() + self._consents.replay()

    def end_stale_attempts(self) -> int:
        """Write down the doubt of attempts whose lease ran out without an outcome: their process died or hangs.

        A pair or a verdict that comes late all the same takes the place of the doubt.

        Returns:
            How many attempts.
        """
        stale = self._ground.store.stale_attempts(BATCH)
        for attempt in stale:
            self._ground.store.record_outcome(
                attempt.grant_id,
                attempt.consent,
                attempt.generation,
                outcome=AttemptOutcome.IN_DOUBT,
                reason="its process ended, or hung, before it wrote an outcome down",
            )
        if stale:
            self._ground.hook(Fact("attempts.unfinished", {"attempts": len(stale)}, level="warning"))
        return len(stale)

    def wipe_superseded(self) -> int:
        """Wipe pairs that newer ones replaced long ago, for some seconds at most; return how many."""
        return _in_batches(lambda: self._ground.store.wipe_superseded(WIPE_AFTER_SECONDS, BATCH))

    def prune(self) -> int:
        """Let go of history that ended long ago, for some seconds of each kind at most; return how many rows."""
        return (
            _in_batches(lambda: self._ground.store.prune_attempts(KEEP_HISTORY_SECONDS, BATCH))
            + _in_batches(lambda: self._ground.store.prune_pairs(KEEP_HISTORY_SECONDS, BATCH))
            + self._ground.store.prune_told(KEEP_HISTORY_SECONDS)
        )


def _in_batches(step: Callable[[], int]) -> int:
    """Repeat a step of at most `BATCH` rows, each a transaction of its own, until little is left or time is up."""
    end, total = time.monotonic() + BATCHES_SECONDS, 0
    while True:
        done = step()
        total += done
        if done < BATCH or time.monotonic() >= end:
            return total
