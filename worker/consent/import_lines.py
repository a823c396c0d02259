"""Reading the lines of an import: JSON lines or CSV, found out from the first line, in bounded memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO, Final, Literal

from worker.consent.import_fields import CREATOR, BadLineError, ImportedPair, read_pair
from worker.errors import UsageError

Format = Literal["jsonl", "csv"]
LONGEST_LINE: Final = 65_536
"""Bytes; a line of tokens and scopes has one or two thousand."""
_BOM: Final = b"\xef\xbb\xbf"
_WIDE_BOMS: Final = (b"\xff\xfe", b"\xfe\xff")
_TOO_LONG: Final = f"the line is longer than {LONGEST_LINE} bytes"

Parse = Callable[[bytes, datetime], ImportedPair]


def numbered_lines(stream: BinaryIO) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield number, size in bytes and content of each line; the content is None where it is longer than allowed."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        size = len(line)
        whole, rest = True, line
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST_LINE)):
            size, whole = size + len(rest), False
        yield number, size, (line.removeprefix(_BOM) if number == 1 else line) if whole else None


class LineReader:
    """Reads the lines of one stream; the first that is not blank tells the format."""

    def __init__(self, *, form: Format | None, now: datetime) -> None:
        """Make one for a stream.

        Args:
            form: how to read it, or None to find out.
            now: the database's time.
        """
        self._form = form
        self._now = now
        self._parse: Parse | None = None

    def read(self, line: bytes | None) -> ImportedPair | None:
        """Return a line's pair, or None for a CSV's header.

        Args:
            line: its bytes; None where it was too long.

        Raises:
            BadLineError: this line cannot be imported.
            UsageError: the stream cannot be imported; the text says what to do.
        """
        if line is None:
            raise BadLineError(_TOO_LONG)
        if self._parse is not None:
            return self._parse(line, self._now)
        start = line.strip()
        _refuse_other_files(start)
        if self._form == "jsonl" or (self._form is None and start.startswith(b"{")):
            self._parse = _parse_json
            return _parse_json(line, self._now)
        self._parse = _csv_parser(start)
        return None


def _refuse_other_files(start: bytes) -> None:
    if start.startswith(_WIDE_BOMS) or b"\0" in start:
        raise UsageError("the file is not UTF-8 text; save it as UTF-8")
    if start.startswith(b"["):
        raise UsageError("the file is one JSON array; give one object a line, as `jq -c '.[]' FILE` prints them")
    if start == b"{":
        raise UsageError("the file's JSON goes over several lines; give one object a line, as `jq -c . FILE` prints it")


def _parse_json(line: bytes, now: datetime) -> ImportedPair:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise BadLineError("the line is not JSON") from None
    if not isinstance(fields, dict):
        raise BadLineError("the line is not a JSON object")
    if "access_token" not in fields and isinstance(fields.get("data"), dict):
        fields = fields["data"]  # a whole answer of TikTok's, as it came
    return read_pair(fields, now)


def _csv_parser(header: bytes) -> Parse:
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the file is not UTF-8 text; save it as UTF-8") from None
    delimiter = max(",;\t", key=text.count)
    names = [name.strip().lower() for name in next(csv.reader([text], delimiter=delimiter))]
    if not {"access_token", "refresh_token"} <= set(names) or not set(CREATOR) & set(names):
        raise UsageError(
            "the first line is neither a JSON object nor a CSV header that names access_token, refresh_token "
            f"and one of {', '.join(CREATOR)}"
        )
    if len(set(names)) != len(names):
        raise UsageError("the CSV header names a column twice")

    def parse(line: bytes, now: datetime) -> ImportedPair:
        try:
            cells = next(csv.reader([line.decode("utf-8").rstrip("\r\n")], delimiter=delimiter, strict=True))
        except UnicodeDecodeError:
            raise BadLineError("the line is not UTF-8 text") from None
        except (csv.Error, StopIteration):
            raise BadLineError("the line's quotes do not close; a field never holds a line break") from None
        if len(cells) != len(names):
            raise BadLineError(f"the line has {len(cells)} fields and the header {len(names)}")
        return read_pair(dict(zip(names, cells, strict=True)), now)

    return parse
