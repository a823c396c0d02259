"""Forgetting a creator: the grant is revoked, then all that is kept of the creator is removed.

A tombstone is written first, so a process that dies leaves the rest to upkeep, or to the same command. What the
database holds is deleted in small transactions, the grant's row last. Then each process removes
answers from the journal of its own host: those that were set aside, and those that dead processes left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from worker.consent.placing import owner_of
from worker.consent.revoke import Revocation
from worker.ground import Ground
from worker.journal import JournalEntry
from worker.telemetry import Fact, FactValue

ROWS: Final = 2_000
"""Most rows of a table that one transaction deletes."""
BATCH: Final = 20
_NEVER_LOOKED: Final = object()


class Forgetting:
    """Removes creators; each process has one instance, which also keeps its own journal clean."""

    def __init__(self, ground: Ground, *, revocation: Revocation) -> None:
        """Take what all use cases share, and what revokes grants."""
        self._ground = ground
        self._revocation = revocation
        self._sweeping = threading.Lock()
        self._seen: object = _NEVER_LOOKED

    def forget(self, creator_id: str, *, here_only: bool = False) -> bool | None:
        """Remove all that is kept of a creator; a second call does nothing, or finishes what the first could not.

        Args:
            creator_id: the creator.
            here_only: True to remove the tokens without a word to TikTok, where the consent lives on.

        Returns:
            What `Revocation.revoke` returns.

        Raises:
            UnknownCreatorError: nothing is kept of the creator, and no tombstone is there either.
            NotReadyError: TikTok has not confirmed the revocation yet; upkeep goes on when it has.
            JournalError: this host's journal could not be cleaned; everything else is removed.
        """
        # A record of an exchange, or a pair that was set aside, may be all that there is.
        known = any(owner == creator_id for owner, _, _ in self._records())
        grant_id = self._ground.store.begin_forgetting(creator_id, known=known)
        self._ground.failpoint("forget_begun")
        at_tiktok: bool | None = None
        if grant_id is not None:
            if here_only:
                self._ground.store.mark_revoked(creator_id)
                at_tiktok = False
            else:
                at_tiktok = self._revocation.finish_soon(grant_id)
            self._remove(grant_id, creator_id)
        self.sweep(again=True)
        self._ground.failpoint("forget_journal")
        return at_tiktok

    def resume(self) -> int:
        """Go on with creators whose removal is not complete and whose revocation is; return how many are gone now.

        Raises:
            StoreUnavailableError: the database went away.
        """
        return sum(
            self._remove(grant_id, creator_id)
            for grant_id, creator_id in self._ground.store.being_forgotten(BATCH)
            if self._ground.store.ending(grant_id) is None
        )

    def sweep(self, *, again: bool = False) -> int:
        """Remove from this host's journal what belongs to forgotten creators; return how many records.

        Cheap while nobody was forgotten since the last call: it costs one read of the database.

        Args:
            again: True to look even if nothing is new.

        Raises:
            StoreUnavailableError: the database went away.
            JournalError: the journal could not be cleaned; the next call tries again.
        """
        with self._sweeping:
            newest = self._ground.store.newest_tombstone()
            if newest is None or (newest == self._seen and not again):
                return 0
            removed = self._clean_journal()
            # Answers that were released stay in a file until the next one begins.
            self._ground.journal.renew()
            self._seen = newest
        return removed

    def _remove(self, grant_id: int, creator_id: str) -> bool:
        while self._ground.store.delete_some_rows(grant_id, ROWS):
            self._ground.failpoint("forget_rows")
        gone = self._ground.store.end_forgetting(grant_id)
        self._ground.failpoint("forget_done")
        if gone:
            self._ground.hook(Fact("grant.forgotten", {"grant_id": grant_id}))
        elif gone is False:
            fields: dict[str, FactValue] = {"grant_id": grant_id, "creator_id": creator_id}
            self._ground.hook(Fact("grant.forget_cancelled", fields, level="warning"))
        return bool(gone)

    def _clean_journal(self) -> int:
        found = list(self._records())
        tombstones = self._ground.store.tombstones({owner for owner, _, _ in found})
        removed = 0
        for owner, entry, remove in found:
            if owner in tombstones and tombstones[owner].covers(entry.received_at):
                remove()
                removed += 1
        if removed:
            self._ground.hook(Fact("journal.forgotten", {"records": removed}))
        return removed

    def _records(self) -> Iterator[tuple[str, JournalEntry, Callable[[], None]]]:
        """Yield owner, answer and what removes it, of each record that was set aside or that a dead process left."""
        aside = self._ground.journal.aside
        for record in aside.records():
            if record.entry is not None:
                yield owner_of(record.entry), record.entry, partial(aside.remove, record.name)
        for orphan in self._ground.journal.orphans():
            yield owner_of(orphan.entry), orphan.entry, orphan.release
