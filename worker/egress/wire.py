"""The connections and adapters under HTTP: built on bounded sockets, used again with care, never sending twice."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import client
from typing import Any, Final
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse
from urllib3.util.retry import Retry

from worker.egress.proxy import END_OF_HEAD
from worker.egress.reasons import NotConnectedError, in_words, is_shortage
from worker.egress.sockets import CURRENT, connected, is_quiet, length_told

IDLE_SECONDS: Final = 0.5
"""Longest time between two calls on one connection. Servers close idle ones after 5 s and more."""
PROOF_SECONDS: Final = 2 * IDLE_SECONDS
LATE_SECONDS: Final = 3.0
"""A witness that is looked at later than this proves nothing: by then a server may close connections."""
WITNESSES: Final = 8
"""So many connections must have stayed open before the first is used again."""
DISTRUST_SECONDS: Final = 3600.0
LIFE_SECONDS: Final = 60.0
"""An older connection is not used again: addresses and certificates change."""
USUAL_HEAD: Final = re.compile(rb"HTTP/1\.1 200 [ -~]*(?:\r\n[A-Za-z0-9-]+:[\t -~]*)+")


def _connect(connect: Callable[[], None], close: Callable[[], None]) -> None:
    """Connect, or raise NotConnectedError; where most of the time is gone by then, sending would only make doubt."""
    reason, ours = None, False
    try:
        connect()
        if CURRENT.call.time_left() < CURRENT.call.seconds / 2:
            reason = "connecting used up the time"
    except Exception as error:  # noqa: BLE001 - whatever fails in here, nothing was sent
        reason, ours = in_words(error), is_shortage(error)
    if reason is not None:
        close()
        raise NotConnectedError(reason, ours=ours)


class Answer(client.HTTPResponse):
    """An answer whose head is read at once if it is a usual one of a success that came whole.

    The standard library reads a head line by line and then as that of a mail, which costs many times as much. It still
    reads every other head.
    """

    fp: Any

    def begin(self) -> None:
        """Read the head."""
        head, end, _ = self.fp.peek().partition(END_OF_HEAD)
        length = length_told(head + end) if end else None
        if length is None or not USUAL_HEAD.fullmatch(head):
            super().begin()
            return
        self.fp.read(len(head + end))
        first, *lines = head.decode("ascii").split("\r\n")
        self.headers = self.msg = client.HTTPMessage()
        for name, _, value in (line.partition(":") for line in lines):
            self.headers.set_raw(name, value.lstrip())
        self.version, self.status, self.reason = 11, 200, first[len("HTTP/1.1 200 ") :]
        self.chunked, self.chunk_left, self.length = length < 0, None, None if length < 0 else length
        self.will_close = "close" in self.headers.get("connection", "").lower()


class PlainConnection(HTTPConnection):
    """A connection without TLS, for this machine's loopback."""

    connected_at = 0.0
    response_class = Answer

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
    response_class = Answer

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


@dataclass(frozen=True)
class _Idle:
    """A connection between two calls, and the instant of the monotonic clock since which it has had nothing to do."""

    connection: Any
    since: float


class Kept:
    """The idle connections of one process to one server; safe between threads, and empty in a forked child.

    A connection that its peer closes in the very moment of sending leaves a call in doubt, which a new connection would
    not have done. So a connection is used again only within a burst of calls, half a second after its last answer at
    most, and only after several others were seen to stay open for twice that time. It is looked at before the request,
    and once more between the request's head and its body. A single connection that was closed early, or on which a call
    broke, ends this for an hour: until then every call connects for itself.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin without a connection, and without proof that the server keeps any."""
        self._monotonic = monotonic
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._ready: deque[_Idle] = deque()
        self._witnesses: deque[_Idle] = deque()
        self._proofs = 0
        self._distrusted_until = -math.inf

    @property
    def wanted(self) -> bool:
        """True if a connection that is answered now would stay open."""
        if self._monotonic() < self._distrusted_until:
            return False
        return self._proofs + len(self._witnesses) < WITNESSES or self._proofs >= WITNESSES

    def take(self) -> Any:
        """Return a connection that may be used again, or None."""
        with self._lock:
            self._forget_in_child()
            now, over = self._monotonic(), list[_Idle]()
            betrayed = not self._hear_witnesses(now, over)
            while self._ready and self._ready[0].since < now - IDLE_SECONDS:
                over.append(self._ready.popleft())
            found = self._ready.pop().connection if self._ready else None
        for idle in over:
            idle.connection.close()
        if betrayed or (found is not None and not is_quiet(found.sock)):
            self.distrust()
            if found is not None:
                found.close()
            return None
        return found

    def put(self, connection: Any) -> None:
        """Keep a connection whose answer was read to its last byte, or close it."""
        with self._lock:
            now = self._monotonic()
            idle = _Idle(connection, now)
            if now < self._distrusted_until or now - connection.connected_at > LIFE_SECONDS:
                pass
            elif self._proofs >= WITNESSES:
                self._ready.append(idle)
                return
            elif self._proofs + len(self._witnesses) < WITNESSES:
                self._witnesses.append(idle)
                return
        connection.close()

    def distrust(self) -> None:
        """Use no connection again for an hour, and only after new proof from then on."""
        with self._lock:
            self._distrusted_until, self._proofs = self._monotonic() + DISTRUST_SECONDS, 0
        self.close()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            over = [*self._ready, *self._witnesses]
            self._ready.clear()
            self._witnesses.clear()
        for idle in over:
            idle.connection.close()

    def _hear_witnesses(self, now: float, over: list[_Idle]) -> bool:
        """Look at the witnesses whose time has come; return False if the server closed one."""
        while self._witnesses and self._witnesses[0].since <= now - PROOF_SECONDS:
            witness = self._witnesses.popleft()
            over.append(witness)
            if witness.since > now - LATE_SECONDS:
                if not is_quiet(witness.connection.sock):
                    return False
                self._proofs += 1
        return True

    def _forget_in_child(self) -> None:
        if self._pid != os.getpid():
            self._pid, self._ready, self._witnesses = os.getpid(), deque(), deque()


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
        """Return the pool of the one host; requests would look it up by all that may distinguish pools."""
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

    def build_response(self, req: Any, resp: Any) -> Any:
        """Return the answer as it is; nobody here asks for its cookies or its encoding."""
        del req
        return resp

    def send(self, request: Any, *args: Any, **options: Any) -> Any:
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
