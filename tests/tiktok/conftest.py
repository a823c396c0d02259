"""Fixtures of the client's tests: hostile raw-socket servers, clients towards them, and answers of TikTok's shape."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from worker.egress import Egress, Proxy
from worker.tiktok import REFRESH_CALL, RawAnswer, TikTok
from worker.vault import Token


class Canaries(NamedTuple):
    """Secrets that must not show anywhere; what the client is made with and what it sends."""

    secret: str = "app-secret-4f6a-CANARY"
    refresh: str = "rft.CANARY-old-refresh-0123456789!4321.e1"
    code: str = "CANARYcode*0123456789!4321.e1"
    access: str = "act.CANARY-old-access-0123456789!4321.e1"


CANARIES = Canaries()

settings.register_profile("quick", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=10_000)
settings.load_profile(os.environ.get("EVERTOKEN_TEST_EXAMPLES", "quick"))

Client = Callable[..., TikTok]
Raw = Callable[..., RawAnswer]
Servers = Callable[..., "Hostile"]
Behave = Callable[[socket.socket, bytes], bool]
"""Answers one request on a connection; True keeps the connection for another one."""


class Hostile:
    """Listens on a free loopback port until closed.

    Attributes:
        behave: what is done with each complete request.
        greet: what is done with each new connection before anything is read.
        requests: the requests, head and body, as they came.
        connections: how many connections were accepted.
        halt: set when the server closes; what drips or stalls waits on it instead of sleeping.
        answered: set once the last byte of an answer has left.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, *, handshake: bool = True) -> None:
        self.behave: Behave = lambda _connection, _request: False
        self.greet: Callable[[socket.socket], None] = lambda _connection: None
        self.requests: list[bytes] = []
        self.connections = 0
        self.halt = threading.Event()
        self.answered = threading.Event()
        self._tls = tls
        self._handshake = handshake
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []
        self._threads[0].start()

    @property
    def port(self) -> int:
        """The port listened on."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """A base address for the client."""
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}/open_api"

    def answer(self, *pieces: bytes, reset: bool = False, every: float = 0.0, stay: bool = False) -> None:
        """Answer every request with these bytes, `every` seconds apart, and close (reset, or stay) then."""

        def behave(connection: socket.socket, _request: bytes) -> bool:
            for piece in pieces:
                connection.sendall(piece)
                if every and self.halt.wait(every):
                    break
            self.answered.set()
            if stay:
                self.halt.wait(30)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False

        self.behave = behave

    def close(self) -> None:
        """Close the listener and every connection, and wait for the threads."""
        self.halt.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    @staticmethod
    def framed(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
        """Return a whole HTTP answer with its Content-Length."""
        return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body

    @staticmethod
    def chunked(body: bytes, size: int = 40) -> bytes:
        """Return a whole HTTP answer in chunks."""
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"

    @staticmethod
    def until_closed(body: bytes) -> bytes:
        """Return a whole HTTP answer that ends where the connection does."""
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body

    def _accept(self) -> None:
        while not self.halt.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        if not self._handshake:
            self.halt.wait(30)
            plain.close()
            return
        connection = plain
        with contextlib.suppress(OSError):
            self.greet(plain)
            if self._tls is not None:
                plain.settimeout(10)
                connection = self._tls.wrap_socket(plain, server_side=True)
                connection.settimeout(None)
                self._open.append(connection)
            while (request := _read_request(connection)) is not None:
                self.requests.append(request)
                if not self.behave(connection, request):
                    break
        connection.close()
        plain.close()


def _read_request(connection: socket.socket) -> bytes | None:
    """Read one request, or return None if the peer closed before its end."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return None
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    return head + b"\r\n\r\n" + body


@pytest.fixture
def canaries() -> Canaries:
    """The secrets that the clients of these tests hold."""
    return CANARIES


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Start hostile servers; all of them end with the test."""
    started: list[Hostile] = []

    def start(*args: Any, **options: Any) -> Hostile:
        started.append(Hostile(*args, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def hostile(servers: Servers) -> Hostile:
    """One hostile server without TLS."""
    return servers()


@pytest.fixture
def client() -> Iterator[Client]:
    """Make clients towards a base address; all of them are closed with the test."""
    made: list[TikTok] = []

    def make(base_url: str, *, ca_file: Path | None = None, proxy: Proxy | None = None, **options: Any) -> TikTok:
        given = {"connect_seconds": 2.0, "deadline_seconds": 8.0, "egress": Egress(proxy, ca_file), **options}
        made.append(
            TikTok(
                app_id="7123",
                app_secret=Token(CANARIES.secret),
                redirect_uri="https://example.com/back/",
                base_url=base_url,
                authorize_url="https://www.tiktok.com/v2/auth/authorize/",
                **given,
            )
        )
        return made[-1]

    yield make
    for tiktok in made:
        tiktok.close()


@pytest.fixture
def token_body() -> bytes:
    """A whole token answer's body."""
    return (Path(__file__).parent / "answers" / "v1_3.json").read_bytes().rstrip()


@pytest.fixture
def raw() -> Raw:
    """Make answers to a refresh out of a body or of something that becomes JSON."""

    def make(body: Any, **options: Any) -> RawAnswer:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        given: dict[str, Any] = {
            "call": REFRESH_CALL,
            "http_status": 200,
            "complete": True,
            "sent": (Token(CANARIES.secret), Token(CANARIES.refresh)),
            **options,
        }
        return RawAnswer(body=encoded, **given)

    return make
