"""The format of a segment, the journal's file: a header and sealed records, which are found even in a damaged file.

A segment is preallocated and has zeros behind its last record:

    header, 512 bytes: EVTKNJ1 LF | length u32 | CRC32 u32 | JSON: segment id, owner, host, pid, start
    record:            magic e7 4a 52 4e | flag 4 bytes | number u64 | length u32 | CRC32 u32 | sealed bytes

Numbers are big-endian. The CRC covers number, length and sealed bytes. The flag is four zeros while the record waits
and `DONE` once it is released; it has four bytes, so that no single damaged byte releases a record. Each record is
sealed to the segment id and its number, and not to the folder, so that a folder may be moved. The segment id is also in
the file's name, so that records still open if the header is damaged.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap
from typing import Final

HEADER_BYTES: Final = 512
SUFFIX: Final = ".segment"
UNFINISHED_SUFFIX: Final = ".new"
WAITING: Final = b"\0\0\0\0"
RELEASED: Final = b"DONE"
FLAG_OFFSET: Final = 4
SEGMENT_ID_BYTES: Final = 16
_HEADER_MAGIC: Final = b"EVTKNJ1\n"
_HEADER: Final = struct.Struct(">8sII")
_MAGIC: Final = b"\xe7JRN"
_FRAME: Final = struct.Struct(">4s4sQII")
_CHECKED: Final = struct.Struct(">QI")
_ID_IN_NAME: Final = re.compile(rf".*-([0-9a-f]{{{2 * SEGMENT_ID_BYTES}}})(?:\..*)?{re.escape(SUFFIX)}\Z")
_TEXT_LIMIT: Final = 128
_ZEROS: Final = bytes(2**16)
FRAME_BYTES: Final = _FRAME.size


@dataclass(frozen=True)
class Header:
    """The header of a segment: which process writes it.

    Attributes:
        segment_id: 16 random bytes that its records are sealed to.
        owner: the name of the worker.
        started_at: when the segment was made, in ISO 8601.
    """

    segment_id: bytes
    owner: str
    host: str
    pid: int
    started_at: str

    def to_bytes(self) -> bytes:
        """Return the 512 bytes at the start of the file."""
        fields = {
            "segment": self.segment_id.hex(),
            "owner": _plain(self.owner),
            "host": _plain(self.host),
            "pid": self.pid,
            "started_at": self.started_at,
        }
        text = json.dumps(fields).encode("ascii")
        return (_HEADER.pack(_HEADER_MAGIC, len(text), zlib.crc32(text)) + text).ljust(HEADER_BYTES, b"\0")

    @property
    def file_name(self) -> str:
        """The segment's file name: host, process and segment id."""
        return f"{_plain(self.host)[:64]}-{self.pid}-{self.segment_id.hex()}{SUFFIX}"


@dataclass(frozen=True)
class Frame:
    """One complete record in a segment.

    Attributes:
        offset: where it starts in the file, in bytes.
        number: its number; later records have higher ones.
        sealed: the sealed bytes.
        released: True if the database has it.
    """

    offset: int
    number: int
    sealed: bytes = field(repr=False)
    released: bool

    @property
    def end(self) -> int:
        """Where the next record starts."""
        return self.offset + FRAME_BYTES + len(self.sealed)


@dataclass(frozen=True)
class Damage:
    """Bytes between complete records, or behind the last one, that are not a record.

    Attributes:
        offset: where they start in the file, in bytes.
        raw: the bytes.
        tail: True if no complete record follows: a write that a dying process or a power loss cut off, or damage.
    """

    offset: int
    raw: bytes = field(repr=False)
    tail: bool


def segment_id_of(head: bytes) -> bytes | None:
    """Return the segment id in a header, or None if the header is damaged or has none."""
    if len(head) < HEADER_BYTES:
        return None
    magic, length, crc = _HEADER.unpack_from(head)
    text = head[_HEADER.size : _HEADER.size + length]
    if magic != _HEADER_MAGIC or length > HEADER_BYTES - _HEADER.size or zlib.crc32(text) != crc:
        return None
    try:
        segment_id = bytes.fromhex(json.loads(text)["segment"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return segment_id if len(segment_id) == SEGMENT_ID_BYTES else None


def segment_id_of_name(file_name: str) -> bytes | None:
    """Return the segment id in a file's name, or None."""
    found = _ID_IN_NAME.match(file_name)
    return bytes.fromhex(found[1]) if found else None


def place_of(segment_id: bytes, number: int) -> bytes:
    """Return the place that a record is sealed to: this format, its segment and its number."""
    return b"evertoken journal 1" + segment_id + struct.pack(">Q", number)


def frame_of(number: int, sealed: bytes) -> bytes:
    """Return the bytes of a record, with its frame."""
    crc = zlib.crc32(sealed, zlib.crc32(_CHECKED.pack(number, len(sealed))))
    return _FRAME.pack(_MAGIC, WAITING, number, len(sealed), crc) + sealed


def scan(data: bytes | mmap) -> Iterator[Frame | Damage]:
    """Yield the records of a whole segment file in their order, and the damage between and behind them."""
    position, end = HEADER_BYTES, _end_of_bytes(data)
    while (frame := _next_frame(data, position, end)) is not None:
        if frame.offset > position:
            yield Damage(position, data[position : frame.offset], tail=False)
        yield frame
        position = frame.end
    rest = data[position:end].rstrip(b"\0")
    if rest:
        yield Damage(position, rest, tail=True)


def _end_of_bytes(data: bytes | mmap) -> int:
    """Return where only zeros follow, a little too late at most: bytes are stripped one by one, blocks are compared."""
    end = len(data)
    while end >= len(_ZEROS) and data[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    return end


def _next_frame(data: bytes | mmap, position: int, end: int) -> Frame | None:
    """Return the first complete record that starts at or behind a position and before an end."""
    while (offset := data.find(_MAGIC, position, end)) >= 0:
        frame = _frame_at(data, offset)
        if frame is not None:
            return frame
        position = offset + 1
    return None


def _frame_at(data: bytes | mmap, offset: int) -> Frame | None:
    if offset + FRAME_BYTES > len(data):
        return None
    _, flag, number, length, crc = _FRAME.unpack_from(data, offset)
    start = offset + FRAME_BYTES
    if length > len(data) - start:
        return None
    sealed = data[start : start + length]
    if zlib.crc32(sealed, zlib.crc32(_CHECKED.pack(number, length))) != crc:
        return None
    return Frame(offset, number, sealed, released=flag == RELEASED)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:@-]", "_", text)[:_TEXT_LIMIT]
