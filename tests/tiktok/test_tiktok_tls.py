"""No request body leaves before the other side has proved who it is."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.certificates import Authority, careless_context, new_authority, server_context
from worker.errors import NotSentError
from worker.vault import Token

if TYPE_CHECKING:
    from tests.tiktok.conftest import Canaries, Client, Hostile, Servers


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority whose file a client can be told to trust."""
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
    """Where Python checks strictly, as 3.13 does by itself, the error says what the certificate lacks."""
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
