"""A group of attempts that one thread has in hand, and how large a group may be."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from worker.limiter import LEAD_SECONDS
from worker.refresh.attempt import Attempt, elapsed_clock
from worker.refresh.results import Result

MOST: Final = 50
"""Most grants that one thread has in hand: a process that is killed leaves no more than these without an outcome."""
FIRST_GUESS_SECONDS: Final = 0.2
SLACK: Final = 1.25
"""Calls are expected to take so much longer than lately: a permit used before its moment costs nothing, one after it
costs a question."""
MEMORY: Final = 0.8


class Pace:
    """How long a call takes, and so how many grants can be sent within a moment; shared by the threads of a process.

    One slow call makes groups small at once; they grow again step by step.
    """

    def __init__(self, seconds: float = FIRST_GUESS_SECONDS) -> None:
        """Begin with a guess of how long a call takes."""
        self._seconds = seconds

    @property
    def seconds(self) -> float:
        """Seconds from one call of a thread to its next, with some slack."""
        return self._seconds * SLACK

    @property
    def group_size(self) -> int:
        """How many calls fit into the time for which permits are given ahead."""
        return max(1, min(MOST, int(LEAD_SECONDS / self.seconds)))

    def note(self, seconds: float) -> None:
        """Take notice of what a call has taken."""
        self._seconds = max(seconds, MEMORY * self._seconds + (1 - MEMORY) * seconds)


class Group:
    """Attempts under way together.

    Attributes:
        waiting: attempts that were not sent yet; what is left here in the end is given back.
        odd: attempts that are treated alone.
        results: what became of the others.
        began: True if something was sent.
        concluding: held while answers are read and stored, which another thread may do while a call takes long.
    """

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        self.waiting = deque(attempt for attempt in attempts if not _is_odd(attempt))
        self.odd = [attempt for attempt in attempts if _is_odd(attempt)]
        self.results: list[Result] = []
        self.began = False
        self.concluding = threading.Lock()
        self._answered: deque[Attempt] = deque()

    def keep(self) -> None:
        """Take the first waiting attempt, whose call was answered."""
        self.began = True
        self._answered.append(self.waiting.popleft())

    def leave(self) -> None:
        """Let the first waiting attempt be treated alone."""
        self.odd.append(self.waiting.popleft())

    def take(self) -> list[Attempt]:
        """Take the attempts whose answers nobody has read yet."""
        return [self._answered.popleft() for _ in range(len(self._answered))]


class Watch:
    """Concludes what a group has got while one of its calls takes long; one thread looks after all groups.

    The thread starts with the first group and sleeps while none is in hand.
    """

    def __init__(self, conclude: Callable[[Group], None]) -> None:
        """Take what reads and stores the answers that a group has got."""
        self._conclude = conclude
        self._begun: dict[Group, float] = {}
        self._lock, self._news = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, group: Group, *, seconds: float) -> Iterator[None]:
        """Watch a group for as long as the block takes; if that is longer than so many seconds, conclude it once."""
        with self._lock:
            self._begun[group] = elapsed_clock() + seconds
            if not self._news.is_set():
                self._news.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, args=(seconds / 4,), name="group-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._begun.pop(group, None)

    def _run(self, pause: float) -> None:
        while self._news.wait():
            time.sleep(pause)
            with self._lock:
                now = elapsed_clock()
                late = [group for group, until in self._begun.items() if until <= now]
                for group in late:
                    del self._begun[group]
                if not self._begun:
                    self._news.clear()
            for group in late:
                # In a thread of its own: a database that is away must not keep the other groups waiting.
                threading.Thread(target=self._conclude, args=(group,), name="group-watch", daemon=True).start()


def _is_odd(attempt: Attempt) -> bool:
    claim = attempt.claim
    return bool(claim.unresolved) or claim.unproven or claim.sealed is None
