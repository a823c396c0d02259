"""Connections and transactions: one engine per process, one transaction per store method, one error for callers.

A method of the store is decorated with `@reads` or `@writes`; the decorator opens the transaction and hands the
connection in as the first argument, so no connection ever leaves the store.

One idea: when a transaction may begin, how long it may take and what its failure means are decided in one place.
"""

from __future__ import annotations

import functools
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from worker.addresses import DatabaseAddress, read_database
from worker.errors import ConfigurationError, StoreRefusedError, StoreUnavailableError
from worker.store.driver import GRACE_SECONDS, BoundedConnection
from worker.store.faults import describe, is_outage, is_transient

MAX_TRIES: Final = 5
RETRY_PAUSE_SECONDS: Final = 0.05
CONNECT_SECONDS: Final = 5
LONGEST_SPACE_SECONDS: Final = 0.1
WRITES: Final = "evertoken_writes"
APP: Final = "evertoken_app"
BEGIN_POSTGRESQL: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED; "
    "SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; "
    "SET LOCAL role TO DEFAULT; SET LOCAL search_path TO {schema}; "
    "SELECT set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')"
    " THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
)
"""How a transaction begins, in one round trip.

A pooler may give each transaction another server connection, whose settings other clients change: so settings last only
for the transaction, and those of other clients are reset. DEFAULT is the setting of the role and the database.
"""
BY_INDEX: Final = "SET LOCAL enable_seqscan = off"
"""Transactions that write change rows by their keys, and each key has an index.

On a fresh install the tables were analyzed while they were empty, and by those statistics PostgreSQL reads all of
`attempts` to find a group's rows, until it analyzes the table again.
"""
CONNECTING: Final = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""How soon a vanished server is noticed: within 15 s while sending, 25 s while waiting.

The address may say otherwise. `BoundedConnection` notices a server that hangs while its kernel still answers.
"""
UNPREPARED: Final = {"prepare_threshold": None, "autocommit": True}
"""No statement is prepared by name, since behind a pooler another client may have used the name on that connection.

The driver begins no transaction by itself; `_begin_postgresql` does.
"""

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Transactions")


class Outages:
    """Follows the outcomes of a process's transactions, and reports once when the database goes away and comes back.

    An outage stops every statement, or every write: no connection, a full or read-only disk. A row that the database
    refuses is not an outage, and neither is a lock that another transaction holds. Thread-safe.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Begin with the assumption that the database is available.

        Args:
            monotonic: clock of this process, in seconds.
        """
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failing: set[bool] = set()
        self._since = self._answered_at = -math.inf
        self._on_away: Callable[[str], None] = lambda _: None
        self._on_back: Callable[[float], None] = lambda _: None

    def watch(self, on_away: Callable[[str], None], on_back: Callable[[float], None]) -> None:
        """Report outages from now on.

        Args:
            on_away: called once when an outage begins, with the reason as safe text.
            on_back: called once when it has ended, with its length in seconds.
        """
        self._on_away, self._on_back = on_away, on_back

    def seconds(self) -> float:
        """Return for how many seconds the database has been away; 0 while it is available."""
        with self._lock:
            return self._monotonic() - self._since if self._failing else 0.0

    def failed(self, reason: str, *, writes: bool, began: float) -> None:
        """Note that a transaction met an outage.

        Args:
            reason: safe text.
            writes: True for a transaction that writes.
            began: when the transaction began, on this process's clock; if it began before the last success, its failure
                is ignored.
        """
        with self._lock:
            if began < self._answered_at:
                return
            is_news = not self._failing
            self._failing.add(writes)
            if is_news:
                self._since = began
        if is_news:
            self._on_away(reason)

    def succeeded(self, *, writes: bool) -> None:
        """Note that a transaction was committed; a read does not end an outage of writes."""
        self._answered_at = self._monotonic()
        if not self._failing:
            return
        with self._lock:
            was_away = bool(self._failing)
            self._failing = set() if writes else self._failing - {False}
            is_over = was_away and not self._failing
            seconds = self._answered_at - self._since
        if is_over:
            self._on_back(seconds)


class Transactions:
    """Opens the database, lazily and once per process, and runs a function in one transaction.

    After a fork the child opens its own connections. It neither uses nor closes the parent's, since closing them here
    would end the parent's sessions.
    """

    def __init__(
        self, url: str, *, app_id: str, namespace: str | None, pool_size: int, statement_seconds: float
    ) -> None:
        self._address = read_database("the database's address", url)
        self._namespace = namespace
        self._schema = self._address.schema or namespace
        self._libpq = _libpq_options(self._address)
        self.app_id = app_id
        self._pool_size = pool_size
        self._statement_seconds = statement_seconds
        self._engines: dict[int, Engine] = {}
        self._turns: dict[int, threading.Lock] = {}
        self._bulk_turns: dict[int, threading.Lock] = {}
        self.outages = Outages()

    def __repr__(self) -> str:
        place = self._address.file or f"{self._libpq.get('host', '')}/{self._libpq.get('dbname', '')}"
        return f"<{type(self).__name__} {self.kind} {place}>"

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._address.kind

    @property
    def path(self) -> Path | None:
        """SQLite's file; None for a server."""
        return self._address.file

    @property
    def is_missing(self) -> bool:
        """True if SQLite's file does not exist: only an upgrade creates it, so that nobody reads an empty one."""
        return self.path is not None and not self.path.exists()

    def make_file(self) -> None:
        """Create SQLite's file if it does not exist yet.

        Raises:
            StoreUnavailableError: it cannot be created.
        """
        if self.path is not None and self.is_missing:
            _make_private(self.path)

    def close(self) -> None:
        """Close this process's connections; the store opens again by itself when it is used."""
        engine = self._engines.pop(os.getpid(), None)
        if engine is not None:
            engine.dispose()

    def transact(self, work: Callable[[Connection], R], *, writes: bool, bulk: bool = False) -> R:
        """Run a function in one transaction; start over if the database broke a deadlock or gave up waiting for a lock.

        Args:
            work: the function.
            writes: True if it writes.
            bulk: True if it writes much, for which others should not have to wait.

        Raises:
            StoreUnavailableError: the database did not answer or did not commit.
            StoreRefusedError: it answered, but refused a statement or kept the transaction waiting too long.
        """
        began = time.monotonic()
        for attempt in range(1, MAX_TRIES + 1):
            result, fault = self._try(work, writes=writes, bulk=bulk, began=began)
            if fault is None:
                self.outages.succeeded(writes=writes)
                return cast("R", result)
            text, outage, again = describe(fault, self._libpq.get("password")), is_outage(fault), is_transient(fault)
            # Deleted before anything is raised: the driver's error holds the statement's values.
            del fault
            if not again or attempt == MAX_TRIES or time.monotonic() > began + self._statement_seconds:
                break
            time.sleep(RETRY_PAUSE_SECONDS * attempt * (0.5 + random.random()))  # noqa: S311 - spreads load, no secret
        if not outage:
            raise StoreRefusedError(text)
        raise self._away(text, writes=writes, began=began)

    def _away(self, text: str, *, writes: bool, began: float) -> StoreUnavailableError:
        self.outages.failed(text, writes=writes, began=began)
        return StoreUnavailableError(text)

    def _try(
        self, work: Callable[[Connection], R], *, writes: bool, bulk: bool, began: float
    ) -> tuple[R | None, Exception | None]:
        if self.is_missing:
            raise self._away(
                f"the database is not available: there is no file {self.path and self.path.absolute()}; look at "
                "EVERTOKEN_DATABASE_URL, or let `celery -A worker db upgrade` make it",
                writes=writes,
                began=began,
            )
        try:
            with self._spacing(bulk=bulk), self._turn(writes=writes), self._begun(writes=writes) as connection:
                return work(connection), None
        except (SQLAlchemyError, UnicodeEncodeError, OverflowError) as fault:
            return None, fault.with_traceback(None)

    @contextmanager
    def _begun(self, *, writes: bool) -> Iterator[Connection]:
        """Give a connection in a transaction, which is committed at the end of the block.

        If a connection died while it waited in the pool, the BEGIN fails before anything ran, and the connection is
        replaced; so no transaction pays for a check of its connection beforehand.
        """
        options = {WRITES: writes, APP: self.app_id}
        with ExitStack() as opened:
            connection = opened.enter_context(self._engine().connect().execution_options(**options))
            try:
                opened.enter_context(connection.begin())
            except DBAPIError as fault:
                if not fault.connection_invalidated:
                    raise
                connection.close()
                connection = opened.enter_context(self._engine().connect().execution_options(**options))
                opened.enter_context(connection.begin())
            yield connection

    @contextmanager
    def _turn(self, *, writes: bool) -> Iterator[None]:
        """Let the threads of a process write to SQLite one after the other.

        SQLite has one writer. A thread that finds it busy sleeps and tries again, and with many threads some never
        succeed. A lock wakes the next thread instead.
        """
        if not writes or self.kind != "sqlite":
            yield
            return
        turn = self._turns.setdefault(os.getpid(), threading.Lock())
        if not turn.acquire(timeout=self._statement_seconds):
            raise StoreRefusedError("the database is busy: other threads of this process write to it")
        try:
            yield
        finally:
            turn.release()

    @contextmanager
    def _spacing(self, *, bulk: bool) -> Iterator[None]:
        """Leave SQLite to others, after a bulk write, for as long as it took.

        A process that finds SQLite busy looks again after growing pauses of up to a tenth of a second. If bulk writes
        followed each other at once, it would hardly ever find it free, and refreshes would wait for account data.
        """
        if not bulk or self.kind != "sqlite":
            yield
            return
        turn = self._bulk_turns.setdefault(os.getpid(), threading.Lock())
        has_turn = turn.acquire(timeout=self._statement_seconds)
        began = time.monotonic()
        try:
            yield
            time.sleep(min(LONGEST_SPACE_SECONDS, time.monotonic() - began))
        finally:
            if has_turn:
                turn.release()

    def _engine(self) -> Engine:
        pid = os.getpid()
        # setdefault is atomic: if two threads come first at the same time, one engine stays; the other never connected.
        return self._engines.get(pid) or self._engines.setdefault(pid, self._new_engine())

    def _new_engine(self) -> Engine:
        sqlite = self.kind == "sqlite"
        engine = create_engine(
            URL.create("sqlite", database=str(self._address.file)) if sqlite else URL.create("postgresql+psycopg"),
            hide_parameters=True,
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=self._statement_seconds,
            connect_args={"timeout": self._statement_seconds} if sqlite else CONNECTING | self._libpq | UNPREPARED,
        )
        if sqlite:
            event.listen(engine, "connect", self._prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "do_connect", self._connect_postgresql)
            event.listen(engine, "begin", self._begin_postgresql)
        return engine

    def _connect_postgresql(self, *given: Any) -> BoundedConnection:
        """Connect in place of SQLAlchemy; the last argument of the event holds the driver's arguments."""
        connection = BoundedConnection.connect(**given[-1])
        connection.answer_seconds = self._statement_seconds + GRACE_SECONDS
        return connection

    def _prepare_sqlite(self, connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself; `_begin_sqlite` does
        for pragma in (
            f"busy_timeout = {int(self._statement_seconds * 1000)}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    def _begin_postgresql(self, connection: Connection) -> None:
        bound_answers(connection, self._statement_seconds + GRACE_SECONDS)
        milliseconds = int(self._statement_seconds * 1000)
        schema = "DEFAULT" if self._schema is None else f'"{self._schema}"'
        begin = BEGIN_POSTGRESQL.format(statement=milliseconds, lock=milliseconds // 2, schema=schema)
        if connection.get_execution_options().get(WRITES, True):
            begin = f"{begin}; {BY_INDEX}"
        connection.exec_driver_sql(begin).close()


def reads(method: Callable[Concatenate[S, Connection, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a function of a connection a method of the store that reads in one transaction."""

    @functools.wraps(method)
    def run(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.transact(lambda connection: method(self, connection, *args, **kwargs), writes=False)

    return cast("Callable[Concatenate[S, P], R]", run)


def writes(method: Callable[Concatenate[S, Connection, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a function of a connection a method of the store that writes in one transaction."""

    @functools.wraps(method)
    def run(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.transact(lambda connection: method(self, connection, *args, **kwargs), writes=True)

    return cast("Callable[Concatenate[S, P], R]", run)


def bulk_writes(method: Callable[Concatenate[S, Connection, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method of the store that writes much in one transaction, and leaves SQLite to others afterwards."""

    @functools.wraps(method)
    def run(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.transact(lambda connection: method(self, connection, *args, **kwargs), writes=True, bulk=True)

    return cast("Callable[Concatenate[S, P], R]", run)


def bound_answers(connection: Connection, seconds: float | None) -> None:
    """Set the longest wait for an answer in the rest of this transaction, in seconds; None waits forever."""
    driver = connection.connection.driver_connection
    if isinstance(driver, BoundedConnection):
        driver.answer_seconds = seconds


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once if another writer came in between, whatever the busy
    # timeout is; a transaction that takes the write lock at its beginning waits for it.
    writes = connection.get_execution_options().get(WRITES, True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_private(path: Path) -> None:
    """Create the database file, readable only by its owner; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreUnavailableError(f"the database is not available: {error.strerror}: {path}") from None


def _libpq_options(address: DatabaseAddress) -> dict[str, Any]:
    """Return what libpq reads in an address; empty for SQLite."""
    try:
        return conninfo_to_dict(address.libpq)
    except psycopg.ProgrammingError:
        # libpq's own message shows the text that it could not read, which may be the password.
        raise ConfigurationError("the database's address cannot be read by libpq") from None
