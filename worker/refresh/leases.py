"""Keeping leases: one thread extends the leases of attempts that take long, such as while the database is slow."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from worker.errors import StoreUnavailableError
from worker.refresh.attempt import elapsed_clock
from worker.store import Claim, Store
from worker.telemetry import Fact, Hook

BEATS: Final = 6
"""Heartbeats in the time of one lease: every 20 s of 120 s."""
LONGEST_LEASES: Final = 10
"""After this many lease times the lease may run out: a thread that hangs must not hold a grant forever."""


class LeaseKeeper:
    """Extends the leases that are held in this process; its thread starts with the first one."""

    def __init__(self, *, store: Store, hook: Hook, lease_seconds: float, stop: threading.Event) -> None:
        """Keep what a process shares, and open nothing yet.

        Args:
            store: where leases are.
            hook: where facts go.
            lease_seconds: how long a lease lasts from each heartbeat on.
            stop: set when the process ends.
        """
        self._store = store
        self._hook = hook
        self._lease_seconds = lease_seconds
        self._stop = stop
        self._held: dict[tuple[int, int], tuple[Claim, float]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def hold(self, claims: Sequence[Claim]) -> Iterator[None]:
        """Keep the leases of claims until the block ends, or until `drop` is called for a claim."""
        since = elapsed_clock()
        with self._lock:
            self._held |= {(claim.grant_id, claim.generation): (claim, since) for claim in claims}
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="lease-keeper", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            self.drop(claims)

    def drop(self, claims: Sequence[Claim]) -> None:
        """Stop keeping the leases of claims: their attempts have ended, or were given back."""
        with self._lock:
            for claim in claims:
                self._held.pop((claim.grant_id, claim.generation), None)

    def close(self) -> None:
        """Wait for the thread, which ends when `stop` is set."""
        if self._thread is not None:
            self._thread.join(timeout=self._lease_seconds)

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_seconds / BEATS):
            with self._lock:
                held = list(self._held.items())
            for key, (claim, since) in held:
                # An attempt that is younger than the time between two heartbeats needs none.
                age = elapsed_clock() - since
                if age < self._lease_seconds / BEATS:
                    continue
                if age > self._lease_seconds * LONGEST_LEASES or not self._prolong(claim):
                    self._lose(key, age)

    def _prolong(self, claim: Claim) -> bool:
        try:
            return self._store.extend_lease(claim, self._lease_seconds)
        except StoreUnavailableError:
            return True

    def _lose(self, key: tuple[int, int], age: float) -> None:
        """Stop keeping a lease, and report it as lost unless its attempt has ended meanwhile."""
        with self._lock:
            was_held = self._held.pop(key, None) is not None
        if was_held and age <= self._lease_seconds * LONGEST_LEASES:
            grant_id, generation = key
            self._hook(Fact("lease.lost", {"grant_id": grant_id, "generation": generation}, level="warning"))
