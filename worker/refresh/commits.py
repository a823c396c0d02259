"""Patient commits: results of TikTok's answers are stored, however long the database is away.

A write that the database does not take at once is retried for a while, then set aside as left over and retried before
anything new is claimed. The result is in the journal all the time, so a killed process loses nothing either.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from worker.errors import EvertokenError, StoreRefusedError, StoreUnavailableError
from worker.telemetry import Fact, Hook

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
RETRY_STUCK_SECONDS: Final = 60.0
"""How often results that a reachable database refused are retried."""


class PatientCommits:
    """Runs database writes of results until they commit; thread-safe."""

    def __init__(
        self, *, patience_seconds: float, alive: Callable[[], bool], stop: threading.Event, hook: Hook
    ) -> None:
        """Begin without results that wait.

        Args:
            patience_seconds: how long one write is tried before it is set aside.
            alive: returns True if the database answers at all.
            stop: set when the process ends; waiting stops at once.
            hook: where facts go.
        """
        self._patience_seconds = patience_seconds
        self._alive = alive
        self._stop = stop
        self._hook = hook
        self._retry_stuck_at = -math.inf
        self._left_over: deque[Callable[[], None]] = deque()
        self._stuck: deque[Callable[[], None]] = deque()
        self._settling = threading.Lock()

    def run(self, write: Callable[[], None], *, until_done: bool = False) -> bool:
        """Run a write until it commits.

        Args:
            write: one idempotent transaction; raises StoreUnavailableError if it did not commit.
            until_done: True if no journal record backs the result: it is retried without end, and when the process
                ends, for as long as any other result.

        Returns:
            True when committed; False when set aside for `settle`.
        """
        pause, end, last_chance = FIRST_PAUSE_SECONDS, time.monotonic() + self._patience_seconds, False
        while True:
            try:
                write()
            except StoreUnavailableError:
                stopping = self._stop.is_set()
                if until_done and stopping and not last_chance:
                    last_chance, end = True, time.monotonic() + self._patience_seconds
                over = time.monotonic() > end and (last_chance or not until_done)
                if over or (stopping and not until_done):
                    self._left_over.append(write)
                    return False
                (time.sleep if last_chance else self._stop.wait)(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                return True

    def run_group(self, together: Callable[[], None], alone: Sequence[Callable[[], None]]) -> list[bool]:
        """Run the writes of a group in one transaction until it commits; one by one if a row makes the group fail.

        Args:
            together: all writes, as one idempotent transaction.
            alone: the same writes, each in a separate transaction.

        Returns:
            For each write what `run` would return.
        """
        if len(alone) == 1:
            return [self.run(alone[0])]
        pause, end = FIRST_PAUSE_SECONDS, time.monotonic() + self._patience_seconds
        while True:
            try:
                together()
            except EvertokenError as error:
                if isinstance(error, StoreRefusedError) or not isinstance(error, StoreUnavailableError):
                    return [self._once(write) for write in alone]
                if time.monotonic() > end or self._stop.is_set():
                    self._left_over.extend(alone)
                    return [False] * len(alone)
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                return [True] * len(alone)

    def _once(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except EvertokenError:
            self._left_over.append(write)
            return False
        return True

    def settle(self) -> bool:
        """Retry the left-over writes; return True if new work may be claimed.

        A result that a reachable database refuses becomes a stuck one, so that it delays nothing else; stuck results
        are retried once in a while.
        """
        if self._stuck and time.monotonic() >= self._retry_stuck_at:
            self._retry_stuck_at = time.monotonic() + RETRY_STUCK_SECONDS
            self.retry_stuck()
        if not self._left_over:
            return True
        if not self._settling.acquire(blocking=False):
            return False
        try:
            while self._left_over:
                try:
                    self._left_over[0]()
                except EvertokenError as error:
                    if isinstance(error, StoreUnavailableError) and not self._alive():
                        return False
                    self._put_aside(self._left_over[0], error)
                self._left_over.popleft()
            return True
        finally:
            self._settling.release()

    def _put_aside(self, write: Callable[[], None], error: EvertokenError) -> None:
        if not self._stuck:
            self._retry_stuck_at = time.monotonic() + RETRY_STUCK_SECONDS
            self._hook(Fact("results.stuck", {"reason": str(error)}, level="error"))
        self._stuck.append(write)

    def retry_stuck(self) -> int:
        """Retry the stuck results; return how many stay stuck."""
        waited = bool(self._stuck)
        for _ in range(len(self._stuck)):
            write = self._stuck.popleft()
            try:
                write()
            except EvertokenError:
                self._stuck.append(write)
        if waited and not self._stuck:
            self._hook(Fact("results.stored", {}))
        return len(self._stuck)
