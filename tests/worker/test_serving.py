"""The page of metrics and probes: no peer uses the process up, and no wrong path looks like a good answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Gauge

from worker.telemetry import Fact, serving
from worker.telemetry.serving import MOST_CONNECTIONS, serve

LONG = 30.0


@pytest.fixture
def facts() -> list[Fact]:
    """What the server reported."""
    return []


@pytest.fixture
def port(facts: list[Fact]) -> int:
    """The port of a server with one gauge, and a check that fails."""
    registry = CollectorRegistry()
    Gauge("evertoken_one", "One.", registry=registry).set(1)
    pages = {"/alive": lambda: (False, "not alive")}
    return serve(0, "127.0.0.1", registry, alive=lambda: True, report=facts.append, pages=pages)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes connections with the test."""
    with ExitStack() as stack:
        yield stack


def ask(port: int, path: str) -> tuple[int, bytes]:
    """Ask for a page, and return its status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def silent(port: int, opened: ExitStack, began: bytes = b"GET /met") -> socket.socket:
    """Open a connection that begins a request and does not end it."""
    connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LONG))
    connection.sendall(began)
    return connection


@pytest.mark.parametrize("path", ["/alive/", "/Alive", "/live", "/metrics/", "/healthz/", "/nope"])
def test_a_mistyped_path_is_not_found(port: int, path: str) -> None:
    """A dead-man check that expects 200 must not be green because of a slash."""
    status, text = ask(port, path)

    assert (status, text) == (404, b"not found; here are /metrics, /healthz, /alive\n")


def test_the_pages_are_where_the_docs_say(port: int) -> None:
    """Metrics under two paths, and the checks."""
    for path in ("/", "/metrics", "/metrics?name[]=evertoken_one"):
        assert b"evertoken_one 1.0" in ask(port, path)[1]
    assert ask(port, "/healthz") == (200, b"alive\n")
    assert ask(port, "/alive") == (503, b"not alive\n")


def test_connections_that_say_nothing_are_ended(
    port: int,
    opened: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    wait_until: Callable[..., None],
) -> None:
    """Also one that drips its head; the thread and the descriptor go with them, and nothing is printed."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 1.0)
    mute, dripping = silent(port, opened, b""), silent(port, opened)
    began = time.monotonic()

    def drip() -> bool:
        try:
            dripping.sendall(b"r")
        except OSError:
            return True
        return False

    assert mute.recv(1) == b""
    wait_until(drip, LONG)
    assert time.monotonic() - began >= 1
    assert capfd.readouterr().err == ""


def test_connections_beyond_the_bound_are_closed_at_once_and_reported_once(
    port: int,
    opened: ExitStack,
    facts: list[Fact],
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., None],
) -> None:
    """The process keeps its descriptors, and probes are answered again when the silent ones are ended."""
    held = [silent(port, opened) for _ in range(MOST_CONNECTIONS)]
    for _ in range(3):
        with pytest.raises(OSError):
            ask(port, "/healthz")

    assert [(fact.name, fact.level) for fact in facts] == [("metrics.full", "warning")]
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", MOST_CONNECTIONS + 1)
    assert ask(port, "/healthz") == (200, b"alive\n")
    for connection in held:
        connection.close()
    monkeypatch.setattr(serving, "MOST_CONNECTIONS", 1)

    def answers() -> bool:
        try:
            return ask(port, "/healthz")[0] == 200
        except OSError:
            return False

    wait_until(answers, LONG)
