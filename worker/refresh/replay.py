"""Replaying journaled answers to refreshes, left by dead processes of this host or failed threads of this process.

A received answer is stored, however late. A record is released when its result has committed.
"""

from __future__ import annotations

from itertools import chain
from typing import ClassVar

from worker.errors import JournalError, NotFoundError, SealError, StoreUnavailableError, TikTokError
from worker.ground import Ground
from worker.journal import JournalEntry, Orphan
from worker.policy.verdicts import AttemptOutcome
from worker.records import answer_in
from worker.refresh.settlement import Answered, MisfitError, Settlement
from worker.telemetry import Fact
from worker.tiktok import TokenAnswer, bears_refresh_token, read_or_salvage
from worker.vault import PairPlace, Token


class Replayer:
    """Stores journaled answers to refreshes.

    Attributes:
        kind: which journal records are replayed.
    """

    kind: ClassVar[str] = "refresh"

    def __init__(self, ground: Ground, *, settlement: Settlement, own_after_seconds: float) -> None:
        """Prepare for a process.

        Args:
            ground: what all use cases share.
            settlement: stores pairs.
            own_after_seconds: age after which the thread of an answer in this process's own journal must have failed.
        """
        self._ground = ground
        self._settlement = settlement
        self._own_after_seconds = own_after_seconds

    def replay(self) -> int:
        """Store answers that dead processes of this host, or failed threads of this one, received and did not store.

        Returns:
            How many records were settled.

        Raises:
            StoreUnavailableError: the database went away; what was not settled stays in the journal.
        """
        settled = 0
        for orphan in chain(self._ground.journal.orphans(), self._ground.journal.unreleased(self._own_after_seconds)):
            if orphan.entry.kind != self.kind:
                continue
            try:
                settled += self._replay_one(orphan)
            except StoreUnavailableError as error:
                # A row that a reachable database refuses delays nothing else; its answer stays in the journal.
                self._ground.store.ping()
                self._stuck(orphan, error)
            except JournalError as error:
                self._stuck(orphan, error)  # it could not be set aside; it waits
        if settled:
            self._ground.hook(Fact("journal.replayed", {"records": settled}, level="warning"))
        return settled

    def _replay_one(self, orphan: Orphan) -> bool:
        entry = orphan.entry
        try:
            self._store(entry)
        except StoreUnavailableError:
            raise
        except SealError as error:
            # It waits: with the missing key it can be stored. The other records go on.
            self._stuck(orphan, error)
            return False
        except MisfitError as error:
            self._ground.hook(Fact("journal.misfit", {"grant_id": entry.grant_id, "reason": str(error)}, level="error"))
            orphan.set_aside()
            return False
        except NotFoundError:
            if self._forgotten(entry):
                orphan.release()
                return True
            self._ground.hook(Fact("journal.grant_unknown", {"grant_id": entry.grant_id}, level="error"))
            orphan.set_aside()
            return False
        except TikTokError as error:
            # An exchange that brought nothing: its command reported that, and the same bytes will never bring more.
            self._ground.hook(Fact("journal.no_pair", {"call": entry.call, "code": error.code}))
            if bears_refresh_token(answer_in(entry)):
                orphan.set_aside()
                return False
        orphan.release()
        return True

    def _forgotten(self, entry: JournalEntry) -> bool:
        """Return True if the grant is not there because its creator was forgotten after this answer."""
        tombstone = self._ground.store.tombstones([entry.creator_id or ""]).get(entry.creator_id or "")
        return tombstone is not None and tombstone.covers(entry.received_at)

    def _stuck(self, orphan: Orphan, error: Exception) -> None:
        self._ground.hook(
            Fact("journal.stuck", {"grant_id": orphan.entry.grant_id, "reason": str(error)}, level="error")
        )

    def _store(self, entry: JournalEntry) -> None:
        """Store the result of one answer."""
        grant_id, creator_id, consent, generation = entry.attempt()
        raw = answer_in(entry)
        answer = read_or_salvage(raw)
        if not isinstance(answer, TokenAnswer):
            # Another call of the attempt may have rotated the pair unseen: it stays in doubt, whatever this one says.
            self._ground.store.record_outcome(
                grant_id,
                consent,
                generation,
                outcome=AttemptOutcome.IN_DOUBT,
                reason="read from the journal of a process that ended",
                code=answer.code,
                http_status=entry.http_status,
            )
            if bears_refresh_token(raw):
                self._ground.store.note_aside(grant_id, consent, generation)
                raise MisfitError("an answer held a refresh token and could not be stored")
            return
        grant = self._ground.store.grant_by_id(grant_id)
        sent = answer.refresh_token
        if sent is None:
            sent = self._refresh_token_before(grant_id, consent, generation)
        answered = Answered(
            grant_id=grant_id,
            creator_id=creator_id,
            consent=consent,
            generation=generation,
            sent_at=entry.sent_at,
            jitter=grant.jitter,
            scope=grant.scope,
            sent=sent,
            answer=answer,
        )
        self._settlement.store([(answered, self._settlement.seal(answered))])

    def _refresh_token_before(self, grant_id: int, consent: int, generation: int) -> Token:
        """Return the newest kept refresh token that is older than this attempt: the one that was sent."""
        kept = [
            stored
            for stored in self._ground.store.all_pairs(after=(grant_id, consent, 0))
            if (stored.grant_id, stored.consent) == (grant_id, consent) and stored.generation < generation
        ]
        if not kept:
            raise NotFoundError(f"no earlier pair of grant {grant_id} is kept")
        place = PairPlace(kept[-1].creator_id, consent, kept[-1].generation)
        return self._ground.sealer.open_refresh(kept[-1].sealed, place)
