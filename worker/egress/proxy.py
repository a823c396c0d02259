"""A tunnel through an HTTP proxy: one `CONNECT`, whose answer is read up to its end and no further."""

from __future__ import annotations

import base64
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from worker.egress.reasons import ProxyError

END_OF_HEAD: Final = b"\r\n\r\n"
MOST_HEAD_BYTES: Final = 16384
STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})\b")
OPENED: Final = range(200, 300)
WANTS_LOGIN: Final = 407
UNREADABLE: Final = "the egress proxy gave no answer that can be read"


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that opens tunnels.

    Attributes:
        host: its name or address.
        port: its TCP port.
        login: the value of the header Proxy-Authorization, or None; a secret.
    """

    host: str
    port: int
    login: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Read `http://user:password@host:port`; `addresses.bad_proxy` has checked it."""
        parts = urlsplit(url)
        login = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return cls(parts.hostname or "", parts.port or 0, login)

    def open_tunnel(self, connection: socket.socket, host: str, port: int, *, until: float) -> None:
        """Ask for a tunnel to a host over a connection to this proxy.

        The methods of `socket.socket` itself are used: what is said to the proxy is no part of a call to the host.

        Args:
            connection: a new connection to this proxy.
            host: where the tunnel leads.
            port: its TCP port there.
            until: instant of the monotonic clock by which the proxy must have answered.

        Raises:
            ProxyError: the proxy refused, or answered in a way that is none.
            OSError: the connection broke, or the time is used up.
        """
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login = "" if self.login is None else f"Proxy-Authorization: {self.login}\r\n"
        connection.settimeout(_left(until))
        socket.socket.sendall(connection, f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{login}\r\n".encode())
        answer = b""
        while END_OF_HEAD not in answer:
            connection.settimeout(_left(until))
            piece = socket.socket.recv(connection, MOST_HEAD_BYTES)
            answer += piece
            if not piece or len(answer) > MOST_HEAD_BYTES:
                raise ProxyError(UNREADABLE)
        found = STATUS.match(answer)
        status = int(found[1]) if found else None
        if status == WANTS_LOGIN:
            raise ProxyError("the egress proxy wants another user or password (HTTP 407)")
        if status is not None and status not in OPENED:
            raise ProxyError(f"the egress proxy refused it (HTTP {status})")
        if status is None or not answer.endswith(END_OF_HEAD):  # a host that speaks TLS says nothing before we do
            raise ProxyError(UNREADABLE)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
