"""Upkeep: replay journals of dead processes, wipe superseded pairs, and delete old history."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
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
WIPE_LOST_SECONDS: Final = 3600.0
"""How often lost pairs are looked for: it reads every grant whose creator has to authorize again."""
KEEP_HISTORY_SECONDS: Final = 90 * 86400
KEEP_DOUBTS_DAYS: Final = 90
"""For how long what went into quarantine is kept, with its raw answers."""
BATCH: Final = 500
BATCHES_SECONDS: Final = 10.0
"""Time for the batches of a round: a fleet at the highest quota replaces a thousand pairs a minute, two batches."""


@dataclass(frozen=True)
class Retention:
    """For how many days account data and lost pairs are kept; None for good.

    Attributes:
        raw_answers: answers as they came.
        other_people: comments and mentions, from when they were last read.
        history: readings, days, hours and shares.
        lost_pairs: pairs of creators who have to authorize again.
    """

    raw_answers: float
    other_people: float
    history: float | None
    lost_pairs: float


class ConsentReplayer(Replayer):
    """Stores journaled answers to exchanges of authorization codes."""

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
    """Periodic work of any worker; running it twice does no harm."""

    def __init__(self, ground: Ground, *, refreshes: Replayer, consents: ConsentReplayer, retention: Retention) -> None:
        """Take what all use cases share, the two kinds of replay, and how long what is kept."""
        self._wipes_lost_at = -math.inf
        self._ground = ground
        self._retention = retention
        self._refreshes = refreshes
        self._consents = consents

    def replay(self) -> int:
        """Store answers that dead processes of this host, or failed threads of this one, received and did not store.

        Returns:
            How many records were settled.

        Raises:
            StoreUnavailableError: the database went away; the records that are left stay in the journal.
        """
        return self._refreshes.replay() + self._consents.replay()

    def end_stale_attempts(self) -> int:
        """Mark attempts as in doubt whose lease ran out without an outcome: their process died or hangs.

        A pair or a verdict that still comes late replaces this outcome.

        Returns:
            How many attempts were marked.
        """
        stale = self._ground.store.stale_attempts(BATCH)
        for attempt in stale:
            self._ground.store.record_outcome(
                attempt.grant_id,
                attempt.consent,
                attempt.generation,
                outcome=AttemptOutcome.IN_DOUBT,
                reason="its process ended, or hung, before it recorded an outcome",
            )
        if stale:
            self._ground.hook(Fact("attempts.unfinished", {"attempts": len(stale)}, level="warning"))
        return len(stale)

    def wipe_superseded(self) -> int:
        """Wipe pairs that newer ones replaced long ago, for at most some seconds; return how many."""
        return _in_batches(lambda: self._ground.store.wipe_superseded(WIPE_AFTER_SECONDS, BATCH))

    def wipe_lost(self) -> int:
        """Wipe pairs of creators who were asked to authorize again long ago, once an hour; return how many."""
        if time.monotonic() < self._wipes_lost_at:
            return 0
        self._wipes_lost_at = time.monotonic() + WIPE_LOST_SECONDS
        wiped = _in_batches(lambda: self._ground.store.wipe_lost(self._retention.lost_pairs * 86400, BATCH))
        if wiped:
            self._ground.hook(Fact("pairs.wiped", {"pairs": wiped}))
        return wiped

    def prune(self) -> int:
        """Delete old history, for at most some seconds of each kind; return how many rows."""
        return (
            _in_batches(lambda: self._ground.store.prune_attempts(KEEP_HISTORY_SECONDS, BATCH))
            + _in_batches(lambda: self._ground.store.prune_pairs(KEEP_HISTORY_SECONDS, BATCH))
            + _in_batches(lambda: self._ground.store.prune_hand_outs(KEEP_HISTORY_SECONDS, BATCH))
            + self._ground.store.prune_delivered(KEEP_HISTORY_SECONDS)
        )

    def prune_account_data(self) -> int:
        """Delete account data by its age, for at most some seconds of each kind; return how many rows."""
        store, keep = self._ground.store, self._retention
        gone = (
            _in_batches(
                lambda: store.prune_raw_answers(
                    older_than_days=keep.raw_answers, doubtful_days=KEEP_DOUBTS_DAYS, limit=BATCH
                )
            )
            + _in_batches(lambda: store.prune_other_people(older_than_days=keep.other_people, limit=BATCH))
            + _in_batches(lambda: store.prune_doubts(older_than_days=KEEP_DOUBTS_DAYS, limit=BATCH))
        )
        if (days := keep.history) is not None:
            gone += _in_batches(lambda: store.prune_account_history(older_than_days=days, limit=BATCH))
        return gone


def _in_batches(step: Callable[[], int]) -> int:
    """Repeat a step of at most `BATCH` rows in one transaction, until less than a batch is left or the time is up."""
    end, total = time.monotonic() + BATCHES_SECONDS, 0
    while True:
        done = step()
        total += done
        if done < BATCH or time.monotonic() >= end:
            return total
