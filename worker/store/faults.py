"""Classifies errors of database drivers: retry or not, outage or refusal, and which part of the text is shown."""

from __future__ import annotations

import re
import sqlite3
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError
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
OUTAGE_STATES: Final = ("08", "53", "57P", "58", "28", "3D", "XX", "25006")
"""Beginnings of SQLSTATEs that stop every transaction, or every one that writes."""
OUTAGE_SQLITE: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)
PRIMARY_CODE: Final = 0xFF
LONGEST_REASON: Final = 200

LACKS_TABLE: Final = (
    "the database lacks a table or column that this version needs ({}): run `celery -A worker db upgrade`, and look "
    "at EVERTOKEN_DATABASE_URL and EVERTOKEN_NAMESPACE, which may name another database or schema"
)
LACKS_RIGHT: Final = (
    "the user of EVERTOKEN_DATABASE_URL lacks a right in the database: {}; the owner of the "
    "tables gives it with what `evertoken db roles` prints, and runs `db upgrade` itself"
)
TAKES_NO_WRITES: Final = (
    "the database takes no writes ({}): EVERTOKEN_DATABASE_URL must name the primary, not a standby or a read-only copy"
)
SHUT_OUT: Final = "the database did not let us in: {}; look at EVERTOKEN_DATABASE_URL"
KEPT_WAITING: Final = "the database is busy: the transaction waited, or took, longer than it may ({})"
REFUSED_VALUE: Final = "the database refused a value ({})"
NOT_ENCODABLE: Final = "a text or number does not fit into the database ({})"
AWAY: Final = "the database is not available: {}"

STATE_TEXTS: Final = (
    (("42P01", "42703", "3F000"), LACKS_TABLE),
    (("42501",), LACKS_RIGHT),
    (("25006",), TAKES_NO_WRITES),
    (("40001", "40P01", "55P03", "57014"), KEPT_WAITING),
    (("22", "23"), REFUSED_VALUE),
)
"""The sentence for a SQLSTATE, by its beginning."""
SQLITE_TEXTS: Final = {
    sqlite3.SQLITE_READONLY: AWAY + ": the file of EVERTOKEN_DATABASE_URL, or its folder, may not be written",
    sqlite3.SQLITE_NOTADB: AWAY + ": EVERTOKEN_DATABASE_URL names a file of another kind",
    sqlite3.SQLITE_CANTOPEN: AWAY + ": look at EVERTOKEN_DATABASE_URL and at who may read that folder",
    sqlite3.SQLITE_BUSY: KEPT_WAITING,
    sqlite3.SQLITE_LOCKED: KEPT_WAITING,
    sqlite3.SQLITE_CONSTRAINT: REFUSED_VALUE,
    sqlite3.SQLITE_TOOBIG: REFUSED_VALUE,
    sqlite3.SQLITE_MISMATCH: REFUSED_VALUE,
}
QUOTES_NAMES_ONLY: Final = ("42P01", "42703", "42501", "3F000", "08P01", "53300", "57P01", "57P03")
"""For these states the message of PostgreSQL or a pooler names tables, columns, schemas and states, but no value."""
SHUT_OUT_TEXT: Final = re.compile(r"FATAL:\s+(.*(?:authentication failed|does not exist|pg_hba\.conf|not permitted).*)")


def is_transient(fault: Exception) -> bool:
    """Return whether the same transaction may succeed if it is started over."""
    state, code = _state(fault), _sqlite_code(fault)
    return state in TRANSIENT_STATES or code in TRANSIENT_SQLITE


def is_outage(fault: Exception) -> bool:
    """Return whether a fault stops every transaction, or every one that writes: no connection, or no disk to write to.

    Otherwise the database is available, and refused this transaction or kept it waiting.
    """
    if isinstance(fault, PoolTimeoutError) or not isinstance(fault, DBAPIError):
        return False
    state, code = _state(fault), _sqlite_code(fault)
    if code is not None:
        return code in OUTAGE_SQLITE
    if state is not None:
        return state.startswith(OUTAGE_STATES)
    return isinstance(fault.orig, (psycopg.OperationalError, psycopg.InterfaceError))


def describe(fault: Exception, password: str | None) -> str:
    """Return one sentence on a fault, without any value of a statement and without the password."""
    if isinstance(fault, PoolTimeoutError):
        return "the database is busy: all connections of this process are in use"
    if isinstance(fault, UnicodeEncodeError | OverflowError):
        return NOT_ENCODABLE.format(type(fault).__name__)
    if not isinstance(fault, DBAPIError):
        return AWAY.format(type(fault).__name__)
    state, code = _state(fault), _sqlite_code(fault)
    if state is not None:
        return _of_postgresql(fault, state)
    line = _first_line(fault, password)
    return _of_driver(fault, line) if code is None else _of_sqlite(code, line)


def _of_postgresql(fault: DBAPIError, state: str) -> str:
    # PostgreSQL's own sentence can quote values; its class and state cannot.
    reason = f"{type(fault.orig).__name__}, {state}"
    if state in QUOTES_NAMES_ONLY and isinstance(fault.orig, psycopg.Error):
        reason = (fault.orig.diag.message_primary or reason)[:LONGEST_REASON]
    text = next((text for states, text in STATE_TEXTS if state.startswith(states)), AWAY)
    return text.format(reason)


def _of_driver(fault: DBAPIError, line: str) -> str:
    """Return psycopg's message if a server did not let it in, which has no values; otherwise only the error's name."""
    if not isinstance(fault.orig, psycopg.OperationalError):
        return (REFUSED_VALUE if isinstance(fault.orig, psycopg.DataError) else AWAY).format(type(fault.orig).__name__)
    shut_out = SHUT_OUT_TEXT.search(line)
    return SHUT_OUT.format(shut_out[1]) if shut_out else AWAY.format(line)


def _of_sqlite(code: int, line: str) -> str:
    if line.startswith(("no such table", "no such column", "table ")):
        return LACKS_TABLE.format(line)
    return SQLITE_TEXTS.get(code, AWAY).format(line)


def _state(fault: Exception) -> str | None:
    origin = fault.orig if isinstance(fault, DBAPIError) else None
    return origin.sqlstate if isinstance(origin, psycopg.Error) else None


def _sqlite_code(fault: Exception) -> int | None:
    origin = fault.orig if isinstance(fault, DBAPIError) else None
    if not isinstance(origin, sqlite3.Error):
        return None
    return int(getattr(origin, "sqlite_errorcode", 0)) & PRIMARY_CODE


def _first_line(fault: DBAPIError, password: str | None) -> str:
    """Return the first line of the driver's message, which names files, hosts, tables and columns."""
    line = (str(fault.orig).strip().splitlines() or [type(fault.orig).__name__])[0]
    return (line.replace(password, "***") if password else line)[:LONGEST_REASON]
