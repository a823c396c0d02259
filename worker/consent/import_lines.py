"""Reading the file of an import: JSON lines, JSON documents or CSV, recognized by its beginning.

Lines are read one at a time. Only JSON documents of several lines, and pipes, are held in memory as a whole,
because the file is read twice: once to check and choose, once to store.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Final, Literal

from worker.consent.import_fields import (
    ACCESS_START,
    NEEDED,
    REFRESH_START,
    BadLineError,
    FieldNames,
    ImportedPair,
    is_nothing,
    read_pair,
)
from worker.errors import UsageError

Format = Literal["jsonl", "json", "csv"]
_Lines = Iterator[tuple[int, int, bytes | None]]
"""Number, size and content of lines."""
LONGEST_LINE: Final = 65_536
"""Bytes; a line of tokens and scopes has one or two thousand."""
LARGEST_HELD: Final = 256 * 2**20
"""Bytes of a file that is held in memory as a whole."""
MOST_COLUMNS: Final = 200
"""At most this many names of fields are remembered for the report."""
_BOM: Final = b"\xef\xbb\xbf"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS: Final = ",;\t|"
_SEPARATOR_LINE: Final = re.compile(rb"(?i)\s*\"?sep=(.)\"?\s*")
_PRINTED_RULE: Final = re.compile(rb"[-+|\s]+|\(\d+ rows?\)\s*")
"""What psql prints under a header and below the last row."""
_COLUMN: Final = re.compile(r"[\w .:/-]{1,64}")
"""A plausible name of a column; anything else may be content in the wrong place, and is not shown."""
_JSON_MARKS: Final = re.compile(r"[\s,\[\]]*")
_NOT_UTF8: Final = "the file is not UTF-8 text; save it as UTF-8"
_TOO_LONG: Final = f"the line is longer than {LONGEST_LINE} bytes"
_CUT_OFF: Final = (
    "the file seems to be cut off inside this line's {column}, which is shorter than on every other line; if it is "
    "whole, end the file with a line end"
)
_END_OF_COPY: Final = b"\\."
"""What pg_dump writes below the last row."""
_OTHER_FORMATS: Final = {
    b"\x1f\x8b": "compressed",
    b"BZh9": "compressed",
    b"\xfd7zXZ": "compressed",
    b"\x28\xb5\x2f\xfd": "compressed",
    b"PK\x03\x04": "a spreadsheet or an archive",
    b"PGDMP": "a dump in PostgreSQL's own format",
}
"""How files begin that must be converted to text first."""


@dataclass(frozen=True)
class Entry:
    """One entry of a file.

    Attributes:
        line: number of the line on which it begins, from 1; of a JSON document that holds several entries in one
            line or one list, the number of the entry.
        size: bytes read for it.
        pair: its content; None if it cannot be imported, or for a line without an entry.
        fault: why it cannot be imported; it holds nothing of the content.
    """

    line: int
    size: int
    pair: ImportedPair | None = None
    fault: str | None = None

    @property
    def blank(self) -> bool:
        """True for a line without an entry, such as a header."""
        return self.pair is None and self.fault is None


class Source:
    """The file of an import, which can be read several times."""

    def __init__(
        self,
        stream: BinaryIO,
        *,
        form: Format | None = None,
        names: FieldNames | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Take a file.

        Args:
            stream: its bytes, UTF-8; a stream that cannot be read twice, such as a pipe, is read into memory here.
            form: its format; None to recognize it by its beginning.
            names: the names of its fields.
            columns: the columns of a CSV that has no header.

        Raises:
            UsageError: a pipe has more bytes than are held in memory.
        """
        self._stream = stream if stream.seekable() else io.BytesIO(_read_all(stream))
        self._start = self._stream.tell()
        self._form = form
        self._names = names or FieldNames()
        self._columns = [name.strip() for name in columns] if columns else None
        self._seen: dict[str, None] = {}

    @property
    def read_columns(self) -> dict[str, str]:
        """The column that each field was read from, as far as the file was read."""
        return self._names.read(self._seen)

    @property
    def unread_columns(self) -> list[str]:
        """The columns that were not read, as far as the file was read; at most `MOST_COLUMNS`."""
        return self._names.unread(self._seen)

    def entries(self, now: datetime) -> Iterator[Entry]:
        """Yield the file's entries from its start, blank lines and headers included.

        Args:
            now: the database's time.

        Raises:
            UsageError: the file as a whole cannot be read; the text says what to do.
        """
        self._stream.seek(self._start)
        head = self._stream.read(LONGEST_LINE)
        self._stream.seek(self._start)
        for start, what in _OTHER_FORMATS.items():
            if head.startswith(start):
                raise UsageError(f"the file is {what}; give its rows as text, in CSV or JSON")
        if head.startswith(_WIDE_BOMS) or b"\0" in head:
            raise UsageError(_NOT_UTF8)
        form = self._form or _form_of(head.removeprefix(_BOM).lstrip())
        if form == "json":
            return self._documents(now)
        return self._json_lines(now) if form == "jsonl" else self._csv_lines(now)

    def _json_lines(self, now: datetime) -> Iterator[Entry]:
        for number, size, line in numbered_lines(self._stream):
            if line is not None and not line.strip():
                yield Entry(number, size)
                continue
            try:
                values = list(_objects(json.loads(_whole(line), object_pairs_hook=_each_once), self._names))
            except BadLineError as error:
                yield Entry(number, size, fault=str(error))
            except (ValueError, RecursionError):
                yield Entry(number, size, fault="the line is not JSON")
            else:
                yield Entry(number, size)
                for value in values:
                    yield self._entry(number, 0, value, now)

    def _documents(self, now: datetime) -> Iterator[Entry]:
        data = _read_all(self._stream)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UsageError(_NOT_UTF8) from None
        decoder, at, line, counted = json.JSONDecoder(object_pairs_hook=_each_once), 0, 1, 0
        in_one_line, nth = "\n" not in text.strip(), 0
        yield Entry(line, len(data))
        while (at := _after_marks(text, at)) < len(text):
            line, counted = line + text.count("\n", counted, at), at
            try:
                value, at = decoder.raw_decode(text, at)
            except BadLineError as error:
                raise UsageError(f"the file's JSON cannot be read at line {line}: {error}; nothing is read") from None
            except (ValueError, RecursionError):
                raise UsageError(f"the file's JSON breaks off or is damaged at line {line}; nothing is read") from None
            items = list(_objects(value, self._names))
            for item in items:
                nth += 1
                yield self._entry(nth if in_one_line or len(items) > 1 else line, 0, item, now)

    def _csv_lines(self, now: datetime) -> Iterator[Entry]:
        lines = numbered_lines(self._stream)
        separator, header, lines = yield from self._header(lines)
        last = _LastColumn()
        for number, size, line in lines:
            if line is not None and (
                line.strip() in {b"", _END_OF_COPY} or (separator == "|" and _PRINTED_RULE.fullmatch(line))
            ):
                yield Entry(number, size)
                continue
            try:
                fields = _fields(_whole(line), separator, header)
            except BadLineError as error:
                yield Entry(number, size, fault=str(error))
                continue
            column = header[-1]
            # Only the file's last line can lack a line end; a quoted field that is closed is whole.
            unended = line is not None and not line.endswith((b"\n", b"\r", b'"'))
            if unended and last.cuts(fields[column]) and column not in self._names.unread(header):
                yield Entry(number, size, fault=_CUT_OFF.format(column=column))
                continue
            entry = self._entry(number, size, fields, now)
            if entry.pair is not None:
                last.see(fields[column])
            yield entry

    def _header(self, lines: _Lines) -> Generator[Entry, None, tuple[str, list[str], _Lines]]:
        """Yield the lines up to the header, and return separator, columns and the lines after it."""
        separator = ""
        for number, size, line in lines:
            declared = _SEPARATOR_LINE.fullmatch(line) if number == 1 and line is not None else None
            if declared is not None or (line is not None and not line.strip()):
                separator = declared[1].decode("latin-1") if declared else separator
                yield Entry(number, size)
                continue
            first = _text(line, UsageError)
            separator = separator or max(_SEPARATORS, key=first.count)
            header = self._columns
            if header is None:
                header = [name.strip() for name in _cells(first, separator, UsageError)]
                yield Entry(number, size)
            else:
                lines = itertools.chain([(number, size, line)], lines)
            self._check(header)
            self._see(header)
            return separator, header, lines
        return separator, [], iter(())

    def _check(self, header: list[str]) -> None:
        if any(_is_token(name) for name in header):
            raise UsageError(
                "the first line holds a token, so the file has no header; name its columns in their order, such as "
                "--columns open_id,access_token,refresh_token"
            )
        lacking = self._names.missing(header)
        if lacking is not None:
            raise UsageError(
                f"the first line is neither a JSON object nor a CSV header with all needed columns: {lacking}; "
                f"with other names, say which is which: --map {','.join(f'{field}=COLUMN' for field in NEEDED)}"
            )
        unread = self._names.unread(header)
        read = [name.lower() for name in header if name not in unread]
        if len(set(read)) != len(read):
            raise UsageError("the CSV header names a column twice")

    def _entry(self, line: int, size: int, value: Any, now: datetime) -> Entry:
        if not isinstance(value, Mapping):
            return Entry(line, size, fault="the line is not a JSON object")
        self._see(str(name).strip() for name in value)
        try:
            return Entry(line, size, pair=read_pair(value, now, self._names))
        except BadLineError as error:
            return Entry(line, size, fault=str(error))

    def _see(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._seen or not _COLUMN.fullmatch(name) or _is_token(name):
                continue
            if len(self._seen) >= MOST_COLUMNS:
                break
            self._seen[name] = None


class _LastColumn:
    """The shortest good value of a CSV's last column: in a file that was cut off, the last value is shorter."""

    def __init__(self) -> None:
        self._shortest: int | None = None
        self._has_gaps = False

    def see(self, value: str) -> None:
        """Remember the value of a good line."""
        if is_nothing(value):
            self._has_gaps = True
        elif self._shortest is None or len(value.strip()) < self._shortest:
            self._shortest = len(value.strip())

    def cuts(self, value: str) -> bool:
        """Return True if the value is shorter than every value seen before; False if none was seen."""
        if self._shortest is None or (is_nothing(value) and (value or self._has_gaps)):
            return False
        return len(value.strip()) < self._shortest


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield number, size in bytes and content of each line; the content is None if it is longer than allowed."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        size = len(line)
        whole, rest = True, line
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST_LINE)):
            size, whole = size + len(rest), False
        yield number, size, (line.removeprefix(_BOM) if number == 1 else line) if whole else None


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse two members of one name, since the second would silently replace the first."""
    found = dict(members)
    if len(found) != len(members):
        raise BadLineError("an object names a field twice")
    return found


def _form_of(head: bytes) -> Format:
    """Return the format of a file that begins like this: it is JSON lines if its first line is a whole JSON object."""
    if head.startswith(b"["):
        return "json"
    if not head.startswith(b"{"):
        return "csv"
    try:
        json.loads(head.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return "json"
    return "jsonl"


def _objects(value: Any, names: FieldNames) -> Iterator[Any]:
    """Yield the entries of a JSON value: itself, a whole answer's `data`, or the one list that it holds."""
    if not isinstance(value, dict) or {str(name).strip().lower() for name in value} & set(names.of("access")):
        yield value
        return
    data = value.get("data")
    if isinstance(data, dict):
        yield from _objects(data, names)
        return
    lists = [member for member in value.values() if isinstance(member, list) and any(map(_is_object, member))]
    if len(lists) == 1:
        yield from lists[0]
    else:
        yield value


def _is_token(name: str) -> bool:
    return name.lower().startswith((ACCESS_START, REFRESH_START))


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _after_marks(text: str, at: int) -> int:
    found = _JSON_MARKS.match(text, at)
    return found.end() if found else at


def _whole(line: bytes | None) -> bytes:
    if line is None:
        raise BadLineError(_TOO_LONG)
    return line


def _text(line: bytes | None, error: type[BadLineError | UsageError]) -> str:
    if line is None:
        raise error(_TOO_LONG)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise error("the line is not UTF-8 text" if error is BadLineError else _NOT_UTF8) from None


def _fields(line: bytes, separator: str, header: list[str]) -> dict[str, str]:
    cells = _cells(_text(line, BadLineError), separator, BadLineError)
    if len(cells) != len(header):
        raise BadLineError(f"the line has {len(cells)} fields and the header {len(header)}")
    return dict(zip(header, cells, strict=True))


def _cells(text: str, separator: str, error: type[BadLineError | UsageError]) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")], delimiter=separator, strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration):
        raise error("the line's quotes do not close; a field never holds a line break") from None


def _read_all(stream: BinaryIO) -> bytes:
    data = stream.read(LARGEST_HELD + 1)
    if len(data) > LARGEST_HELD:
        raise UsageError(
            f"more than {LARGEST_HELD // 2**20} MiB are not read from a pipe or as one JSON document; "
            "give a file with one object a line, as `jq -c '.[]' FILE` prints them"
        )
    return data
