"""Files of account data: CSV, JSON lines or parquet, written page by page, and named only when they are complete."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

import click

from worker.cli.whole_file import whole_file
from worker.errors import UsageError
from worker.store import Store, account_columns

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is a formula to a spreadsheet."""

Write = Callable[[Sequence[Sequence[Any]]], None]


@dataclass(frozen=True)
class Source:
    """The rows of one table.

    Attributes:
        creator_id: of one creator only; None for all.
        since: rows of this UTC day and later only.
    """

    store: Store
    table: str
    creator_id: str | None
    since: date | None

    @property
    def columns(self) -> dict[str, type]:
        """The columns and their types."""
        return account_columns(self.table)

    def pages(self) -> Iterator[list[tuple[Any, ...]]]:
        """Yield the rows, a page at a time; rows that are written meanwhile may be among them."""
        after: tuple[Any, ...] = ()
        while rows := self.store.account_rows(self.table, creator_id=self.creator_id, since=self.since, after=after):
            yield [tuple(row) for row in rows]
            after = self.store.key_of(self.table, rows[-1])

    def count(self) -> int:
        """Return how many rows there are."""
        return self.store.count_account_rows(self.table, creator_id=self.creator_id, since=self.since)


def check(kind: str) -> None:
    """Check, before the work begins, that a format can be written.

    Raises:
        UsageError: it needs a package that is not installed.
    """
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise UsageError("parquet needs pyarrow: install Evertoken with its extra `parquet`, or take --format csv")


def write_out(source: Source, kind: str) -> None:
    """Write a table to standard output."""
    write = _TEXTS[kind](sys.stdout, list(source.columns))
    for page in source.pages():
        write(page)
    sys.stdout.flush()


def write_file(source: Source, kind: str, place: Path) -> int:
    """Write a table into a file, with a bar on a terminal; return how many rows.

    The file is complete when it appears under its name; what was there before stays until then.

    Raises:
        NotFoundError: it cannot be written, such as on a full disk; nothing is left of it.
    """
    rows = 0
    with (
        whole_file(place, replaces=True) as part,
        click.progressbar(
            length=source.count(), label=source.table, file=sys.stderr, hidden=not sys.stderr.isatty()
        ) as bar,
        _WRITERS[kind](part, source.columns) as write,
    ):
        for page in source.pages():
            write(page)
            rows += len(page)
            bar.update(len(page))
    return rows


def _csv(file: IO[str], columns: Sequence[str]) -> Write:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)

    def write(rows: Sequence[Sequence[Any]]) -> None:
        writer.writerows([[_cell(value) for value in row] for row in rows])

    return write


def _cell(value: Any) -> Any:
    """Return a value as CSV holds it: nothing for NULL, and no text that a spreadsheet would run as a formula."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return _plain(value)


def _jsonl(file: IO[str], columns: Sequence[str]) -> Write:
    def write(rows: Sequence[Sequence[Any]]) -> None:
        for row in rows:
            whole = {name: _plain(value) for name, value in zip(columns, row, strict=True)}
            file.write(json.dumps(whole, ensure_ascii=False) + "\n")

    return write


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else value


@contextmanager
def _text_file(kind: str, part: Path, columns: dict[str, type]) -> Iterator[Write]:
    with part.open("w", encoding="utf-8", newline="") as file:
        yield _TEXTS[kind](file, list(columns))


@contextmanager
def _csv_file(part: Path, columns: dict[str, type]) -> Iterator[Write]:
    with _text_file("csv", part, columns) as write:
        yield write


@contextmanager
def _jsonl_file(part: Path, columns: dict[str, type]) -> Iterator[Write]:
    with _text_file("jsonl", part, columns) as write:
        yield write


@contextmanager
def _parquet_file(part: Path, columns: dict[str, type]) -> Iterator[Write]:
    import pyarrow as pa  # noqa: PLC0415 - an extra, which is loaded only when it is asked for
    from pyarrow import parquet  # noqa: PLC0415 - as above

    types = {
        str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), date: pa.date32(),
        datetime: pa.timestamp("ms", tz="UTC"),
    }  # fmt: skip
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    with parquet.ParquetWriter(part, schema, compression="zstd") as writer:

        def write(rows: Sequence[Sequence[Any]]) -> None:
            turned = [list(values) for values in zip(*rows, strict=True)]
            writer.write_table(pa.table(dict(zip(columns, turned, strict=True)), schema=schema))

        yield write


_TEXTS: Final = {"csv": _csv, "jsonl": _jsonl}
_WRITERS: Final = {"csv": _csv_file, "jsonl": _jsonl_file, "parquet": _parquet_file}
