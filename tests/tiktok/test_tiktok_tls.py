"""No request body leaves before the other side has proved who it is."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.support.certificates import Authority, careless_context, new_authority, server_context
from worker.egress import sockets
from worker.errors import NotSentError
from worker.tiktok import TikTok
from worker.vault import Token

if TYPE_CHECKING:
    from tests.tiktok.conftest import Canaries, Client, Hostile, Servers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that a client can trust by its file."""
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(servers: Servers, authority: Authority, tmp_path: Path) -> Servers:
    """Start a TLS server whose certificate has the flaws asked for, or none."""
    return lambda **flaw: servers(server_context(tmp_path, authority, **flaw))


def test_trusted_server_is_spoken_to(
    secure: Servers, client: Client, canaries: Canaries, authority: Authority, token_body: bytes
) -> None:
    """With the right authority, name and dates the call goes through, framed or until the connection ends."""
    server = secure()
    tiktok = client(server.url, ca_file=authority.file)

    for answer in (server.framed(token_body), server.chunked(token_body), server.until_closed(token_body)):
        server.answer(answer)
        raw = tiktok.send_refresh(Token(canaries.refresh))
        assert (raw.body, raw.complete) == (token_body, True)

    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "flaw",
    [
        pytest.param(({"days": -1}, "it has expired"), id="expired"),
        pytest.param(({"host": "other.example"}, "it is for another host name"), id="wrong-host"),
        pytest.param(({"unknown": True}, "its authority is not trusted"), id="unknown-authority"),
    ],
)
def test_flawed_certificate_gets_no_request(
    flaw: tuple[dict[str, object], str], secure: Servers, client: Client, canaries: Canaries, authority: Authority
) -> None:
    """The server sees a connection and not one byte of a request; the token may be sent again."""
    options, named = flaw
    server = secure(**options)

    with pytest.raises(NotSentError, match=f"certificate was refused: {named}") as caught:
        client(server.url, ca_file=authority.file).send_refresh(Token(canaries.refresh))

    assert (server.connections, server.requests) == (1, [])
    assert caught.value.__context__ is None


def test_an_authority_without_key_identifiers_is_named_as_such(
    servers: Servers, client: Client, canaries: Canaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If Python checks strictly, as 3.13 does by default, the error says what the certificate lacks."""
    plain = ssl.create_default_context

    def strict(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = plain(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    server = servers(careless_context(tmp_path, tmp_path / "careless-ca.pem"))

    with pytest.raises(NotSentError, match="no Authority Key Identifier"):
        client(server.url, ca_file=tmp_path / "careless-ca.pem").send_refresh(Token(canaries.refresh))

    assert server.requests == []


def test_unknown_authority_gets_no_request(
    secure: Servers, client: Client, canaries: Canaries, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default only the usual authorities count, whatever the environment points to."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(authority.file))
    sockets._usual_context.cache_clear()
    server = secure()

    with pytest.raises(NotSentError, match="certificate was refused"):
        client(server.url).send_refresh(Token(canaries.refresh))

    assert server.requests == []


def test_stalled_handshake_was_not_sent(
    servers: Servers, client: Client, canaries: Canaries, authority: Authority
) -> None:
    """A server that accepts and then says nothing costs the time for connecting, not the whole call's."""
    server = servers(None, handshake=False)
    began = time.monotonic()

    with pytest.raises(NotSentError, match="in time"):
        client(f"https://localhost:{server.port}/x", ca_file=authority.file, connect_seconds=0.3).send_refresh(
            Token(canaries.refresh)
        )

    assert time.monotonic() - began < 3


def test_dripping_handshake_was_not_sent(
    hostile: Hostile, client: Client, canaries: Canaries, authority: Authority
) -> None:
    """A handshake that comes a byte at a time is bounded as a whole."""

    def drip(connection: socket.socket) -> None:
        for byte in b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc" + b"\x03" * 500:
            connection.sendall(bytes([byte]))
            if hostile.halt.wait(0.02):
                return

    hostile.greet = drip
    began = time.monotonic()

    with pytest.raises(NotSentError):
        client(f"https://localhost:{hostile.port}/x", ca_file=authority.file, connect_seconds=0.4).send_refresh(
            Token(canaries.refresh)
        )

    assert time.monotonic() - began < 3


def test_connecting_that_took_most_of_the_time_sends_nothing(
    secure: Servers, client: Client, canaries: Canaries, authority: Authority
) -> None:
    """With little time left an answer would come too late, and the token be in doubt for nothing."""
    server = secure()

    def dawdle(_connection: socket.socket) -> None:
        server.halt.wait(0.7)

    server.greet = dawdle

    with pytest.raises(NotSentError, match="used up the time"):
        client(server.url, ca_file=authority.file, connect_seconds=1.2, deadline_seconds=1.2).send_refresh(
            Token(canaries.refresh)
        )

    assert server.requests == []


def test_plain_answer_to_a_handshake_was_not_sent(
    hostile: Hostile, client: Client, canaries: Canaries, authority: Authority
) -> None:
    """A server that speaks no TLS gets no token."""
    hostile.greet = lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(NotSentError, match="TLS handshake failed"):
        client(f"https://localhost:{hostile.port}/x", ca_file=authority.file).send_refresh(Token(canaries.refresh))


LATE = 0.6


class StandStill:
    """A failpoint at which the process stands still after it has sent, until its deadline is over."""

    def __init__(self, server: Hostile) -> None:
        self._server = server

    def __call__(self, name: str) -> None:
        """Wait for the server's last byte and for the end of the deadline."""
        if name == "post_send":
            self._server.halt.wait(LATE * 1.25)  # nobody sets it during a call
            assert self._server.answered.wait(5)


class Late(NamedTuple):
    """A server, and a client that stands still while it answers."""

    server: Hostile
    tiktok: TikTok


@pytest.fixture(params=["tls", "plain"])
def late(
    request: pytest.FixtureRequest, secure: Servers, servers: Servers, client: Client, authority: Authority
) -> Late:
    """A server that speaks TLS, and the same without, each with a client that stands still while it answers."""
    server: Hostile = (secure if request.param == "tls" else servers)()
    still = StandStill(server)
    return Late(
        server,
        client(server.url, ca_file=authority.file, deadline_seconds=LATE, connect_seconds=LATE, failpoint=still),
    )


@pytest.mark.parametrize(
    ("framing", "records"),
    [
        ("framed", "head-and-body"),
        ("chunked", "head-and-body"),
        ("until_closed", "head-and-body"),
        ("framed", "one-for-each-line-and-100-bytes"),
        ("framed", "long-body"),
    ],
)
def test_answer_that_came_while_the_process_stood_still_is_read(
    late: Late, canaries: Canaries, token_body: bytes, framing: str, records: str
) -> None:
    """Past its deadline a call reads all that lies ready, however many records it came in."""
    body = token_body + b" " * 20_000 if records == "long-body" else token_body
    whole: bytes = getattr(late.server, framing)(body)
    head, _, rest = whole.partition(b"\r\n\r\n")
    pieces = [head + b"\r\n\r\n", rest]
    if records == "one-for-each-line-and-100-bytes":
        pieces = [line + b"\r\n" for line in [*head.split(b"\r\n"), b""]]
        pieces += [rest[at : at + 100] for at in range(0, len(rest), 100)]
    late.server.answer(*pieces)

    raw = late.tiktok.send_refresh(Token(canaries.refresh))

    assert (raw.body, raw.complete) == (body, True)


def test_what_lies_ready_past_the_deadline_is_kept_and_the_rest_is_not_waited_for(
    late: Late, canaries: Canaries, token_body: bytes
) -> None:
    """An answer that is half there is journaled as far as it came, at once."""
    whole = late.server.framed(token_body)
    late.server.answer(whole[:60], whole[60:-20], stay=True)
    began = time.monotonic()

    raw = late.tiktok.send_refresh(Token(canaries.refresh))

    assert time.monotonic() - began < LATE * 1.25 + 1
    assert not raw.complete
    assert raw.body == token_body[:-20]
    assert raw.fault == f"no complete answer within {LATE:g} s"


def test_endless_answer_past_the_deadline_is_cut_at_the_limit(late: Late, canaries: Canaries) -> None:
    """A peer that always has more ready does not keep the call for longer than a bounded answer takes."""

    def pour(connection: socket.socket, _request: bytes) -> bool:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)
        late.server.answered.set()
        while not late.server.halt.is_set():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
        return False

    late.server.behave = pour
    began = time.monotonic()

    raw = late.tiktok.send_refresh(Token(canaries.refresh))

    assert time.monotonic() - began < 5
    assert not raw.complete


def test_dripping_tls_answer_ends_at_the_deadline(
    secure: Servers, client: Client, canaries: Canaries, authority: Authority, token_body: bytes
) -> None:
    """The deadline holds inside TLS as well, and what came is kept."""
    server = secure()
    whole = server.until_closed(token_body)
    server.answer(whole[:60], *(bytes([byte]) for byte in whole[60:]), every=0.02)
    began = time.monotonic()

    raw = client(server.url, ca_file=authority.file, deadline_seconds=0.8, connect_seconds=0.4).send_refresh(
        Token(canaries.refresh)
    )

    assert time.monotonic() - began < 3
    assert not raw.complete
    assert raw.body
    assert raw.body in whole
