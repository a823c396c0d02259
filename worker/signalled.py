"""A flag that a signal handler sets, for the thread that ends the process."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue


class SignalFlag:
    """Wakes the one thread that waits for it; `set` is safe in a signal handler.

    That of `threading.Event` is not: it takes a lock, which the interrupted thread may hold as it begins to wait or
    handles another signal. That thread would wait for itself.
    """

    def __init__(self) -> None:
        """Begin unset."""
        self._set = False
        self._wakes: SimpleQueue[None] = SimpleQueue()  # its `put` may interrupt its `get` and its `put`

    def set(self, *_: object) -> None:
        """Set it; what a signal handler gets is passed over."""
        self._set = True
        self._wakes.put(None)

    def is_set(self) -> bool:
        """Return True if it is set."""
        return self._set

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, and return True if it is.

        Args:
            seconds: for how long at most; None for ever.
        """
        if not self._set:
            with suppress(Empty):
                self._wakes.get(timeout=seconds)
        return self._set
