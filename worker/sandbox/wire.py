"""Requests and answers as values, and how an answer becomes bytes under each HTTP framing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

JSON_TYPE: Final = "application/json; charset=utf-8"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
HTML_TYPE: Final = "text/html; charset=utf-8"


@dataclass(slots=True)
class Request:
    """One HTTP request; header names are in lower case, the query is raw."""

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    loopback: bool = True


@dataclass(slots=True)
class Delivery:
    """How an answer is sent if not simply at once and completely.

    Attributes:
        wait: seconds before anything leaves.
        lost: `rst` or `fin`: how the connection is closed, without a byte of answer.
        framing: `length`, `chunked` or `close`.
        cut_at: how many bytes of `cut_part` leave before the connection closes; None for all.
        cut_part: `body`, or `all` to count from the status line.
        cut_how: `fin` or `rst`.
        drip_part: `head`, `body` or `all`: what is sent drop by drop; an empty text for nothing.
        drip_bytes: size of a drop.
        drip_seconds: seconds per byte.
    """

    wait: float = 0.0
    lost: str = ""
    framing: str = "length"
    cut_at: int | None = None
    cut_part: str = "body"
    cut_how: str = "fin"
    drip_part: str = ""
    drip_bytes: int = 1
    drip_seconds: float = 0.1


@dataclass(slots=True)
class Reply:
    """One answer.

    Attributes:
        status: HTTP status.
        body: the bytes after the head.
        content_type: value of Content-Type.
        headers: more header lines.
        delivery: how it is sent; None for at once and completely.
        gone: called if the client has gone before the answer could be sent.
        done: called once the answer was sent or cannot be sent any more.
    """

    status: int
    body: bytes = field(repr=False)
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    delivery: Delivery | None = None
    gone: Callable[[], None] | None = None
    done: Callable[[], None] | None = None


@dataclass(slots=True)
class Deferred:
    """An answer that is only worked out after a while.

    Attributes:
        seconds: how long.
        resume: works the answer out.
    """

    seconds: float
    resume: Callable[[], Reply]


def json_reply(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Answer with JSON."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode(), JSON_TYPE, headers)


def text_reply(text: str, status: int, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Answer with plain text, as TikTok does for a wrong path or method."""
    return Reply(status, text.encode(), TEXT_TYPE, headers)


def head_of(reply: Reply, framing: str = "length", *, close: bool = False) -> bytes:
    """Build status line and headers, with the empty line."""
    lines = [_status_line(reply.status), "Server: sandbox"]
    if reply.body or reply.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Type: {reply.content_type}")
        if framing == "length":
            lines.append(f"Content-Length: {len(reply.body)}")
        elif framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if close or framing == "close":
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def framed(body: bytes, framing: str) -> tuple[bytes, bytes]:
    """Return the bytes before and after the body for a framing."""
    if framing != "chunked":
        return b"", b""
    return (b"%x\r\n" % len(body), b"\r\n0\r\n\r\n") if body else (b"", b"0\r\n\r\n")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Odd"
    return f"HTTP/1.1 {status} {phrase}"
