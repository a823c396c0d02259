"""A TLS end in front of a server on loopback, which keeps what clients say to it.

The head of an answer and its body leave as records of their own, as large servers send them.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import Final, Self

LOOK_SECONDS: Final = 0.05
CHUNK: Final = 65_536
END_OF_HEAD: Final = b"\r\n\r\n"
TLS_BEGINS: Final = b"\x16"


class TlsFront:
    """Takes TLS connections and forwards what is inside to a loopback port; with `plain_too`, plain ones as well.

    Attributes:
        port: where it listens.
        heard: all bytes that clients sent inside TLS.
        refused: handshakes that failed.
    """

    def __init__(self, target_port: int, context: ssl.SSLContext, *, plain_too: bool = False) -> None:
        self._plain_too = plain_too
        self._target = ("127.0.0.1", target_port)
        self._context = context
        self._closing = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._door.settimeout(LOOK_SECONDS)
        self.port: int = self._door.getsockname()[1]
        self.heard = bytearray()
        self.refused = 0
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

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
            thread = threading.Thread(target=self._take, args=(near,))
            thread.start()
            self._threads.append(thread)

    def _take(self, near: socket.socket) -> None:
        near.settimeout(5)
        if self._plain_too and near.recv(1, socket.MSG_PEEK) != TLS_BEGINS:
            with near:
                self._forward(near)
            return
        try:
            with self._context.wrap_socket(near, server_side=True) as inside:
                self._forward(inside)
        except OSError:  # ssl.SSLError is one
            self.refused += 1

    def _forward(self, near: socket.socket) -> None:
        with socket.create_connection(self._target) as far:
            while not self._closing.is_set():
                waits = isinstance(near, ssl.SSLSocket) and near.pending() > 0
                ready: list[socket.socket] = [near] if waits else select.select([near, far], [], [], LOOK_SECONDS)[0]
                for source in ready:
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    if source is near and isinstance(near, ssl.SSLSocket):
                        self.heard += data
                    if source is near:
                        far.sendall(data)
                        continue
                    head, end, body = data.partition(END_OF_HEAD)
                    for record in filter(None, (head + end, body)):
                        near.sendall(record)
