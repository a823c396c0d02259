"""Token calls over kept connections: used again only when nothing speaks against it, and never for a second sending."""

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
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority, new_authority, server_context
from worker.egress import sockets, wire
from worker.egress.sockets import end_of_answer, is_quiet
from worker.egress.wire import IDLE_SECONDS, LIFE_SECONDS, PROOF_SECONDS, WITNESSES, Kept
from worker.errors import NotSentError
from worker.tiktok import RawAnswer, TikTok
from worker.vault import Token

if TYPE_CHECKING:
    from tests.tiktok.conftest import Client, Hostile, Servers

ANSWER = b'{"code":0,"data":{}}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that a client can trust by its file."""
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the server the proof that it keeps connections."""
    monkeypatch.setattr(wire, "WITNESSES", 0)


@pytest.fixture(params=["plain", "tls"])
def pair(
    request: pytest.FixtureRequest, servers: Servers, client: Client, authority: Authority, tmp_path: Path
) -> tuple[Hostile, TikTok]:
    """Return a server that keeps its connections, without and with TLS, and a client that trusts it."""
    server = servers(server_context(tmp_path, authority) if request.param == "tls" else None)
    stay_after(server, server.framed(ANSWER))
    return server, client(server.url, ca_file=authority.file, deadline_seconds=6.0)


def stay_after(server: Hostile, answer: bytes) -> None:
    """Let a server answer every request and keep the connection open."""

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(answer)
        return True

    server.behave = behave


def call(tiktok: TikTok, token: str = "rft.old") -> RawAnswer:
    """Send one refresh."""
    return tiktok.send_refresh(Token(token))


@pytest.mark.usefixtures("proven")
def test_calls_of_a_burst_share_a_connection(pair: tuple[Hostile, TikTok]) -> None:
    """A server that keeps connections is connected to once, and is not asked to close."""
    server, tiktok = pair

    assert all(call(tiktok).complete for _ in range(5))

    assert (server.connections, len(server.requests)) == (1, 5)
    assert not any(b"connection: close" in request.lower() for request in server.requests)


@pytest.mark.usefixtures("proven")
@pytest.mark.parametrize("how", ["fin", "reset", "junk", "goodbye"])
def test_a_connection_on_which_anything_came_is_not_used_again(
    how: str, pair: tuple[Hostile, TikTok], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed, reset, closed inside TLS, or spoken on: the next call connects, and so do all for an hour."""
    server, tiktok = pair
    looked, spoilt = threading.Event(), threading.Event()

    def behave(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(server.framed(ANSWER))
        if len(server.requests) > 1:
            return True
        assert looked.wait(5)
        if how == "junk":
            connection.sendall(b"x")
        elif how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "goodbye" and isinstance(connection, ssl.SSLSocket):
            connection.settimeout(0)
            with contextlib.suppress(OSError):
                connection.unwrap()
        if how in {"fin", "reset"}:
            connection.close()
        elif how == "goodbye" and not isinstance(connection, ssl.SSLSocket):
            connection.shutdown(socket.SHUT_WR)
        spoilt.set()
        return how == "junk"

    server.behave = behave
    real = is_quiet

    def looks_after_it_happened(source: socket.socket) -> bool:
        looked.set()
        assert spoilt.wait(5)
        source.settimeout(5)
        with contextlib.suppress(OSError):
            socket.socket.recv(source, 1, socket.MSG_PEEK)
        return real(source)

    monkeypatch.setattr(wire, "is_quiet", looks_after_it_happened)

    assert [call(tiktok).complete for _ in range(4)] == [True] * 4

    assert (server.connections, len(server.requests)) == (4, 4)
    asked = [b"connection: close" in request.lower() for request in server.requests]
    assert asked == [False, False, True, True]


@pytest.mark.usefixtures("proven")
def test_a_connection_that_is_closed_under_the_head_sends_no_body(
    pair: tuple[Hostile, TikTok], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second look finds it: the call counts as not sent, truly, and the server never saw the token."""
    server, tiktok = pair
    assert call(tiktok).complete
    real = is_quiet

    def server_closes_first(source: socket.socket) -> bool:
        for connection in server._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        source.settimeout(5)
        with contextlib.suppress(OSError):
            socket.socket.recv(source, 1, socket.MSG_PEEK)
        return real(source)

    monkeypatch.setattr(sockets, "is_quiet", server_closes_first)

    with pytest.raises(NotSentError, match="closed before the request's body"):
        call(tiktok)

    assert len(server.requests) == 1
    monkeypatch.undo()
    assert call(tiktok).complete
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.usefixtures("proven")
def test_a_connection_that_breaks_under_the_body_is_in_doubt_and_not_sent_again(pair: tuple[Hostile, TikTok]) -> None:
    """The request may have arrived; the client neither repeats it nor calls it unsent, and trusts no more."""
    server, tiktok = pair
    assert call(tiktok).complete
    server.answer(reset=True)

    raw = call(tiktok)

    assert (raw.http_status, raw.complete) == (None, False)
    assert (server.connections, len(server.requests)) == (1, 2)
    stay_after(server, server.framed(ANSWER))
    assert all(call(tiktok).complete for _ in range(2))
    assert (server.connections, len(server.requests)) == (3, 4)


@pytest.mark.usefixtures("proven")
def test_a_silent_server_ends_at_the_deadline_on_a_kept_connection_too(pair: tuple[Hostile, TikTok]) -> None:
    """The deadline is that of the call, not of the connection."""
    server, _ = pair
    tiktok = pair[1]
    assert call(tiktok).complete
    tiktok._transport._deadline_seconds = 0.4
    server.behave = lambda _connection, _request: server.halt.wait(10)

    raw = call(tiktok)

    assert (raw.complete, raw.fault) == (False, "no complete answer within 0.4 s")
    assert server.connections == 1


@pytest.mark.usefixtures("proven")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}", id="error"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="old"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", id="says-close"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}", id="more-than-it-says"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n", id="another-answer"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", id="interim"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", id="two-lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", id="both"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nA: b\r\n\r\n", id="trailer"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n0\r\n\r\n", id="two-ends"
        ),
    ],
)
def test_only_a_whole_and_clean_answer_keeps_its_connection(answer: bytes, hostile: Hostile, client: Client) -> None:
    """Errors, other protocols, unasked bytes and unclear lengths all end the connection."""
    stay_after(hostile, answer)
    tiktok = client(hostile.url, connect_seconds=0.5, deadline_seconds=1.5)

    for _ in range(3):
        call(tiktok)

    assert (hostile.connections, len(hostile.requests)) == (3, 3)


@pytest.mark.usefixtures("proven")
def test_a_chunked_answer_keeps_its_connection(hostile: Hostile, client: Client) -> None:
    """Chunks mark the end of the answer as well as a length does."""
    stay_after(hostile, hostile.chunked(ANSWER, 7))
    tiktok = client(hostile.url)

    assert all(call(tiktok).body == ANSWER for _ in range(3))

    assert hostile.connections == 1


@pytest.mark.usefixtures("proven")
def test_threads_never_share_a_connection_at_one_time(pair: tuple[Hostile, TikTok]) -> None:
    """Each thread gets the answer to its own token, over no more connections than threads."""
    server, tiktok = pair

    def behave(connection: socket.socket, request: bytes) -> bool:
        connection.sendall(server.framed(request.partition(b"\r\n\r\n")[2]))
        return True

    server.behave = behave
    wrong: list[str] = []

    def burst(name: str) -> None:
        for number in range(25):
            token = f"rft.{name}.{number}"
            if json.loads(call(tiktok, token).body)["refresh_token"] != token:
                wrong.append(token)

    threads = [threading.Thread(target=burst, args=(str(number),)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not wrong
    assert len(server.requests) == 150
    assert server.connections <= 6


@pytest.mark.usefixtures("proven")
def test_a_closed_client_keeps_no_connection(hostile: Hostile, client: Client) -> None:
    """What was kept is closed with the client."""
    stay_after(hostile, hostile.framed(ANSWER))
    tiktok = client(hostile.url)
    call(tiktok)
    (idle,) = tiktok._transport._kept._ready

    tiktok.close()

    assert idle.connection.sock is None
    assert not tiktok._transport._kept._ready


class Line:
    """What `Kept` knows of a connection, over a real pair of sockets."""

    def __init__(self, now: float) -> None:
        """Connect."""
        self.sock: socket.socket | None
        self.sock, self.peer = socket.socketpair()
        self.connected_at = now

    def close(self) -> None:
        """Close this side."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None


class World:
    """A clock that is set by hand, connections, and the `Kept` under test."""

    def __init__(self) -> None:
        """Begin at second 1,000."""
        self.now = 1000.0
        self.kept = Kept(monotonic=lambda: self.now)
        self.lines: list[Line] = []

    def line(self) -> Line:
        """Return a new connection."""
        self.lines.append(Line(self.now))
        return self.lines[-1]

    def prove(self) -> None:
        """Let the server show that it keeps connections."""
        for _ in range(WITNESSES):
            self.kept.put(self.line())
        self.now += PROOF_SECONDS
        assert self.kept.take() is None


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world, and close its connections in the end."""
    made = World()
    yield made
    for line in made.lines:
        line.close()
        line.peer.close()


def test_no_connection_is_used_again_before_the_server_has_kept_several(world: World) -> None:
    """The first ones are only watched; when they have stayed open for long enough, the next one is used again."""
    first = [world.line() for _ in range(WITNESSES)]
    for line in first:
        world.kept.put(line)
        assert world.kept.take() is None
    spare = world.line()
    world.kept.put(spare)
    assert spare.sock is None
    assert not world.kept.wanted

    world.now += PROOF_SECONDS
    assert world.kept.take() is None
    assert all(line.sock is None for line in first)
    assert world.kept.wanted
    line = world.line()
    world.kept.put(line)
    assert world.kept.take() is line


def test_one_witness_that_was_closed_early_ends_it_for_an_hour(world: World) -> None:
    """A server that closes one idle connection may close any; it is asked for new proof after an hour."""
    witnesses = [world.line() for _ in range(WITNESSES)]
    for line in witnesses:
        world.kept.put(line)
    witnesses[3].peer.close()
    world.now += PROOF_SECONDS

    assert world.kept.take() is None
    assert all(line.sock is None for line in witnesses)
    assert not world.kept.wanted
    line = world.line()
    world.kept.put(line)
    assert line.sock is None
    world.now += 3600
    assert world.kept.wanted
    line = world.line()
    world.kept.put(line)
    assert world.kept.take() is None


def test_a_witness_that_is_looked_at_late_proves_nothing_and_accuses_nobody(world: World) -> None:
    """A lone refresh now and then keeps connecting, against a server that closes after five seconds as well."""
    for closes in (False, True):
        for _ in range(3 * WITNESSES):
            line = world.line()
            world.kept.put(line)
            if closes:
                line.peer.close()
            world.now += 10
            assert world.kept.take() is None
        assert world.kept.wanted


def test_a_connection_that_was_idle_for_too_long_or_is_old_is_closed(world: World) -> None:
    """Neither is used again, and neither speaks against the server."""
    world.prove()
    idle = world.line()
    world.kept.put(idle)
    world.now += IDLE_SECONDS + 0.01
    assert world.kept.take() is None
    assert idle.sock is None

    old = world.line()
    world.now += LIFE_SECONDS + 0.01
    world.kept.put(old)
    assert old.sock is None
    assert world.kept.wanted


@pytest.mark.parametrize("spoil", [lambda peer: peer.close(), lambda peer: peer.sendall(b"x")], ids=["closed", "junk"])
def test_a_kept_connection_is_looked_at_before_it_is_used(world: World, spoil: Callable[[Any], None]) -> None:
    """One that is readable is thrown away, and all others with it."""
    world.prove()
    lines = [world.line() for _ in range(3)]
    for line in lines:
        world.kept.put(line)
    spoil(lines[2].peer)

    assert world.kept.take() is None
    assert all(line.sock is None for line in lines)
    assert not world.kept.wanted


def test_a_forked_child_uses_no_connection_of_its_parent(world: World) -> None:
    """Two processes on one connection would read each other's answers."""
    world.prove()
    world.kept.put(world.line())

    child = os.fork()
    if not child:
        os._exit(0 if world.kept.take() is None else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert world.kept.take() is world.lines[-1]


def test_the_end_of_an_answer_is_found_at_its_last_byte_alone(hostile: Hostile) -> None:
    """If it is cut anywhere it has not ended, whether its head has a length or says chunks."""
    for whole in (hostile.framed(ANSWER), hostile.chunked(ANSWER, 6)):
        assert end_of_answer(whole) == len(whole)
        assert end_of_answer(whole + b"x") != len(whole) + 1
        assert all(end_of_answer(whole[:cut]) != cut for cut in range(len(whole)))
