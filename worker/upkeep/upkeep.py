"""Upkeep: journals of dead processes are replayed, superseded pairs wiped, and old history is let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain
from typing import Final

from worker.consent.exchanges import LINK, Exchanges, OtherAccountError
from worker.errors import InDoubtError, JournalError, NotFoundError, SealError, StoreUnavailableError, TikTokError
from worker.journal import Journal, JournalEntry, Orphan
from worker.refresh.settlement import Attempt, MisfitError, Settlement
from worker.store import AttemptOutcome, Store
from worker.telemetry import Fact, Hook
from worker.tiktok import RawAnswer, TokenAnswer, bears_refresh_token, read_token_answer, salvage
from worker.vault import PairPlace, Sealer, Token

WIPE_AFTER_SECONDS: Final = 2 * 86400
KEEP_HISTORY_SECONDS: Final = 90 * 86400
BATCH: Final = 500
BATCHES_SECONDS: Final = 10.0
"""A fleet at the highest quota replaces a thousand pairs a minute, so one batch a round would fall behind for ever."""


class Upkeep:
    """What is done from time to time, by any worker, without harm when done twice."""

    def __init__(
        self,
        *,
        store: Store,
        sealer: Sealer,
        journal: Journal,
        settlement: Settlement,
        exchanges: Exchanges,
        hook: Hook,
        own_after_seconds: float,
    ) -> None:
        """Make one for a process.

        Args:
            own_after_seconds: after this time in this process's own journal an answer's thread must have failed.
        """
        self._store = store
        self._sealer = sealer
        self._journal = journal
        self._settlement = settlement
        self._exchanges = exchanges
        self._hook = hook
        self._own_after_seconds = own_after_seconds

    def replay(self) -> int:
        """Store what dead processes of this host, and failed threads of this one, had received and not yet stored.

        Returns:
            How many records were settled.

        Raises:
            StoreUnavailableError: the database went away; what was not settled stays in the journal.
        """
        settled = 0
        for orphan in chain(self._journal.orphans(), self._journal.unreleased(self._own_after_seconds)):
            try:
                settled += self._replay_one(orphan)
            except StoreUnavailableError as error:
                # One row that a living database refuses holds up nothing else; it stays in the journal.
                self._store.ping()
                self._stuck(orphan, error)
            except JournalError as error:
                self._stuck(orphan, error)  # it could not be set aside; it waits
        if settled:
            self._hook(Fact("journal.replayed", {"records": settled}, level="warning"))
        return settled

    def end_stale_attempts(self) -> int:
        """Write down the doubt of attempts whose lease ran out without an outcome: their process died or hangs.

        A pair or a verdict that comes late all the same takes the place of the doubt.

        Returns:
            How many attempts.
        """
        stale = self._store.stale_attempts(BATCH)
        for attempt in stale:
            self._store.record_outcome(
                attempt.grant_id,
                attempt.consent,
                attempt.generation,
                outcome=AttemptOutcome.IN_DOUBT,
                reason="its process ended, or hung, before it wrote an outcome down",
            )
        if stale:
            self._hook(Fact("attempts.unfinished", {"attempts": len(stale)}, level="warning"))
        return len(stale)

    def wipe_superseded(self) -> int:
        """Wipe pairs that newer ones replaced long ago, for some seconds at most; return how many."""
        return _in_batches(lambda: self._store.wipe_superseded(WIPE_AFTER_SECONDS, BATCH))

    def prune(self) -> int:
        """Let go of history that ended long ago, for some seconds of each kind at most; return how many rows."""
        return (
            _in_batches(lambda: self._store.prune_attempts(KEEP_HISTORY_SECONDS, BATCH))
            + _in_batches(lambda: self._store.prune_pairs(KEEP_HISTORY_SECONDS, BATCH))
            + self._store.prune_told(KEEP_HISTORY_SECONDS)
        )

    def _replay_one(self, orphan: Orphan) -> bool:
        entry = orphan.entry
        try:
            if entry.kind == "exchange":
                self._exchanges.store_replayed(_raw(entry), sent_at=entry.sent_at, handle=entry.extra.get(LINK))
            else:
                self._replay_refresh(entry)
        except StoreUnavailableError:
            raise
        except SealError as error:
            # It waits: with the key that is missing it can be stored. The other records go on.
            self._stuck(orphan, error)
            return False
        except OtherAccountError:
            orphan.set_aside()
            return False
        except MisfitError as error:
            self._hook(Fact("journal.misfit", {"grant_id": entry.grant_id, "reason": str(error)}, level="error"))
            orphan.set_aside()
            return False
        except NotFoundError:
            self._hook(Fact("journal.grant_unknown", {"grant_id": entry.grant_id}, level="error"))
            orphan.set_aside()
            return False
        except TikTokError as error:
            # An exchange that brought nothing: the person was told, and the same bytes will never bring more.
            self._hook(Fact("journal.no_pair", {"call": entry.call, "code": error.code}))
            if bears_refresh_token(_raw(entry)):
                orphan.set_aside()
                return False
        orphan.release()
        return True

    def _stuck(self, orphan: Orphan, error: Exception) -> None:
        self._hook(Fact("journal.stuck", {"grant_id": orphan.entry.grant_id, "reason": str(error)}, level="error"))

    def _replay_refresh(self, entry: JournalEntry) -> None:
        grant_id, creator_id, consent, generation = entry.attempt()
        raw = _raw(entry)
        answer, error = _read(raw)
        if answer is None:
            # Another call of the attempt may have rotated the pair unseen: it stays in doubt, whatever this one says.
            self._store.record_outcome(
                grant_id,
                consent,
                generation,
                outcome=AttemptOutcome.IN_DOUBT,
                reason="read from the journal of a process that ended",
                code=None if error is None else error.code,
                http_status=entry.http_status,
            )
            if bears_refresh_token(raw):
                raise MisfitError("an answer held a refresh token and could not be stored")
            return
        grant = self._store.grant_by_id(grant_id)
        attempt = Attempt(grant_id, creator_id, consent, generation, entry.sent_at, grant.jitter, grant.scope)
        refresh = answer.refresh_token
        if refresh is None:
            refresh = self._refresh_token_before(grant_id, consent, generation)
        pair = self._settlement.new_pair(attempt, answer, old_refresh=refresh)
        self._settlement.store_pair(attempt, pair, answer, old_refresh=refresh)

    def _refresh_token_before(self, grant_id: int, consent: int, generation: int) -> Token:
        """Return the newest kept refresh token that is older than this attempt: the one that was sent."""
        kept = [
            stored
            for stored in self._store.all_pairs(after=(grant_id, consent, 0))
            if (stored.grant_id, stored.consent) == (grant_id, consent) and stored.generation < generation
        ]
        if not kept:
            raise NotFoundError(f"no earlier pair of grant {grant_id} is kept")
        place = PairPlace(kept[-1].creator_id, consent, kept[-1].generation)
        return self._sealer.open_refresh(kept[-1].sealed, place)


def _in_batches(step: Callable[[], int]) -> int:
    """Repeat a step of at most `BATCH` rows, each a transaction of its own, until little is left or time is up."""
    end, total = time.monotonic() + BATCHES_SECONDS, 0
    while True:
        done = step()
        total += done
        if done < BATCH or time.monotonic() >= end:
            return total


def _raw(entry: JournalEntry) -> RawAnswer:
    return RawAnswer(
        call=entry.call,
        http_status=entry.http_status,
        body=entry.body,
        complete=entry.complete,
        fault=entry.fault,
        retry_after=entry.retry_after,
    )


def _read(raw: RawAnswer) -> tuple[TokenAnswer | None, TikTokError | None]:
    try:
        return read_token_answer(raw), None
    except InDoubtError as error:
        return salvage(raw), error
    except TikTokError as error:
        return None, error
