"""Preflight: what must hold before a worker claims anything, and which key it seals with beside other processes."""

from __future__ import annotations

import os
import socket
from typing import Final

from worker.errors import JournalError, NotReadyError, SealError
from worker.ground import Ground
from worker.policy.sealing_key import LIVING_SECONDS, choose_sealing_key
from worker.store import SchemaFit
from worker.telemetry import Fact
from worker.upkeep.upkeep import Upkeep
from worker.vault import Sealer

SENTINEL: Final = b"evertoken sentinel"
SENTINEL_PLACE: Final = b"sentinels"
FOR_READERS: Final = (
    "this keyring is for applications that read access tokens and opens nothing else; use the keyring of the workers"
)
LACKING: Final = "the keyring lacks key {}, which other processes seal with; use the keyring that they have"


class Preflight:
    """Checks database, keyring and journal, and announces this process to the others."""

    def __init__(self, ground: Ground, *, upkeep: Upkeep) -> None:
        self._ground = ground
        self._upkeep = upkeep
        self._chosen: int | None = None
        self._last_reason: str | None = None
        self._newer: str | None = None

    def enter(self) -> None:
        """Join the living processes, store what dead ones of this host had received, and check the journal for room.

        The order matters: received pairs are stored even if this process may not claim anything, such as for lack of
        room, because a replay needs no room in the journal. Only a process that could not seal them so that the others
        can read them does not store them.

        Raises:
            NotReadyError: the database is away or not migrated, or the keyring does not open what is stored.
            JournalError: the journal cannot be written. After either error this process is on no list.
        """
        self.check_schema()
        self.check_keyring()
        try:
            self.hello()
            self._open_sentinels(self._ground.store.sentinels())
            self._upkeep.replay()
            self._ground.journal.ready()
        except BaseException:
            self.goodbye()
            raise
        for warning in self._ground.journal.warnings():
            self._ground.hook(Fact("journal.warning", {"reason": warning}, level="warning"))

    def check_keyring(self) -> None:
        """Open the sentinel of each key in use, and look for pairs of other keys.

        Raises:
            NotReadyError: a key is missing or is not the one that sealed the rows, or the keyring is for readers.
        """
        if self._ground.sealer.keyring.for_readers:
            raise NotReadyError(FOR_READERS)
        sentinels = self._ground.store.sentinels()
        used = self._ground.store.key_usage()
        missing = sorted(set(used) - set(self._ground.sealer.keyring.keys))
        if missing:
            rows = sum(used[key_id] for key_id in missing)
            raise NotReadyError(f"the keyring lacks key {missing[0]}, which {rows} stored pairs are sealed with")
        self._open_sentinels(sentinels)

    def hello(self) -> None:
        """Announce this process and its keys to the other processes, and choose the key that it seals with.

        Raises:
            NotReadyError: this process lacks a key that the others seal with, or no key is held by all.
        """
        self._announce()
        before, self._chosen = self._chosen, self._choose()
        if self._chosen != before:
            self._ground.sealer.seal_with(self._chosen)
            self._announce()

    def goodbye(self) -> None:
        """Take this process off the list of living ones."""
        self._ground.store.goodbye(self._ground.owner)

    def check_schema(self) -> None:
        """Refuse to go on if this version does not run on the database's tables.

        Raises:
            NotReadyError: the tables are too old or too new; the text says what to do.
            StoreUnavailableError: the database is away, such as a SQLite file that is missing for a moment.
        """
        state = self._ground.store.schema_state()
        if not state.runs:
            self._ground.store.ping()
            raise NotReadyError(str(state))
        if state.fit is SchemaFit.NEWER and state.at != self._newer:
            self._newer = state.at
            self._ground.hook(Fact("schema.newer", {"at": state.at, "wanted": state.wanted}))

    def _announce(self) -> None:
        lacking = self._ground.store.hello(
            self._ground.owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            key_ids=self._ground.sealer.keyring.keys,
            sealing_key_id=self._chosen,
            journal_key_ids=self._journal_keys(),
        )
        if lacking:
            raise NotReadyError(LACKING.format(min(lacking)))

    def _choose(self) -> int:
        """Return the active key if all living processes hold it, otherwise the newest key that they hold."""
        keyring = self._ground.sealer.keyring
        agreed = set(self._ground.store.sentinels())
        lacking: tuple[str, ...] = ()
        if keyring.active not in agreed:
            sealed = Sealer(keyring).seal(SENTINEL, SENTINEL_PLACE)
            lacking = self._ground.store.adopt_key(keyring.active, sealed, living_seconds=LIVING_SECONDS)
        choice = choose_sealing_key(active=keyring.active, shared=agreed & set(keyring.keys), lacking=lacking)
        if choice.key_id is None:
            raise NotReadyError(choice.reason)
        if lacking and choice.reason != self._last_reason:
            self._ground.hook(
                Fact("keys.held_back", {"key_id": choice.key_id, "reason": choice.reason}, level="warning")
            )
        self._last_reason = choice.reason
        return choice.key_id

    def _journal_keys(self) -> set[int]:
        try:
            return set(self._ground.journal.key_usage())
        except JournalError:
            return set(self._ground.sealer.keyring.keys)  # no key may be retired while the journal cannot be read

    def _open_sentinels(self, sentinels: dict[int, bytes]) -> None:
        for key_id, sealed in sentinels.items():
            if key_id not in self._ground.sealer.keyring.keys:
                raise NotReadyError(LACKING.format(key_id))
            try:
                self._ground.sealer.open(sealed, SENTINEL_PLACE)
            except SealError:
                raise NotReadyError(
                    f"the keyring's key {key_id} is not the one that sealed the stored pairs; "
                    "set EVERTOKEN_KEYRING to the right keyring"
                ) from None
