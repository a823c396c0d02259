"""The connections and adapters under the session: built on bounded sockets, never sending anything twice."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from requests import Response
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse
from urllib3.util.retry import Retry

from worker.egress.kept import Kept
from worker.egress.reasons import NotConnectedError, in_words
from worker.egress.sockets import CURRENT, connected


def _connect(connect: Callable[[], None], close: Callable[[], None]) -> None:
    """Connect, or raise NotConnectedError; where most of the time is gone by then, sending would only make doubt."""
    reason = None
    try:
        connect()
        if CURRENT.call.time_left() < CURRENT.call.seconds / 2:
            reason = "connecting used up the time"
    except Exception as error:  # noqa: BLE001 - whatever fails in here, nothing was sent
        reason = in_words(error)
    if reason is not None:
        close()
        raise NotConnectedError(reason)


class PlainConnection(HTTPConnection):
    """A connection without TLS, for this machine's loopback."""

    connected_at = 0.0

    def _new_conn(self) -> socket.socket:
        return connected(self._dns_host, self.port or 80)

    def connect(self) -> None:
        """Connect in time, or raise NotConnectedError."""
        _connect(super().connect, self.close)
        self.connected_at = time.monotonic()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # urllib3 narrows it the same way
        """Note that the request is out, and read the answer's head."""
        CURRENT.call.after_send()
        return super().getresponse()


class TlsConnection(HTTPSConnection):
    """A connection inside TLS, straight to the host or through the proxy of the call."""

    connected_at = 0.0

    def _new_conn(self) -> socket.socket:
        return connected(self._dns_host, self.port or 443)

    def connect(self) -> None:
        """Connect in time, or raise NotConnectedError."""
        _connect(super().connect, self.close)
        self.connected_at = time.monotonic()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # urllib3 narrows it the same way
        """Note that the request is out, and read the answer's head."""
        CURRENT.call.after_send()
        return super().getresponse()


class _Pool(HTTPConnectionPool):
    ConnectionCls = PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = TlsConnection


class _KeepingPool(HTTPConnectionPool):
    """A pool whose connections are used again only as `Kept` allows."""

    kept: Kept

    def _get_conn(self, timeout: float | None = None) -> Any:  # noqa: ARG002 - urllib3 calls it so; nothing is waited for
        found = self.kept.take()
        if found is None:
            return self._new_conn()
        CURRENT.call.reused = True
        return found

    def _put_conn(self, conn: Any) -> None:
        if conn is None:
            return
        if conn.sock is not None and CURRENT.call.keep and CURRENT.call.is_whole:
            self.kept.put(conn)
        else:
            conn.close()

    def close(self) -> None:
        """Close the kept connections, and those under way after their answers."""
        self.kept.distrust()
        super().close()


class _KeepingPlainPool(_KeepingPool, _Pool): ...


class _KeepingTlsPool(_KeepingPool, _TlsPool): ...


class BoundAdapter(HTTPAdapter):
    """Sends to one host: reads of one thread over one connection, or the token calls of all threads.

    Nothing is ever sent twice: there are no retries, and no redirects above.
    """

    def __init__(self, root: str, *, context: ssl.SSLContext, kept: Kept | None = None) -> None:
        """Connect to nothing yet.

        Args:
            root: how every address begins that it sends to.
            context: the TLS context.
            kept: the connections of token calls; without it one connection is kept for reads.
        """
        self._root = root
        self._host_letters = len(root) - len(urlsplit(root)._replace(scheme="", netloc="").geturl())
        self._context = context
        self._kept = kept
        self._pool: Any = None
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=Retry(0, redirect=0, read=False))

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """Build the pools on our own connections and on the one TLS context."""
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = (
            {"http": _Pool, "https": _TlsPool}
            if self._kept is None
            else {"http": _KeepingPlainPool, "https": _KeepingTlsPool}
        )

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Return the pool of the one host; requests would look it up by all that may tell pools apart."""
        if self._pool is None:
            pool: Any = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            pool.kept = self._kept
            self._pool = pool
        return self._pool

    def close(self) -> None:
        """Close the connections; nothing is sent from then on."""
        super().close()
        if self._pool is not None:
            self._pool.close()

    def request_url(self, request: Any, proxies: Any) -> str:
        """Return what stands in the request's first line; proxies are gone through below HTTP."""
        del proxies
        return str(request.url[self._host_letters :])

    def build_response(self, req: Any, resp: Any) -> Response:
        """Return status, head and body of an answer; nobody here asks for its cookies or its encoding."""
        response = Response()
        response.status_code, response.headers, response.raw, response.request = resp.status, resp.headers, resp, req
        return response

    def send(self, request: Any, *args: Any, **options: Any) -> Response:
        """Send one request to the one host.

        Raises:
            InvalidSchema: the address is another one, and nothing was sent.
        """
        if not request.url.startswith(self._root):
            raise InvalidSchema("that is no address of the one host")
        return super().send(request, *args, **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - requests calls it so
        """Demand a certificate, whatever `verify` says; the authorities were loaded once, into the context."""
        conn.cert_reqs = "CERT_REQUIRED"


def silence_wire_logs() -> None:
    """Keep urllib3 from logging heads that it cannot read: with a broken head, the pair itself stands in that log."""
    logging.getLogger("urllib3.connection").addFilter(_refuse)


def _refuse(_record: logging.LogRecord) -> bool:
    return False
