"""The doctor among things that are away, silent or refuse us: it ends soon, and says what they said."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker.cli.checks import NEED_DATABASE, Finding, guarded
from worker.cli.checks_outside import redis
from worker.cli.doctor import Rounds
from worker.errors import StoreRefusedError, StoreUnavailableError

LONG = 30.0
PASSWORD = "hunter-2-of-redis"


def good(name: str) -> Finding:
    """Find nothing."""
    return Finding(name, "ok", "fine")


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What a look waits for until the test ends."""
    event = threading.Event()
    yield event
    event.set()


def test_a_look_that_never_ends_delays_no_other(stuck: threading.Event) -> None:
    """The deadline is one for all: the others are there when it comes, and nothing waits beyond it."""

    def hang() -> Finding:
        stuck.wait()
        return good("tiktok")

    rounds = Rounds({"tiktok": hang, "desk": lambda: good("desk"), "database": lambda: good("database")}, guarded)
    began = time.monotonic()

    assert rounds.finding("database", began + LONG) == good("database")
    assert rounds.finding("desk", began + LONG) == good("desk")
    assert rounds.finding("tiktok", time.monotonic()) is None
    assert time.monotonic() - began < LONG


@pytest.mark.parametrize(
    ("error", "skips"),
    [
        (StoreUnavailableError("the database is away"), True),
        (StoreRefusedError("the database is busy: the transaction waited"), True),
        (StoreRefusedError("a right is missing"), False),
    ],
)
def test_what_needs_a_database_that_keeps_waiting_is_skipped(error: Exception, *, skips: bool) -> None:
    """Each line would wait as long again; a missing right of one table says nothing of another."""
    looked = []

    def fail() -> Finding:
        raise error

    def look() -> Finding:
        looked.append("grants")
        return good("grants")

    assert "grants" in NEED_DATABASE
    rounds = Rounds({"keyring": fail, "grants": look}, guarded)
    until = time.monotonic() + LONG

    first, second = rounds.finding("keyring", until), rounds.finding("grants", until)

    assert first is not None
    assert (first.state, first.detail) == ("fail", str(error))
    assert second == (Finding("grants", "skip", "needs the database") if skips else good("grants"))
    assert looked == ([] if skips else ["grants"])


def answering(answer: bytes) -> Iterator[int]:
    """Serve one answer to each connection, whatever is said; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of something that gives this answer."""
    yield from answering(request.param)


def look_at(url: str) -> Finding:
    """Look at the Redis of an address."""
    return redis(cast("Any", SimpleNamespace(redis_url=url, key_prefix="evertoken:", broker_url=None)))


@pytest.mark.parametrize(
    ("port", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there does not speak Redis' protocol"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.\r\n", "answers, and refuses us: "),
        (
            f"-ERR unknown command 'AUTH', with args beginning with: '{PASSWORD}' \r\n".encode(),
            "answers, and refuses us: unknown command 'AUTH'",
        ),
        (f"-ERR what is {PASSWORD}?\r\n".encode(), "answers, and refuses us: what is"),
    ],
    indirect=["port"],
)
def test_what_redis_says_is_told_without_our_password(port: int, words: str) -> None:
    """It answered, and said why: that leads elsewhere than a server that is away."""
    found = look_at(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")

    assert found.state == "fail"
    assert words in found.detail
    assert PASSWORD not in found.detail
    assert found.hides == {"quota", "workers", "queues"}


def test_a_refused_port_is_told_from_a_wrong_database(redis_url: str, free_port: int) -> None:
    """Both are named, by a real Redis and by the system."""
    assert "Connection refused" in look_at(f"redis://127.0.0.1:{free_port}/0").detail
    assert "DB index is out of range" in look_at(f"{redis_url.rpartition('/')[0]}/9999").detail
