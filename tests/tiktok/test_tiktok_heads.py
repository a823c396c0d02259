"""How the head of an answer is read: in one step if it is usual, and in every case as the standard library reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any

import pytest

from worker.egress.wire import Answer

OK = b"HTTP/1.1 200 OK\r\n"
BODY = b'{"code":0}'
CHUNKS = b'4\r\n{"co\r\n6\r\nde":0}\r\n0\r\n\r\n'
USUAL = (
    OK + b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n" + BODY,
    OK + b"content-length:10\r\nX-Tt-Logid: \t 2026 \r\nSet-Cookie: a=b\r\nset-cookie: c=d; e\r\n\r\n" + BODY,
    OK + b"Content-Length: 10\r\nConnection: Close\r\n\r\n" + BODY,
    OK + b"Transfer-Encoding: chunked\r\nRetry-After: 3\r\nConnection: keep-alive\r\n\r\n" + CHUNKS,
    b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
)
ODD = (
    b"HTTP/1.1 200\r\nContent-Length: 10\r\n\r\n" + BODY,
    b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n" + BODY,
    b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nContent-Length: 10\r\n\r\n" + BODY,
    b"HTTP/1.1 204 None\r\nContent-Length: 10\r\n\r\n" + BODY,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 10\r\n\r\n" + BODY,
    OK + b"\r\n" + BODY,
    OK + b"Content-Length: 10\r\nContent-Length: 4\r\n\r\n" + BODY,
    OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    OK + b"Content-Length: -1\r\n\r\n" + BODY,
    OK + b"Content-Length: ten\r\n\r\n" + BODY,
    OK + b"X-Folded: one\r\n two\r\nContent-Length: 10\r\n\r\n" + BODY,
    OK + b"X-Latin: caf\xe9\r\nContent-Length: 10\r\n\r\n" + BODY,
    OK + b"no colon\r\nContent-Length: 10\r\n\r\n" + BODY,
    OK + b"X-Line: a\nContent-Length: 4\r\nContent-Length: 10\r\n\r\n" + BODY,
    b"HTTP/1.1 200 OK\nContent-Length: 10\n\n" + BODY,
    OK + b"Content-Length: 10\r\n",
    b"",
    b"no answer",
)


class Pieces(io.RawIOBase):
    """What a socket brings, a piece for each read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next piece, or the end."""
        piece = next(self._pieces, b"")
        buffer[: len(piece)] = piece
        return len(piece)

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return the reader, as a socket does."""
        assert mode == "rb"
        return io.BufferedReader(self)


def told(kind: type[HTTPResponse], *pieces: bytes) -> Any:
    """Return all that a reader of answers says of one, or the kind of error that it raises."""
    answer = kind(Pieces(iter(pieces)), method="POST")  # type: ignore[arg-type]  # it needs nothing else of a socket
    try:
        answer.begin()
        framing = (answer.version, answer.status, answer.reason, answer.length, answer.chunked, answer.will_close)
        return *framing, answer.headers.items(), answer.msg is answer.headers, answer.read(), answer.isclosed()
    except HTTPException as error:
        return type(error)


@pytest.mark.parametrize("answer", USUAL + ODD)
def test_every_head_is_read_as_the_standard_library_reads_it(answer: bytes) -> None:
    """However the bytes come, status, headers, length and body are the same: a length that is wrong loses a pair."""
    expected = told(HTTPResponse, answer)
    assert told(Answer, answer) == expected
    for at in range(1, len(answer)):
        assert told(Answer, answer[:at], answer[at:]) == expected
    assert told(Answer, *(answer[at : at + 1] for at in range(len(answer)))) == expected


@pytest.mark.parametrize("answer", USUAL)
def test_a_usual_head_is_not_read_line_by_line(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way is taken for the answers that TikTok gives all day."""
    monkeypatch.setattr(HTTPResponse, "begin", lambda _: pytest.fail("it was read by the standard library"))
    assert told(Answer, answer)
