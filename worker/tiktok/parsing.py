"""Reads the JSON of an answer, complete or cut off, even hostile: returns an object, or why there is none."""

from __future__ import annotations

import codecs
import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

GZIP_MARK: Final = b"\x1f\x8b"
OPENED_LIMIT_BYTES: Final = 1 << 20
"""Most bytes of a decompressed body of a token call; more is a bomb."""
READ_LIMIT_BYTES: Final = 8 << 20
"""The same of a read of account data: twenty videos of ten minutes with their curves are more than 1 MiB."""

INTEGER_DIGITS: Final = 40
"""Longer integers have no meaning here, and Python refuses to read very long ones."""

CLOSERS: Final = {"{": "}", "[": "]"}
OPENERS: Final = frozenset({"{", "[", '"'})
"""What the JSON of an object, a list or a string begins with."""
MARKS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],"]', re.DOTALL)
"""Complete strings, brackets and commas; a lone quote begins a string that does not end."""
ODD_DIGITS: Final = 80
"""Digits that are kept of a number that cannot be represented."""

FRAMES: Final = 2
"""Most nested odd frames that are opened, such as a string of JSON in UTF-16."""
SEARCH_DEPTH: Final = 8
WIDE_LOOK: Final = 64
REPAIR_TRIES: Final = 8
REPAIR_DEPTH: Final = 32
"""A token object is nested two deep; nothing deeper than this is searched, so that hostile nesting costs nothing."""


@dataclass(frozen=True)
class OddNumber:
    """A number that cannot be represented: NaN, infinite, or of more digits than any figure has."""

    text: str


@dataclass(frozen=True)
class Document:
    """A JSON object that was read.

    Attributes:
        members: its members; numbers that cannot be represented are None, or an `OddNumber` if they were asked for.
        repeated: keys that occurred twice in one object with different values, so that their meaning is unknown.
        frame: what was odd about its frame, in a few words; None if nothing was.
        text: what was parsed.
    """

    members: dict[str, Any]
    repeated: frozenset[str]
    frame: str | None = None
    text: str = field(default="", repr=False)


def read_document(body: bytes, *, limit: int = OPENED_LIMIT_BYTES, odd_numbers: bool = False) -> Document | str:
    """Read a complete body, in any frame.

    Args:
        body: the body as received.
        limit: most bytes of the decompressed body.
        odd_numbers: True to keep numbers that cannot be represented as `OddNumber`.

    Returns:
        The document, or a few words on why there is none; they hold nothing of the body.
    """
    opened, fault = open_body(body, limit)
    if fault is not None:
        return fault
    if not opened.strip():
        return "empty"
    text = _utf8(opened)
    found = "not UTF-8" if text is None else _document(text, odd_numbers=odd_numbers)
    if isinstance(found, str):
        for odd, frame in _unframed(opened):
            document = _document(odd)
            if isinstance(document, Document):
                return replace(document, frame=frame)
    return found


def read_prefix(body: bytes) -> Document | None:
    """Read all complete members of a body that may have been cut off at any byte.

    A number at the cut is left out, because its last digits may be missing; a string counts if its closing quote has
    come. Bytes before the first brace are skipped: they may be a broken head.

    Returns:
        The document up to the cut, or None if not even one object can be read.
    """
    for text in texts_in(body):
        start = text.find("{")
        if start < 0:
            continue
        rest = text[start:]
        for end, closers in reversed(_checkpoints(rest)[-REPAIR_TRIES:]):
            found = _document(rest[:end] + closers)
            if isinstance(found, Document) and found.members:
                return found
    return None


def texts_in(body: bytes) -> Iterator[str]:
    """Yield every text that a body may mean, cut off or not, the likeliest first."""
    opened, _ = open_body(body)
    yield opened.decode("utf-8", errors="replace")
    for text, _ in _unframed(opened):
        yield text


def objects_in(value: Any, depth: int = SEARCH_DEPTH) -> list[dict[str, Any]]:
    """Return all objects in a value: in members, in lists, and as JSON in a string."""
    found: list[dict[str, Any]] = []
    _collect(value, depth, found)
    return found


def _collect(value: Any, depth: int, found: list[dict[str, Any]]) -> None:
    if isinstance(value, str) and _may_be_json(value):
        value = _loaded(value)
    if isinstance(value, dict):
        found.append(value)
    if depth and isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list)) or (isinstance(item, str) and _may_be_json(item)):
                _collect(item, depth - 1, found)


def _may_be_json(text: str) -> bool:
    first = text[:1]
    return first in OPENERS or (first.isspace() and text.lstrip()[:1] in OPENERS)


def _unframed(data: bytes | str, depth: int = FRAMES) -> Iterator[tuple[str, str]]:
    """Yield the texts inside of odd frames: compressed, in another encoding, or as a string of JSON."""
    if isinstance(data, bytes):
        for opened, frame in _decompressed(data):
            yield opened.decode("utf-8-sig", errors="replace"), frame
            if depth:
                yield from ((text, f"{inner} in {frame}") for text, inner in _unframed(opened, depth - 1))
        for text in _wide(data):
            yield text, "UTF-16 or UTF-32"
            if depth:
                yield from ((inside, f"{inner} in UTF-16 or UTF-32") for inside, inner in _unframed(text, depth - 1))
    plain = _utf8(data) if isinstance(data, bytes) else data
    value = None if plain is None or not plain.lstrip().startswith('"') else _loaded(plain)
    if isinstance(value, str):
        yield value, "a string"
        if depth:
            yield from _unframed(value, depth - 1)


def _decompressed(data: bytes) -> Iterator[tuple[bytes, str]]:
    for window, frame in ((31, "gzip"), (15, "deflate"), (-15, "deflate without its head")):
        try:
            opened = zlib.decompressobj(wbits=window).decompress(data, OPENED_LIMIT_BYTES)
        except zlib.error:
            continue
        if opened:
            yield opened, frame


def _wide(data: bytes) -> Iterator[str]:
    """Yield the texts that bytes mean in encodings of two and four bytes a letter; other JSON has no zero bytes."""
    if b"\0" in data[:WIDE_LOOK] or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        for encoding in ("utf-32", "utf-32-be", "utf-16", "utf-16-be"):
            with suppress(UnicodeError):
                yield data[: len(data) - len(data) % (4 if "32" in encoding else 2)].decode(encoding).lstrip("\ufeff")


def _utf8(data: bytes) -> str | None:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _loaded(text: str) -> Any:
    """Return the value of a JSON text, or None if it is not JSON or is hostile."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def open_body(body: bytes, limit: int = OPENED_LIMIT_BYTES) -> tuple[bytes, str | None]:
    """Decompress a body, asked for or not, up to a limit; JSON never begins with gzip's mark.

    Returns:
        The bytes, and a few words on what is wrong with them, or None.
    """
    if not body.startswith(GZIP_MARK):
        return body, None
    unpacker = zlib.decompressobj(wbits=31)
    try:
        opened = unpacker.decompress(body, limit)
    except zlib.error:
        return b"", "broken compression"
    if unpacker.eof:
        return opened, None
    return opened, "compressed and too long, or cut off"


def _document(text: str, *, odd_numbers: bool = False) -> Document | str:
    """Parse with all limits; errors of the parser are not passed on, because they hold the text."""
    repeated: set[str] = set()

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: dict[str, Any] = {}
            for key, value in pairs:
                if key in seen and (type(seen[key]) is not type(value) or seen[key] != value):
                    repeated.add(key)
                seen[key] = value
        return found

    try:
        value = json.loads(
            text,
            object_pairs_hook=members,
            parse_int=_integer_or_odd if odd_numbers else _integer,
            parse_float=_number_or_odd if odd_numbers else _number,
            parse_constant=OddNumber if odd_numbers else lambda _: None,
        )
    except RecursionError:
        return "nested too deeply"
    except ValueError:
        return "not JSON"
    return Document(value, frozenset(repeated), text=text) if isinstance(value, dict) else "not a JSON object"


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= INTEGER_DIGITS else None


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


def _integer_or_odd(text: str) -> int | OddNumber:
    value = _integer(text)
    return OddNumber(text[:ODD_DIGITS]) if value is None else value


def _number_or_odd(text: str) -> float | OddNumber:
    value = _number(text)
    return OddNumber(text[:ODD_DIGITS]) if value is None else value


def _checkpoints(text: str) -> list[tuple[int, str]]:
    """List the places where the text can be cut without splitting a value, each with the brackets that close it."""
    places: list[tuple[int, str]] = []
    open_brackets: list[str] = []
    for found in MARKS.finditer(text):
        mark = found.group()
        if mark == '"' or (mark in CLOSERS and len(open_brackets) == REPAIR_DEPTH):
            break  # a string that was cut, or hostile nesting
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
