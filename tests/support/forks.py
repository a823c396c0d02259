"""A server that forks: it wakes for orders and for news of its children, and leaves none behind."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress


class Forks:
    """The children of this process, which has one thread.

    Attributes:
        alive: the process ids of those that have not ended.
    """

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)

    def wait(self, *sources: int) -> tuple[list[int], bool]:
        """Wait for one of these descriptors or for news; return those that can be read, and whether there are news."""
        ready, _, _ = select.select([*sources, self._near.fileno()], [], [])
        news = self._near.fileno() in ready
        if news:
            with suppress(BlockingIOError):
                self._near.recv(4096)
        return [source for source in sources if source in ready], news

    def fork(self) -> int:
        """Return a child's process id; 0 in the child, whose signals are as at the start of a process."""
        pid = os.fork()
        if pid:
            self.alive.add(pid)
        else:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._near.close()
            self._far.close()
        return pid

    def news(self, *, stops: bool = False) -> Iterator[tuple[int, int]]:
        """Yield process id and wait status of children that ended; with `stops`, of those that stopped or go on too."""
        while self.alive:
            pid, status = os.waitpid(-1, os.WNOHANG | ((os.WUNTRACED | os.WCONTINUED) if stops else 0))
            if pid == 0:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self.alive.discard(pid)
            yield pid, status

    def kill(self) -> None:
        """Kill those that are left."""
        for pid in self.alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
