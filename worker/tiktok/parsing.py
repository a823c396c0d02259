"""Reads the JSON of an answer, whole or cut off and however hostile: an object comes out, or why there is none."""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import Any, Final

GZIP_MARK: Final = b"\x1f\x8b"
OPENED_LIMIT_BYTES: Final = 1 << 20
"""What a compressed body may open to; more is a bomb."""

INTEGER_DIGITS: Final = 40
"""Longer integers mean nothing here, and Python refuses to read very long ones."""

CLOSERS: Final = {"{": "}", "[": "]"}
MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],"]', re.DOTALL)
"""Whole strings, brackets and commas; a lone quote begins a string that never ends."""

REPAIR_TRIES: Final = 8
REPAIR_DEPTH: Final = 32
"""A token object stands two deep; below this nothing is looked for, so that hostile nesting costs nothing."""


@dataclass(frozen=True)
class Document:
    """A JSON object that was read.

    Attributes:
        members: its members; numbers that cannot be held (NaN, infinite, too long) are None.
        repeated: keys that stood twice in one object with different values; what they mean is anybody's guess.
    """

    members: dict[str, Any]
    repeated: frozenset[str]


def read_document(body: bytes) -> Document | str:
    """Read a whole body.

    Returns:
        The document, or a few words on why there is none; they hold nothing of the body.
    """
    opened, fault = _opened(body)
    if fault is not None:
        return fault
    if not opened.strip():
        return "empty"
    try:
        text = opened.decode("utf-8-sig")
    except UnicodeDecodeError:
        return "not UTF-8"
    return _document(text)


def read_prefix(body: bytes) -> Document | None:
    """Read as many complete members as a body holds that may have been cut off at any byte.

    A number at the cut is left out, because its last digits may be missing; a string counts once its closing quote
    has come. Bytes before the first brace are passed over: a broken head may stand there.

    Returns:
        The document up to the cut, or None where not even one object can be read.
    """
    opened, _ = _opened(body)
    text = opened.decode("utf-8", errors="replace")
    start = text.find("{")
    if start < 0:
        return None
    text = text[start:]
    for end, closers in reversed(_checkpoints(text)[-REPAIR_TRIES:]):
        found = _document(text[:end] + closers)
        if isinstance(found, Document):
            return found
    return None


def _opened(body: bytes) -> tuple[bytes, str | None]:
    """Open a body that was compressed although we asked for none; a JSON text never begins with gzip's mark."""
    if not body.startswith(GZIP_MARK):
        return body, None
    unpacker = zlib.decompressobj(wbits=31)
    try:
        opened = unpacker.decompress(body, OPENED_LIMIT_BYTES)
    except zlib.error:
        return b"", "broken compression"
    if unpacker.eof:
        return opened, None
    return opened, "compressed and too long, or cut off"


def _document(text: str) -> Document | str:
    """Parse with every limit in place; whatever the parser raises ends here, because its errors hold the text."""
    repeated: set[str] = set()

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found and (type(found[key]) is not type(value) or found[key] != value):
                repeated.add(key)
            found[key] = value
        return found

    try:
        value = json.loads(
            text,
            object_pairs_hook=members,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=lambda _: None,
        )
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return "not JSON"
    return Document(value, frozenset(repeated)) if isinstance(value, dict) else "not a JSON object"


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= INTEGER_DIGITS else None


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _checkpoints(text: str) -> list[tuple[int, str]]:
    """List the places where the text could be cut without splitting a value, each with what would close it there."""
    places: list[tuple[int, str]] = []
    open_brackets: list[str] = []
    for found in MARKS.finditer(text):
        mark = found.group()
        if mark == '"' or (mark in CLOSERS and len(open_brackets) == REPAIR_DEPTH):
            break  # a string that the cut went through, or hostile nesting
        if mark in CLOSERS:
            open_brackets.append(CLOSERS[mark])
            continue
        if mark in CLOSERS.values() and open_brackets.pop() != mark:
            break
        places.append((found.start() if mark == "," else found.end(), _closing(open_brackets)))
        if not open_brackets:
            break  # the object ended; what follows is not part of it
    return places


def _closing(open_brackets: list[str]) -> str:
    return "".join(reversed(open_brackets))
