"""Instants as the database keeps them, and the database's own clock as an SQL expression.

Instants are whole milliseconds since 1970 in UTC, so that both databases compare and add them as integers. `now()`
is the start of the running statement on the database's clock: leases and due times never depend on a worker's clock.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import BigInteger, Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
NOW: Final = {
    # Fixed within a statement. `unixepoch('subsec')` would read better and needs SQLite 3.42.
    "sqlite": "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)",
    # Not clock_timestamp(): that one is volatile, and no index would be used for a comparison with it. And date_part()
    # rather than extract(): a double is computed faster than a numeric.
    "postgresql": "CAST(floor(date_part('epoch', statement_timestamp()) * 1000) AS BIGINT)",
}
"""The text of `now()` on each database, for statements that are written as text."""


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as milliseconds since 1970 in UTC; finer parts are cut off."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return the milliseconds of an aware datetime."""
        del dialect
        return None if value is None else as_milliseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the datetime of stored milliseconds."""
        del dialect
        return None if value is None else EPOCH + value * MILLISECOND

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Let `instant + 500` add milliseconds, while datetimes stay instants."""
        del op
        return self if isinstance(value, datetime) else BigInteger()


class now(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The start of the running statement on the database's clock, in milliseconds."""

    type = Instant()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    return NOW["sqlite"]


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: SQLCompiler, **options: Any) -> str:
    del element, compiler, options
    return NOW["postgresql"]


def whole_milliseconds(instant: datetime) -> datetime:
    """Return an instant as the database keeps it; compare only such instants with stored ones."""
    return EPOCH + (instant - EPOCH) // MILLISECOND * MILLISECOND


def milliseconds(seconds: float) -> int:
    """Return a duration for arithmetic with instants."""
    return round(seconds * 1000)


def iso_of(at: datetime) -> str:
    """Return an instant as ISO 8601 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_milliseconds(at: datetime) -> int:
    """Return an aware datetime as the database keeps it; finer parts are cut off."""
    return (at - EPOCH) // MILLISECOND
