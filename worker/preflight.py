"""Preflight: what must hold before a worker claims anything, told in one line where it does not."""

from __future__ import annotations

import os
import socket
from typing import Final

from worker.errors import NotReadyError, SealError
from worker.store import Store
from worker.telemetry import Fact, Hook
from worker.vault import Journal, Sealer

SENTINEL: Final = b"evertoken sentinel"
SENTINEL_PLACE: Final = b"sentinels"


class Preflight:
    """Checks database, keyring and journal, and reports this worker to the others."""

    def __init__(self, *, store: Store, sealer: Sealer, journal: Journal, hook: Hook, owner: str) -> None:
        self._store = store
        self._sealer = sealer
        self._journal = journal
        self._hook = hook
        self._owner = owner

    def check(self) -> None:
        """Refuse to go on where a result could not be kept.

        Raises:
            NotReadyError: the database is away or not migrated, or the keyring does not open what is stored.
            JournalError: the journal cannot be written.
        """
        state = self._store.schema_state()
        if not state.current:
            raise NotReadyError(
                f"the database is at migration {state.at or 'none'} and {state.wanted} is needed; "
                "run `celery -A worker db upgrade`"
            )
        self.check_keyring()
        self._journal.ready()
        for warning in self._journal.warnings():
            self._hook(Fact("journal.warning", {"reason": warning}, level="warning"))

    def check_keyring(self) -> None:
        """Open one sealed record of each key in use.

        Raises:
            NotReadyError: a key is missing or is another one than sealed the rows.
        """
        sentinels = self._store.sentinels()
        used = self._store.key_usage()
        missing = sorted(set(used) - set(self._sealer.keyring.keys))
        if missing:
            rows = sum(used[key_id] for key_id in missing)
            raise NotReadyError(f"the keyring lacks key {missing[0]}, which {rows} stored pairs are sealed with")
        for key_id, sealed in sentinels.items():
            if key_id in self._sealer.keyring.keys:
                self._open(key_id, sealed)
        active = self._sealer.active_key_id
        if active not in sentinels:
            self._store.put_sentinel(active, self._sealer.seal(SENTINEL, SENTINEL_PLACE))
            self._open(active, self._store.sentinels()[active])

    def hello(self) -> None:
        """Tell the other workers of this one and of the keys that it can open."""
        self._store.hello(
            self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            key_ids=sorted(self._sealer.keyring.keys),
        )

    def goodbye(self) -> None:
        """Take this worker off the list of living ones."""
        self._store.goodbye(self._owner)

    def _open(self, key_id: int, sealed: bytes) -> None:
        try:
            self._sealer.open(sealed, SENTINEL_PLACE)
        except SealError:
            raise NotReadyError(
                f"the keyring's key {key_id} is not the one that sealed the stored pairs; "
                "bring the right EVERTOKEN_KEYRING"
            ) from None
