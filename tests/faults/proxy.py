"""A proxy before a database server: it can be down, or lose the answer to a COMMIT that the server has carried out."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

CHUNK: Final = 65_536
COMMIT: Final = b"COMMIT"


class Proxy:
    """Stands between workers and a server; a context that ends it.

    Attributes:
        url: the server's address, by way of the proxy.
        lose_commits: how many of the next answers to a COMMIT are lost with their connection.
        lost: how many were.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{self._port}/")
        self.lose_commits = 0
        self.lost = 0
        self._down = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def down(self) -> None:
        """Break every connection and take no new one."""
        with self._lock:
            self._down = True
            for end in self._open:
                _break(end)

    def up(self) -> None:
        """Take connections again."""
        self._down = False

    def lead_to(self, url: str) -> None:
        """Let new connections end at another server."""
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        _break(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work: object, *args: object) -> None:
        self._threads.append(threading.Thread(target=work, args=args))  # type: ignore[arg-type]  # two shapes of work
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._down:
                near.close()
                continue
            far = socket.create_connection(self._target)
            with self._lock:
                self._open |= {near, far}
            losing = threading.Event()
            self._start(self._carry, near, far, losing, True)
            self._start(self._carry, far, near, losing, False)

    def _carry(self, source: socket.socket, target: socket.socket, losing: threading.Event, upward: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if upward and self.lose_commits and COMMIT in data:
                    self.lose_commits -= 1
                    losing.set()
                elif not upward and losing.is_set():
                    self.lost += 1
                    break
                target.sendall(data)
        for end in (source, target):
            _break(end)
        with self._lock:
            if source in self._open and target in self._open:
                self._open -= {source, target}
            else:
                source.close()
                target.close()


def _break(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
