"""Sockets with one deadline over a whole call, which know exactly what was sent and keep what was received.

A timeout in requests and urllib3 bounds each read, so a peer that drips a byte a second is never too late. Here every
socket operation gets only what is left of the call's time: connecting, the TLS handshake, sending, the head of the
answer and its body. The sockets belong to one thread during a call, so the call is found in a thread-local place.
"""

from __future__ import annotations

import functools
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import certifi

from worker.egress.proxy import END_OF_HEAD, Proxy
from worker.egress.reasons import NotConnectedError, ProxyError, in_words

LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*(?=\r\n)")
CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*(?=\r\n)")
CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


@dataclass
class Call:
    """What the sockets of this thread go by during one call.

    Attributes:
        seconds: what the whole call may take.
        connect_seconds: what each of connecting (through the proxy, where there is one) and the TLS handshake may take.
        keep_bytes: how many received bytes to keep.
        after_send: called when the request is out and nothing of the answer was read.
        proxy: what new connections go through; None for none.
        keep: True if the connection may be kept; False if the peer was asked to close it.
        reused: True if an earlier call has used the connection.
        body_began: True as soon as a byte of the request's body may have left.
        received: the bytes that came, head and all, as they stood on the wire inside TLS.
        ended: True once the peer has closed its side.
    """

    seconds: float
    connect_seconds: float
    keep_bytes: int = 0
    after_send: Callable[[], object] = lambda: None
    proxy: Proxy | None = None
    keep: bool = True
    reused: bool = False
    body_began: bool = False
    received: bytearray = field(default_factory=bytearray, repr=False)
    ended: bool = False
    ends_at: float = 0.0

    def __post_init__(self) -> None:
        self.ends_at = time.monotonic() + self.seconds

    @property
    def overdue(self) -> bool:
        """True once the call's time is used up."""
        return time.monotonic() >= self.ends_at

    @property
    def is_whole(self) -> bool:
        """True if the answer came to its last byte, nothing came after it, and the peer has not closed."""
        received = len(self.received)
        return not self.ended and received < self.keep_bytes and end_of_answer(self.received) == received

    def time_left(self) -> float:
        """Return the seconds left; raises TimeoutError where none is."""
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call's time is used up")
        return left


class _Current(threading.local):
    """The call of this thread while it is under way."""

    call: Call

    def end(self) -> None:
        """Forget the call, which holds the bytes of its answer."""
        del self.call


CURRENT: Final = _Current()


class BoundSocket(socket.socket):
    """A socket that never waits longer than its call may, and keeps what it received."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive within what is left of the call's time, and after it what lies ready."""
        return _receive(self, lambda: super(BoundSocket, self).recv_into(buffer, nbytes or 0, flags), buffer)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send within what is left of the call's time."""
        _begin_to_send(self, data)
        super().sendall(data, flags)


class _BoundTlsSocket(ssl.SSLSocket):
    """The same inside TLS; one read of a TLS record is bounded as a whole, however it drips."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        return _receive(self, lambda: super(_BoundTlsSocket, self).recv_into(buffer, nbytes, flags), buffer)

    def sendall(self, data: Any, flags: int = 0) -> None:
        _begin_to_send(self, data)
        super().sendall(data, flags)


def _receive(source: socket.socket, read: Callable[[], int], buffer: Any) -> int:
    """Read once within the call's time; when that is used up, read what has arrived already, without waiting.

    A process that stood still past its deadline finds the answer in the kernel, and under TLS one read takes one
    record of it only: the head and not yet the tokens. What is read so is bounded by what a call keeps.

    Raises:
        TimeoutError: the time is used up, and nothing lies ready or enough was read.
    """
    call = CURRENT.call
    count = None
    with suppress(TimeoutError):
        source.settimeout(call.time_left())
        count = read()
    if count is None and len(call.received) < call.keep_bytes:
        source.settimeout(0)
        with suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            count = read()
    if count is None:
        raise TimeoutError("the call's time is used up")
    _keep(call, buffer, count)
    return count


def _keep(call: Call, buffer: Any, count: int) -> None:
    call.ended = call.ended or count == 0
    room = call.keep_bytes - len(call.received)
    if room > 0:
        call.received += memoryview(buffer)[: min(count, room)]


def _begin_to_send(source: socket.socket, data: Any) -> None:
    """Bound the sending, and note that the body leaves.

    The head goes out by itself and ends in an empty line, which no body of ours does. A connection that was used before
    is looked at between the two: its peer may have closed it when the head was on its way.

    Raises:
        NotConnectedError: the connection is gone, and nothing of the body was sent.
        TimeoutError: the time is used up, and nothing of this was sent.
    """
    call, is_body = CURRENT.call, not bytes(data).endswith(END_OF_HEAD)
    if is_body and call.reused and not is_quiet(source):
        raise NotConnectedError("the kept connection was closed before the request's body was sent")
    source.settimeout(call.time_left())
    call.body_began = call.body_began or is_body


def is_quiet(source: socket.socket) -> bool:
    """Return True if the peer has neither closed a connection nor said anything on it.

    Inside TLS this reads what is no data, such as session tickets, and hears the peer's goodbye.
    """
    try:
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        if not waiting.poll(0):
            return not (isinstance(source, ssl.SSLSocket) and source.pending())
        source.settimeout(0)
        source.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except (OSError, ValueError):  # ValueError: it was closed here
        return False
    return False


def end_of_answer(received: bytes | bytearray) -> int | None:
    """Return where the answer ends that these bytes begin with; None if its head does not say, or it is no HTTP 200."""
    end = received.find(END_OF_HEAD) + len(END_OF_HEAD)
    size = length_told(bytes(received[:end]))
    if size is None or size >= 0:
        return None if size is None else end + size
    while size:
        chunk = CHUNK.match(received, end)
        if chunk is None:
            return None
        size = int(chunk[1], 16)
        end = chunk.end() + size + 2
    return end if received.endswith(b"\r\n0\r\n\r\n") else None


def length_told(head: bytes) -> int | None:
    """Return the length of the body that a whole head tells, -1 for chunks; None if it does not, or is no HTTP 200."""
    head = head.lower()
    if not head.startswith(b"http/1.1 200 ") or head.count(b"\ncontent-length") + head.count(b"\ntransfer-") != 1:
        return None
    if length := LENGTH.search(head):
        return int(length[1])
    return -1 if CHUNKED.search(head) else None


def connected(host: str, port: int) -> socket.socket:
    """Return a connection to a host, straight or through a tunnel of the call's proxy.

    Raises:
        OSError: none came about within the time for connecting; ProxyError where it is the proxy's doing.
    """
    call = CURRENT.call
    if call.proxy is None:
        bound, _ = _dialled(host, port)
    else:
        try:
            bound, until = _dialled(call.proxy.host, call.proxy.port)
        except OSError as error:
            raise ProxyError(f"the egress proxy failed: {in_words(error)}") from None
        try:
            call.proxy.open_tunnel(bound, host, port, until=until)
        except OSError as error:
            bound.close()
            raise ProxyError(
                str(error) if isinstance(error, ProxyError) else f"the egress proxy failed: {in_words(error)}"
            ) from None
    bound.settimeout(min(call.connect_seconds, call.time_left()))  # for the TLS handshake
    return bound


def _dialled(host: str, port: int) -> tuple[BoundSocket, float]:
    """Try the host's addresses in turn; all of them together get the time for connecting, whose end is returned too."""
    call = CURRENT.call
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    until = time.monotonic() + min(call.connect_seconds, call.time_left())
    failure: OSError = OSError("no address")
    for family, kind, protocol, _, address in addresses:
        bound = BoundSocket(family, kind, protocol)
        try:
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            bound.settimeout(max(until - time.monotonic(), 0.001))
            bound.connect(address)
        except OSError as error:
            bound.close()
            failure = error
        else:
            return bound, until
    raise failure


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the one TLS context: TLS 1.2 or later, certificate and host name always checked.

    Args:
        ca_file: the only authorities to trust, as a PEM file; None for those of Mozilla, as `certifi` brings them.
            Reading those takes 50 ms, so a process does it once.
    """
    return _new_context(ca_file) if ca_file is not None else _usual_context()


@functools.cache
def _usual_context() -> ssl.SSLContext:
    return _new_context(Path(certifi.where()))


def _new_context(authorities: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authorities))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _BoundTlsSocket
    return context
