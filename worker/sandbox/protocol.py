"""HTTP/1.1 on a connection, by hand for speed: requests in order, pipelined or not, one answered at a time."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from worker.sandbox.wire import Deferred, Delivery, Reply, Request, framed, head_of, text_reply

HEAD_LIMIT_BYTES: Final = 64 * 1024
BODY_LIMIT_BYTES: Final = 64 * 1024 * 1024
BEFORE_RESET_SECONDS: Final = 0.05
"""Time for a cut answer's bytes to arrive before the reset, which would drop them."""

Answering = Callable[[Request], Reply | Deferred]


class BadRequestError(Exception):
    """The bytes are not a readable request; the connection is closed after the answer."""


class Connection(asyncio.Protocol):
    """One connection.

    Args:
        answering: works out the answer to a request.
        connections: the set of open connections, kept up to date.
    """

    def __init__(self, answering: Answering, connections: set[Connection]) -> None:
        self._answering = answering
        self._connections = connections
        self._buffer = bytearray()
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._loopback = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)
        peer = str(transport.get_extra_info("peername")[0])
        self._loopback = peer.startswith("127.") or peer in {"::1", "::ffff:127.0.0.1"}
        self._connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Forget the connection; an answer under way notices it by itself."""
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes and answer the complete requests."""
        self._buffer += data
        self._advance()

    def reset(self) -> None:
        """Close with RST and drop what was not sent."""
        sock = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _advance(self) -> None:
        try:
            while not self._busy and not self.transport.is_closing():
                request = self._next_request()
                if request is None:
                    return
                self._answer(request)
        except BadRequestError as error:
            self.transport.write(head_of(bad := text_reply(str(error), 400), close=True) + bad.body)
            self.transport.close()

    def _answer(self, request: Request) -> None:
        close = request.headers.get("connection", "").lower() == "close"
        reply = self._answering(request)
        if isinstance(reply, Reply) and reply.delivery is None:
            self.transport.write(head_of(reply, close=close) + reply.body)
            if reply.done is not None:
                reply.done()
            if close:
                self.transport.close()
            return
        self._busy = True
        self._task = asyncio.get_running_loop().create_task(self._answer_slowly(reply, close=close))

    async def _answer_slowly(self, reply: Reply | Deferred, *, close: bool) -> None:
        if isinstance(reply, Deferred):
            await asyncio.sleep(reply.seconds)
            reply = reply.resume()
        try:
            await deliver(reply, self, close=close)
        finally:
            if reply.done is not None:
                reply.done()
        self._busy = False
        self._advance()

    def _next_request(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise BadRequestError("request head too long")
            return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise BadRequestError("send Content-Length; chunked requests are not accepted")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT_BYTES:
            raise BadRequestError("no usable Content-Length")
        whole = end + 4 + int(length)
        if len(self._buffer) < whole:
            return None
        first = lines[0].split(" ")
        if len(first) != 3 or not first[2].startswith("HTTP/1."):  # noqa: PLR2004  # method, target, version
            raise BadRequestError("no HTTP/1.1 request line")
        body = bytes(self._buffer[end + 4 : whole])
        del self._buffer[:whole]
        path, _, query = first[1].partition("?")
        return Request(first[0], path, query, headers, body, self._loopback)


async def deliver(reply: Reply, connection: Connection, *, close: bool) -> None:
    """Send an answer as its delivery says, and close the connection if that is a part of it.

    Args:
        reply: the answer.
        connection: the connection to the client.
        close: whether the client asked for the connection to be closed afterwards.
    """
    how = reply.delivery or Delivery()
    if how.wait:
        await asyncio.sleep(how.wait)
    if connection.transport.is_closing():
        if reply.gone is not None:
            reply.gone()
        return
    if how.lost:
        _hang_up(connection, how.lost)
        return
    head, body, cut = _parts(reply, how, close=close)
    await _send(head, connection, how, dripping=how.drip_part in {"head", "all"})
    await _send(body, connection, how, dripping=how.drip_part in {"body", "all"})
    if cut and how.cut_how == "rst":
        await asyncio.sleep(BEFORE_RESET_SECONDS)
        _hang_up(connection, "rst")
    elif cut or close or how.framing == "close":
        _hang_up(connection, "fin")


def whole_in_cut(reply: Reply, how: Delivery, texts: tuple[str, ...]) -> bool:
    """Return True if the cut body of an answer contains all the texts, as complete JSON strings."""
    head, body, _ = _parts(reply, how, close=False)
    return bool(head.endswith(b"\r\n\r\n")) and all(f'"{text}"'.encode() in body for text in texts)


def _parts(reply: Reply, how: Delivery, *, close: bool) -> tuple[bytes, bytes, bool]:
    """Return head and body as they are sent, and whether they are cut."""
    head = head_of(reply, how.framing, close=close)
    before, after = framed(reply.body, how.framing)
    if how.cut_at is None:
        return head, before + reply.body + after, False
    if how.cut_part == "body":
        return head, before + reply.body[: how.cut_at], True
    whole = (head + before + reply.body + after)[: how.cut_at]
    return whole[: len(head)], whole[len(head) :], True


async def _send(content: bytes, connection: Connection, how: Delivery, *, dripping: bool) -> None:
    if not dripping:
        connection.transport.write(content)
        return
    for start in range(0, len(content), how.drip_bytes):
        if connection.transport.is_closing():
            return
        connection.transport.write(content[start : start + how.drip_bytes])
        await asyncio.sleep(how.drip_seconds * how.drip_bytes)


def _hang_up(connection: Connection, how: str) -> None:
    if how == "rst":
        connection.reset()
    else:
        connection.transport.close()
