"""A proxy that can stop forwarding without closing anything, as a firewall that forgot a connection does."""

from __future__ import annotations

import select
import socket
import threading
from typing import Final, Self

LOOK_SECONDS: Final = 0.05
CHUNK: Final = 65_536


class BlackHole:
    """Forwards TCP connections to a loopback port, until it is set to swallow the open ones.

    Attributes:
        port: where it listens.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._closing = threading.Event()
        self._swallowed = threading.Event()
        self._refuses = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(LOOK_SECONDS)
        self.port: int = self._door.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def swallow(self) -> None:
        """From now on nothing passes through the connections that are there; new ones work."""
        self._swallowed.set()
        self._swallowed = threading.Event()

    def stand(self) -> None:
        """From now on nothing passes, and new connections are accepted and get no answer either."""
        self._swallowed.set()

    def cut(self) -> None:
        """Close all connections, and every new one at once."""
        self._refuses.set()
        self._swallowed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._door.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._door.accept()
            except TimeoutError:
                continue
            if self._refuses.is_set():
                near.close()
                continue
            thread = threading.Thread(target=self._forward, args=(near, self._swallowed))
            thread.start()
            self._threads.append(thread)

    def _forward(self, near: socket.socket, swallowed: threading.Event) -> None:
        with near, socket.create_connection(self._target) as far:
            while not self._closing.is_set() and not swallowed.is_set():
                for source in select.select([near, far], [], [], LOOK_SECONDS)[0]:
                    try:
                        data = source.recv(CHUNK)
                        (far if source is near else near).sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        return
            if not self._refuses.is_set():
                self._closing.wait()
