"""The connections and adapters under the session: built on bounded sockets, never sending anything twice."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse
from urllib3.util.retry import Retry

from worker.tiktok.sockets import CURRENT, NotConnectedError, connected

FLAWS: Final = {
    "certificate has expired": "it has expired",
    "certificate is not yet valid": "it is not valid yet; is this machine's clock right?",
    "self-signed certificate": "it is signed by itself",
    "self-signed certificate in certificate chain": "its authority is not trusted",
    "unable to get local issuer certificate": "its authority is not trusted",
    "Hostname mismatch": "it is for another host name",
    "IP address mismatch": "it is for another address",
    "Missing Authority Key Identifier": "it does not say which key signed it (no Authority Key Identifier)",
    "Missing Subject Key Identifier": "its authority has no Subject Key Identifier",
    "CA cert does not include key usage extension": "its authority does not say that it may sign (no Key Usage)",
    "Basic Constraints of CA cert not marked critical": "its authority's Basic Constraints are not marked critical",
}
"""OpenSSL's words, by how they begin, and ours. Python 3.13 and later also refuse what RFC 5280 calls a flaw."""


def _flaw(error: ssl.SSLCertVerificationError) -> str:
    """Say what is wrong with a certificate; how to make a good one is in docs/operations.md."""
    for theirs, ours in sorted(FLAWS.items(), reverse=True):
        if error.verify_message.startswith(theirs):
            return ours
    return f"OpenSSL's code is {error.verify_code}"


def _reason(error: Exception) -> str:
    """Say in a few words of our own why no connection came about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {_flaw(error)}"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, socket.gaierror):
        return "its name was not resolved"
    return "the connection was refused" if isinstance(error, ConnectionRefusedError) else "the connection failed"


def _connect(connect: Callable[[], None], close: Callable[[], None]) -> None:
    """Connect, or raise NotConnectedError; where most of the time is gone by then, sending would only make doubt."""
    reason = None
    try:
        connect()
        if CURRENT.call.time_left() < CURRENT.call.seconds / 2:
            reason = "connecting used up the time"
    except Exception as error:  # noqa: BLE001 - whatever fails in here, nothing was sent
        reason = _reason(error)
    if reason is not None:
        close()
        raise NotConnectedError(reason)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return connected(self._dns_host, self.port or 80)

    def connect(self) -> None:
        _connect(super().connect, self.close)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # urllib3 narrows it the same way
        CURRENT.call.after_send()
        return super().getresponse()


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return connected(self._dns_host, self.port or 443)

    def connect(self) -> None:
        _connect(super().connect, self.close)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # urllib3 narrows it the same way
        CURRENT.call.after_send()
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class BoundAdapter(HTTPAdapter):
    """Keeps one connection per thread for reads, and none for token calls.

    A kept connection that the peer closed in the very moment of sending leaves a token call in doubt for nothing, so
    with `fresh` every call connects anew. Nothing is ever sent twice: there are no retries, and no redirects above.
    """

    def __init__(self, *, context: ssl.SSLContext, fresh: bool) -> None:
        self._context = context
        self._fresh = fresh
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=Retry(0, redirect=0, read=False))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Build the pools on our own connections and on the one TLS context."""
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - requests calls it so
        """Demand a certificate, whatever `verify` says; the authorities were loaded once, into the context."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
        """Send one request; token calls drop whatever connection an earlier call has left."""
        if self._fresh:
            self.poolmanager.clear()
        return super().send(request, *args, **options)


def silence_wire_logs() -> None:
    """Keep urllib3 from logging heads that it cannot read: with a broken head, the pair itself stands in that log."""
    logging.getLogger("urllib3.connection").addFilter(_refuse)


def _refuse(_record: logging.LogRecord) -> bool:
    return False
