"""A real HTTP proxy on loopback: it opens tunnels, or refuses them in the way a test asks for."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Callable
from typing import Final, Self

LOOK_SECONDS: Final = 0.05
CHUNK: Final = 65_536
HOST: Final = "tiktok.example"
"""A name that no resolver knows: whoever is reached by it was found by the proxy."""
OPEN: Final = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: tests\r\n\r\n"


class ConnectProxy:
    """Takes `CONNECT` and forwards what is inside the tunnel to loopback, whatever name was asked for.

    Attributes:
        port: where it listens.
        heads: each request's head, as it came.
        forwarded: bytes that clients sent through tunnels.
        login: `user:password` that it demands, or None.
        refuse: what it does in place of opening a tunnel, with the client's connection, or None.
        halt: set when the proxy ends; what stalls waits on it.
    """

    def __init__(self) -> None:
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(LOOK_SECONDS)
        self.port: int = self._door.getsockname()[1]
        self.heads: list[bytes] = []
        self.forwarded = bytearray()
        self.login: str | None = None
        self.refuse: Callable[[socket.socket], None] | None = None
        self.halt = threading.Event()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.halt.set()
        for thread in self._threads:
            thread.join()
        self._door.close()

    @property
    def url(self) -> str:
        """Its address, without a login."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked(self) -> list[str]:
        """Each `host:port` that a tunnel was asked for."""
        return [head.split(b" ")[1].decode() for head in self.heads]

    def answer(self, *pieces: bytes, every: float = 0.0) -> None:
        """Give each `CONNECT` these bytes, `every` seconds apart, and no tunnel."""

        def refuse(near: socket.socket) -> None:
            for piece in pieces:
                near.sendall(piece)
                if every and self.halt.wait(every):
                    break

        self.refuse = refuse

    def _serve(self) -> None:
        while not self.halt.is_set():
            try:
                near, _ = self._door.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._take, args=(near,))
            thread.start()
            self._threads.append(thread)

    def _take(self, near: socket.socket) -> None:
        near.settimeout(5)
        with near, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = near.recv(CHUNK)
                if not piece:
                    return
                head += piece
            self.heads.append(head)
            wanted = None if self.login is None else base64.b64encode(self.login.encode())
            if wanted is not None and b"\r\nProxy-Authorization: Basic " + wanted + b"\r\n" not in head:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif self.refuse is not None:
                self.refuse(near)
            else:
                port = int(head.split(b" ")[1].rpartition(b":")[2])
                with socket.create_connection(("127.0.0.1", port)) as far:
                    near.sendall(OPEN)
                    self._forward(near, far)

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        while not self.halt.is_set():
            for source in select.select([near, far], [], [], LOOK_SECONDS)[0]:
                data = source.recv(CHUNK)
                if not data:
                    return
                if source is near:
                    self.forwarded += data
                (far if source is near else near).sendall(data)
