"""Rotating keys: stored pairs are sealed again while everything runs, and a key is retired once nothing needs it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.errors import NotReadyError, SealError, UsageError
from worker.ground import Ground
from worker.policy.sealing_key import LIVING_SECONDS
from worker.store import AbandonedKey, StoredPair, WorkerView
from worker.telemetry import Fact
from worker.vault import PairPlace, SealedPair

BATCH: Final = 200
"""Pairs sealed again in one transaction: few enough that no refresh waits long for their rows."""
SILENT_SECONDS: Final = 7 * 86_400.0
"""How long the last report on a host's journal counts if the host's processes crashed and are silent."""
MOST_NAMED: Final = 20
LOST: Final = "the key that sealed the pair is lost (key {})"


@dataclass
class RekeyReport:
    """What a rotation did; also correct after an interruption.

    Attributes:
        key_id: the key that the pairs are sealed with now.
        resealed: pairs that this run sealed again.
        passed_over: pairs that others refreshed, re-sealed or wiped after this run had read them.
        unreadable: how many pairs do not open with this keyring; they were left as they are.
        unreadable_grants: the first grants that these belong to.
    """

    key_id: int
    resealed: int = 0
    passed_over: int = 0
    unreadable: int = 0
    unreadable_grants: list[int] = field(default_factory=list)


class Rekeyer:
    """Seals stored pairs again with the active key, and takes keys out of use."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def left(self) -> int:
        """Return how many stored pairs are not sealed with the active key."""
        active = self._ground.sealer.keyring.active
        return sum(pairs for key_id, pairs in self._ground.store.key_usage().items() if key_id != active)

    def rotate(self, report: RekeyReport, progress: Callable[[int], None] = lambda done: None) -> None:  # noqa: ARG005 - takes a number and does nothing
        """Seal every stored pair again that another key sealed; after an interruption the pairs done stay done.

        Each pair is replaced only if its bytes are still those that were read, so a refresh in between wins.
        Afterwards the app is written into the rows of grants that do not name it yet; the new seals are bound to it.

        Args:
            report: filled as the rotation goes.
            progress: called with the number of pairs that were looked at since the last call.

        Raises:
            NotReadyError: not every living process holds the active key.
            StoreUnavailableError: the database went away.
        """
        self._refuse_held_back()
        after = (0, 0, 0)
        while page := self._ground.store.all_pairs(after, BATCH, not_sealed_with=report.key_id):
            fresh = list(self._sealed_again(page, report))
            replaced = self._ground.store.reseal(fresh)
            report.resealed += replaced
            report.passed_over += len(fresh) - replaced
            after = page[-1].key
            progress(len(page))
        while self._ground.store.say_app(BATCH):
            pass

    def needs(self, key_id: int, *, forget_silent: bool = False) -> Iterator[str]:
        """Yield what still needs a key, in sentences for a person; nothing if the key can be retired.

        Args:
            key_id: the key.
            forget_silent: True to ignore the last reports of processes that fell silent without a goodbye.

        Raises:
            StoreUnavailableError, JournalError: the database or the journal cannot be read.
        """
        if key_id in {self._ground.sealer.keyring.active, self._ground.sealer.sealing_key_id}:
            yield f"this process seals with key {key_id}; make another key active first"
        pairs = self._ground.store.key_usage().get(key_id, 0)
        if pairs:
            yield f"{pairs} stored pairs are sealed with key {key_id}; run `celery -A worker keys rotate`"
        records = self._ground.journal.key_usage().get(key_id, 0)
        if records:
            yield f"{records} records in the journal of this host are sealed with key {key_id}; workers replay them"
        seen = self._ground.store.workers_seen(SILENT_SECONDS)
        living = {worker.instance_id for worker in self._ground.store.workers_seen(LIVING_SECONDS)}
        for worker in seen:
            if worker.instance_id in living and worker.sealing_key_id in {None, key_id} and key_id in worker.key_ids:
                yield f"{_named(worker)} seals with key {key_id}; give it the new keyring and restart it"
        counting = [worker for worker in seen if worker.instance_id in living or not forget_silent]
        for worker in _last_reports(counting, living):
            if key_id in worker.journal_key_ids:
                yield f"{_named(worker)} reported that records of key {key_id} wait in the journal of its host"

    def retire(self, key_id: int, *, forget_silent: bool = False) -> None:
        """Take a key out of use, so that processes may start without it.

        Args:
            key_id: the key.
            forget_silent: as for `needs`.

        Raises:
            UsageError: there is no such key.
            NotReadyError: the key is still needed; the text names everything that needs it.
        """
        reasons = list(self.needs(key_id, forget_silent=forget_silent))
        if not reasons and key_id not in {*self._ground.store.sentinels(), *self._ground.sealer.keyring.keys}:
            raise UsageError(f"there is no key {key_id} to retire")
        if not reasons and not self._ground.store.retire_key(key_id):
            reasons = [f"a pair was sealed with key {key_id} just now"]
        if reasons:
            raise NotReadyError(f"key {key_id} is still needed: {'; '.join(reasons)}")
        self._ground.hook(Fact("keys.retired", {"key_id": key_id}))

    def lost_pairs(self, key_id: int) -> int:
        """Return how many stored pairs `abandon` would wipe.

        Raises:
            UsageError: the keyring holds the key, or there is no such key.
        """
        if key_id in self._ground.sealer.keyring.keys:
            raise UsageError(f"the keyring holds key {key_id}, so it is not lost; `keys retire` takes it out of use")
        pairs = self._ground.store.key_usage()
        if key_id not in {*self._ground.store.sentinels(), *pairs}:
            raise UsageError(f"there is no key {key_id}, and nothing is sealed with it")
        return pairs.get(key_id, 0)

    def abandon(self, key_id: int) -> AbandonedKey:
        """Go on without a key that is lost: wipe what it sealed, and ask the creators whose current pair that was.

        Raises:
            UsageError: as for `lost_pairs`.
            NotReadyError: a living process holds the key, so it is not lost.
        """
        self.lost_pairs(key_id)
        done = self._ground.store.abandon_key(key_id, LOST.format(key_id), living_seconds=LIVING_SECONDS)
        if done.held_by:
            holders = ", ".join(done.held_by)
            raise NotReadyError(f"key {key_id} is not lost: {holders} (host:process) holds it; take it from there")
        self._ground.hook(
            Fact("keys.abandoned", {"key_id": key_id, "pairs": done.pairs, "grants": done.asked}, level="warning")
        )
        return done

    def _refuse_held_back(self) -> None:
        active = self._ground.sealer.keyring.active
        if self._ground.sealer.sealing_key_id != active:
            lacking = [
                _named(worker)
                for worker in self._ground.store.workers_seen(LIVING_SECONDS)
                if active not in worker.key_ids
            ]
            raise NotReadyError(
                f"key {active} is active here, but not every living process holds it: {'; '.join(lacking)}. "
                "Give them the new keyring and restart them; nothing was re-sealed"
            )

    def _sealed_again(self, page: Iterable[StoredPair], report: RekeyReport) -> Iterator[tuple[StoredPair, SealedPair]]:
        for stored in page:
            place = PairPlace(stored.creator_id, stored.consent, stored.generation)
            try:
                access = self._ground.sealer.open_access(stored.sealed, place)
                refresh = self._ground.sealer.open_refresh(stored.sealed, place)
            except SealError as error:
                report.unreadable += 1
                if stored.grant_id not in report.unreadable_grants[-1:] and len(report.unreadable_grants) < MOST_NAMED:
                    report.unreadable_grants.append(stored.grant_id)
                    self._ground.hook(
                        Fact("keys.unreadable", {"grant_id": stored.grant_id, "reason": str(error)}, level="warning")
                    )
                continue
            yield stored, self._ground.sealer.seal_pair(access, refresh, place)


def _last_reports(seen: Sequence[WorkerView], living: Container[str]) -> list[WorkerView]:
    """Return the living processes, and of each host the process seen last: it has replayed what others left.

    Every living process counts, since two on a host may have journals in different folders.
    """
    last: dict[str, WorkerView] = {}
    for worker in sorted(seen, key=lambda worker: worker.last_seen_at):
        last[worker.host] = worker
    return [worker for worker in seen if worker.instance_id in living or last[worker.host] is worker]


def _named(worker: WorkerView) -> str:
    return f"process {worker.pid} on {worker.host} (seen {worker.last_seen_at:%Y-%m-%d %H:%M:%S} UTC)"
