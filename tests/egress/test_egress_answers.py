"""What a foreign server may answer: the head counts, and nothing behind it is read, opened or waited for."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from threading import Event, Thread

import pytest

from worker.egress import Egress

Serve = Callable[[bytes, bytes], str]
"""Answers one request with a head and a body, the body again and again; returns the address."""


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer requests until the test ends."""
    over, threads, doors = Event(), list[Thread](), list[socket.socket]()

    def start(head: bytes, body: bytes) -> str:
        door = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            with contextlib.suppress(OSError):
                connection, _ = door.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 " + head + b"\r\n\r\n")
                    while body and not over.is_set():
                        connection.sendall(body)

        doors.append(door)
        threads.append(Thread(target=answer))
        threads[-1].start()
        return f"http://127.0.0.1:{door.getsockname()[1]}/"

    yield start
    over.set()
    for door in doors:
        door.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param(b"200 OK\r\nContent-Encoding: gzip", gzip.compress(bytes(10**7)), id="a bomb without end"),
        pytest.param(b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5", b"plain", id="no gzip at all"),
        pytest.param(b"200 OK\r\nContent-Length: 1000000000000", b"x" * 65_536, id="a body without end"),
        pytest.param(b"200 OK\r\nTransfer-Encoding: chunked", b"nothing\r\n", id="no chunks"),
        pytest.param(b"200 OK\r\nContent-Length: 10", b"", id="a body that is cut off"),
        pytest.param(b"200 OK\r\nContent-Length: lots", b"", id="no length"),
    ],
)
def test_the_body_of_an_answer_is_never_read(serve: Serve, head: bytes, body: bytes) -> None:
    """The status is known after the head; no memory, no time and no error come of the rest."""
    url = serve(head, body)
    tracemalloc.start()
    began = time.monotonic()

    answer = Egress().ask("POST", url, seconds=20, connect_seconds=5, body=b"a notice")

    assert (answer.status, answer.retry_after) == (200, None)
    assert time.monotonic() - began < 10
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "head", [b"junk", b"200 OK\r\n" + b"X: y\r\n" * 5000, b"two OK", b"200 OK\r\nX: " + b"x" * 10**6]
)
def test_a_head_that_is_none_is_a_broken_connection(serve: Serve, head: bytes) -> None:
    """In our own words, whatever the library raises."""
    with pytest.raises(ConnectionError, match="the connection failed"):
        Egress().ask("POST", serve(head, b""), seconds=5, connect_seconds=5, body=b"a notice")
