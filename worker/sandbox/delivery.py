"""Send answers that are late, lost, cut or dripping, or framed in another way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from worker.sandbox.wire import Delivery, Reply, framed, head_of

if TYPE_CHECKING:
    from worker.sandbox.protocol import Connection

BEFORE_RESET_SECONDS: Final = 0.05
"""How long a cut answer's bytes get to arrive before the reset that would drop them."""


async def deliver(reply: Reply, connection: Connection, *, close: bool) -> None:
    """Send an answer the way its delivery says; the connection is closed where that belongs to it.

    Args:
        reply: the answer.
        connection: where to.
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
    """Tell whether all the texts, as JSON strings, stand whole in the bytes of a cut answer's body."""
    head, body, _ = _parts(reply, how, close=False)
    return bool(head.endswith(b"\r\n\r\n")) and all(f'"{text}"'.encode() in body for text in texts)


def _parts(reply: Reply, how: Delivery, *, close: bool) -> tuple[bytes, bytes, bool]:
    """Give head and body as they leave, and whether they are cut."""
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
