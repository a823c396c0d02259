"""A group of attempts that one thread works on, and how large a group may be."""

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
"""Most grants in a group: a killed process leaves at most this many attempts a thread without an outcome."""
FIRST_GUESS_SECONDS: Final = 0.2
SLACK: Final = 1.25
"""Calls are expected to take longer than lately by this factor: a permit that is used before its moment costs nothing,
one that is used after it costs a call to Redis."""
MEMORY: Final = 0.8
LONG_SECONDS: Final = LEAD_SECONDS / 4
"""A call that takes at least this long has waited for TikTok."""
LONGEST_START_SECONDS: Final = LEAD_SECONDS / 4
LEAST_WORK_SECONDS: Final = 0.0001
FEWEST_THREADS: Final = 3
"""While one thread waits for the database, another one works."""
CALLS: Final = 32
"""Among this many last calls, the one that waited least waited for TikTok and not for other threads."""
LONGEST_TURN_SECONDS: Final = 1.0


class Pace:
    """How long calls take, and so how large groups may be and how many threads are of use; shared by all threads.

    A slow call makes groups small at once; they grow again step by step. A call that took only a little longer may have
    waited for other threads, so it only counts towards the average.
    """

    def __init__(self, seconds: float = FIRST_GUESS_SECONDS) -> None:
        """Begin with a guess of how long a call takes."""
        self._seconds = seconds
        self._start = 0.0
        self._work: float | None = None
        self._waits = deque([seconds], maxlen=CALLS)

    @property
    def seconds(self) -> float:
        """Seconds from one call of a thread to its next, with some slack."""
        return self._seconds * SLACK

    @property
    def start(self) -> float:
        """Seconds from the permits of a group to its first call: its grants are claimed meanwhile."""
        return min(self._start * SLACK, LONGEST_START_SECONDS)

    @property
    def group_size(self) -> int:
        """How many calls fit into the time for which permits are given ahead."""
        return max(1, min(MOST, int((LEAD_SECONDS - self.start) / self.seconds)))

    @property
    def threads(self) -> int:
        """How many threads are of use: while one waits for TikTok the others work, and Python runs one at a time."""
        return FEWEST_THREADS + int(min(self._waits) / max(self._work or 0.0, LEAST_WORK_SECONDS))

    def note(self, seconds: float, waited: float | None = None) -> None:
        """Note how long a call has taken, and for how much of that time its thread was idle."""
        average = MEMORY * self._seconds + (1 - MEMORY) * seconds
        self._seconds = max(seconds, average) if seconds >= LONG_SECONDS else average
        self._waits.append(seconds if waited is None else max(0.0, waited))

    def note_start(self, seconds: float) -> None:
        """Note the time from the permits of a group to its first call."""
        self._start = MEMORY * self._start + (1 - MEMORY) * seconds

    def note_work(self, seconds: float, refreshes: int) -> None:
        """Note the processor time that these refreshes have taken."""
        if refreshes:
            work = seconds / refreshes
            self._work = work if self._work is None else MEMORY * self._work + (1 - MEMORY) * work


class Turns:
    """Lets only as many threads refresh groups at once as are useful; the others wait.

    More threads would take the processor from each other within every call: groups would get smaller and each refresh
    more expensive. A group that takes long does not count: its thread waits for something.
    """

    def __init__(self) -> None:
        self._begun: dict[object, float] = {}
        self._free = threading.Condition()

    @contextmanager
    def one(self, pace: Pace) -> Iterator[None]:
        """Wait for a turn, and keep it for the block."""
        turn = object()
        with self._free:
            while self._taken() >= pace.threads:
                self._free.wait(LONGEST_TURN_SECONDS / 4)
            self._begun[turn] = elapsed_clock()
        try:
            yield
        finally:
            with self._free:
                del self._begun[turn]
                self._free.notify()

    def _taken(self) -> int:
        latest = elapsed_clock() - LONGEST_TURN_SECONDS
        return sum(begun > latest for begun in self._begun.values())


class Group:
    """Attempts under way together.

    Attributes:
        waiting: attempts that were not sent yet; those that remain in the end are given back.
        odd: attempts that are treated alone.
        results: the results of the others.
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

    def set_answered(self) -> None:
        """Take the first waiting attempt, whose call was answered."""
        self.began = True
        self._answered.append(self.waiting.popleft())

    def set_odd(self) -> None:
        """Let the first waiting attempt be treated alone."""
        self.odd.append(self.waiting.popleft())

    def take_answered(self) -> list[Attempt]:
        """Take the attempts whose answers nobody has read yet."""
        return [self._answered.popleft() for _ in range(len(self._answered))]


class Watch:
    """Concludes the answered attempts of a group while one of its calls takes long; one thread watches all groups.

    The thread starts with the first group and sleeps while there is none.
    """

    def __init__(self, conclude: Callable[[Group], None]) -> None:
        """Take what reads and stores the answers that a group has got."""
        self._conclude = conclude
        self._begun: dict[Group, float] = {}
        self._lock, self._news = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, group: Group, *, seconds: float) -> Iterator[None]:
        """Watch a group for as long as the block takes; if that takes longer than `seconds`, conclude it once."""
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
                # In a separate thread: a database that is away must not keep the other groups waiting.
                threading.Thread(target=self._conclude, args=(group,), name="group-watch", daemon=True).start()


def _is_odd(attempt: Attempt) -> bool:
    claim = attempt.claim
    return bool(claim.unresolved) or claim.unproven or claim.sealed is None
