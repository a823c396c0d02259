"""What a database driver's error means: worth another try or not, and what of its text may be shown."""

from __future__ import annotations

import sqlite3
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

TRANSIENT_STATES: Final = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock
        "55P03",  # lock timeout
        "23505",  # two transactions inserted the same key: the second finds the first one's row when it starts over
    }
)
TRANSIENT_SQLITE: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
PRIMARY_CODE: Final = 0xFF
LONGEST_REASON: Final = 200


def is_transient(fault: SQLAlchemyError) -> bool:
    """Tell whether the same transaction may succeed when it is run again from the top."""
    origin = fault.orig if isinstance(fault, DBAPIError) else None
    if isinstance(origin, psycopg.Error):
        return origin.sqlstate in TRANSIENT_STATES
    if isinstance(origin, sqlite3.Error):
        return (getattr(origin, "sqlite_errorcode", 0) & PRIMARY_CODE) in TRANSIENT_SQLITE
    return False


def describe(fault: SQLAlchemyError, password: str | None) -> str:
    """Return one sentence on a fault, without any value of a statement and without the password."""
    return f"the database is not available: {_reason(fault, password)}"


def _reason(fault: SQLAlchemyError, password: str | None) -> str:
    if isinstance(fault, PoolTimeoutError):
        return "all connections of this process are in use"
    origin = fault.orig if isinstance(fault, DBAPIError) else None
    if isinstance(origin, psycopg.Error) and origin.sqlstate is not None:
        # PostgreSQL's own sentence can quote values; its class and state cannot.
        return f"{type(origin).__name__} ({origin.sqlstate})"
    if isinstance(origin, (psycopg.OperationalError, sqlite3.OperationalError, sqlite3.IntegrityError)):
        # These name files, hosts, tables and columns, and no values. Some drivers add the server's second line.
        line = str(origin).strip().splitlines()[0] if str(origin).strip() else type(origin).__name__
        return (line.replace(password, "***") if password else line)[:LONGEST_REASON]
    return type(origin or fault).__name__
