"""Calls through a proxy: inside the same deadline, and not sent if the proxy refuses the connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.connect_proxy import HOST
from worker.egress import Egress, NotConnectedError, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.certificates import Authority
    from tests.support.connect_proxy import ConnectProxy
    from tests.support.tls_front import TlsFront

NewFront = Callable[..., "TlsFront"]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take the body and say yes."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """Run a receiver that takes every POST."""
    server = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def post(egress: Egress, url: str, *, seconds: float = 5, connect_seconds: float = 2) -> int:
    """Post a few bytes."""
    return egress.ask("POST", url, seconds=seconds, connect_seconds=connect_seconds, body=b"CANARY-body").status


def test_a_call_goes_through_the_proxy_by_the_hosts_name(
    proxy: ConnectProxy, new_front: NewFront, receiver: HTTPServer, authority: Authority
) -> None:
    """The proxy gets host and port and its own login; what is said to the host it sees as TLS alone."""
    front = new_front(receiver.server_port)
    proxy.login = "us er:pä:ss"
    egress = Egress(Proxy.from_url(f"http://us%20er:p%C3%A4:ss@127.0.0.1:{proxy.port}"), authority.file)

    assert post(egress, f"https://{HOST}:{front.port}/hook?a=b") == 204

    assert proxy.asked == [f"{HOST}:{front.port}"]
    assert b"POST /hook?a=b HTTP/1.1" in front.heard
    assert b"CANARY" not in proxy.forwarded + b"".join(proxy.heads)
    assert b"Proxy-Authorization" not in front.heard


def test_loopback_is_reached_without_the_proxy(
    proxy: ConnectProxy, new_front: NewFront, receiver: HTTPServer, authority: Authority
) -> None:
    """A stand-in or a receiver on this machine is not the proxy's to find."""
    front = new_front(receiver.server_port, "localhost")
    egress = Egress(Proxy.from_url(proxy.url), authority.file)

    assert post(egress, f"https://localhost:{front.port}/hook") == 204
    assert post(egress, f"http://127.0.0.1:{receiver.server_port}/hook") == 204
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nCANARY", "refused it (HTTP 403)", id="403"),
        pytest.param(b"HTTP/1.0 502 CANARY\r\n\r\n", "refused it (HTTP 502)", id="502"),
        pytest.param(b"HTTP/1.1 302 Found\r\nLocation: http://CANARY/\r\n\r\n", "refused it (HTTP 302)", id="redirect"),
        pytest.param(b"HTTP/1.1 407 CANARY\r\n\r\n", "wants another user or password (HTTP 407)", id="407"),
        pytest.param(b"CANARY\r\n\r\n", "no answer that can be read", id="no-http"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: ", "no answer that can be read", id="cut-off"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nCANARY", "no answer that can be read", id="more-than-a-head"),
        pytest.param(b"HTTP/1.1 200 " + b"x" * 20_000, "no answer that can be read", id="endless-head"),
        pytest.param(b"", "no answer that can be read", id="silent-end"),
    ],
)
def test_a_tunnel_that_is_not_opened_leaves_the_request_unsent(
    proxy: ConnectProxy, authority: Authority, answer: bytes, expected: str
) -> None:
    """The text names the proxy and the status, and repeats nothing that the proxy said."""
    proxy.answer(answer)

    with pytest.raises(NotConnectedError) as caught:
        post(Egress(Proxy.from_url(proxy.url), authority.file), f"https://{HOST}/hook")

    assert expected in str(caught.value)
    assert "the egress proxy" in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert caught.value.__context__ is None
    assert proxy.asked == [f"{HOST}:443"]


def test_a_proxy_that_drips_or_says_nothing_costs_the_time_for_connecting(
    proxy: ConnectProxy, authority: Authority
) -> None:
    """The proxy's answer is part of connecting, however slowly it comes."""
    egress = Egress(Proxy.from_url(proxy.url), authority.file)
    for pieces in ((b"",), [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nX-Padding: xxxxxxxxxxxxxxxxxxx\r\n\r\n"]):
        proxy.answer(*pieces, every=20.0 if pieces == (b"",) else 0.05)
        began = time.monotonic()

        with pytest.raises(NotConnectedError, match="the egress proxy failed: it did not answer in time"):
            post(egress, f"https://{HOST}/hook", seconds=30, connect_seconds=0.4)

        assert time.monotonic() - began < 3


def test_a_proxy_that_is_away_is_named(authority: Authority, free_port: int) -> None:
    """An operator reads that the proxy cannot be reached, and does not look for the fault at TikTok."""
    for host, expected in (("127.0.0.1", "the connection was refused"), ("proxy.invalid", "its name was not resolved")):
        with pytest.raises(NotConnectedError, match=f"the egress proxy failed: {expected}"):
            post(Egress(Proxy.from_url(f"http://{host}:{free_port}"), authority.file), f"https://{HOST}/hook")


def test_the_certificate_is_checked_inside_the_tunnel(
    proxy: ConnectProxy, new_front: NewFront, receiver: HTTPServer, authority: Authority
) -> None:
    """A proxy that leads elsewhere, or opens TLS itself with an authority nobody named, gets no byte of the request."""
    elsewhere = new_front(receiver.server_port, "other.example")

    for egress in (Egress(Proxy.from_url(proxy.url), authority.file), Egress(Proxy.from_url(proxy.url))):
        with pytest.raises(NotConnectedError, match="certificate was refused"):
            post(egress, f"https://{HOST}:{elsewhere.port}/hook")

    assert elsewhere.heard == b""


def test_a_proxys_password_is_not_shown() -> None:
    """The value that holds it has a repr of its own."""
    assert "CANARY" not in repr(Proxy.from_url("http://user:CANARY@proxy.example:3128"))
    assert "Q0FOQVJZ" not in repr(Egress(Proxy.from_url("http://CANARY:CANARY@proxy.example:3128")))
