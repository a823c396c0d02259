"""When a process hangs: it could have worked and did nothing, at every look for long enough."""

from __future__ import annotations

from typing import Final, NamedTuple

BUSY_FACTOR: Final = 30
"""A worker whose threads are all busy asks for no message. Its tasks end by their own deadlines, so it gets longer."""
GAP_PART: Final = 0.5
"""Part of the limit; after a longer time without a look, the process was stopped or the host slept, and it counts
again from the start."""
LOOKS: Final = 24
"""Looks in the time of the limit."""


class Progress(NamedTuple):
    """How far a process has come.

    Attributes:
        signs: rises with each sign of work, such as an answer of Redis to the question for messages.
        busy: True if it has no thread free, and so need not ask for messages.
    """

    signs: int
    busy: bool = False


class Evidence:
    """Adds up for how long a process has not moved although it could have.

    Attributes:
        hang_seconds: the time after which a process that could work and does not is known to hang.
    """

    def __init__(self, hang_seconds: float) -> None:
        self.hang_seconds = hang_seconds
        self._seen: Progress | None = None
        self._since = self._last = 0.0

    def weigh(self, now: float, progress: Progress | None) -> float:
        """Return for how many seconds the process has not moved, at every look of that time.

        Args:
            now: seconds of a clock that never goes back.
            progress: how far it has come; None if it could not work, for example because Redis is away.
        """
        unseen = now - self._last > self.hang_seconds * GAP_PART
        if progress is None or progress != self._seen or unseen:
            self._since = now
        self._seen, self._last = progress, now
        return now - self._since

    def hangs(self, now: float, progress: Progress | None) -> bool:
        """Return True if the process is known to hang; arguments as for `weigh`."""
        factor = BUSY_FACTOR if progress is not None and progress.busy else 1
        return self.weigh(now, progress) >= self.hang_seconds * factor
