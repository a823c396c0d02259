"""How the scan, a claim and the counts of `grants status` grow with the fleet, on SQLite and PostgreSQL.

Each fleet is loaded by SQL, then timed with 500 grants due, and again with all of them due; fleets of all sizes take
turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Connection, text

from tests.conftest import start_postgres
from worker.store import Store, open_store

DUE: Final = 500
BATCH: Final = 200
ROUNDS: Final = 40
CLAIMS: Final = 200
DAY_MILLISECONDS: Final = 86_400_000
COUNTS: Final = "grants status"
MEASURES: Final = ("scan of 200, 500 due", "scan of 200, all due", "claim of one", "claim of 50", COUNTS)
PATIENCE_SECONDS: Final = 3600.0
"""Ten million rows are written in one statement, which takes minutes on a busy disk."""
LOADING_KIBIBYTES: Final = 4 * 1024 * 1024
GROUP: Final = 50
GROUPS: Final = 20
LEAST: Final = CLAIMS + GROUP * GROUPS
"""The smallest fleet that can be measured: a claimed grant is not claimed again."""

NUMBERS: Final = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :size)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(1, CAST(:size AS bigint)) AS n)",
}
# Ends are spread over a day without regard to ids, as they are in a fleet that has lived for a while.
GRANTS: Final = """
INSERT INTO grants (id, app_id, creator_id, consent, generation, pair_generation, status, scope, issued_at,
    access_expires_at, next_refresh_at, jitter, created_at, updated_at)
{numbers} SELECT n, :app, 'creator ' || n, 1, 1, 1, 'active', 'user.info.basic', :now - :day,
    :now + 1 + (n * 48271) % :day, :now + :day, 0.5, :now, :now FROM numbers
"""
PAIRS: Final = """
INSERT INTO pairs (grant_id, consent, generation, sealed_access, sealed_refresh, key_id, issued_at, access_expires_at,
    stored_at)
SELECT id, 1, 1, :sealed, :sealed, 1, issued_at, access_expires_at, issued_at FROM grants
"""
ATTEMPTS: Final = """
INSERT INTO attempts (grant_id, consent, generation, owner, claimed_at, finished_at, outcome)
SELECT id, 1, 1, 'a worker', issued_at, issued_at, 'refreshed' FROM grants
"""


@dataclass(frozen=True)
class Growth:
    """Medians of one measure.

    Attributes:
        database: `sqlite` or `postgresql`.
        measure: what was timed.
        milliseconds: median of each size.
        bounded: True if the product promises that it does not grow with the fleet.
    """

    database: str
    measure: str
    milliseconds: tuple[float, ...]
    bounded: bool

    @property
    def factor(self) -> float:
        """How much it grows from the smallest to the largest fleet."""
        return self.milliseconds[-1] / self.milliseconds[0]


def measure(sizes: Sequence[int], databases: Sequence[str]) -> list[Growth]:
    """Return every measure's medians for fleets of these sizes."""
    return [found for kind in databases for found in _measure_database(kind, sizes)]


def _measure_database(kind: str, sizes: Sequence[int]) -> list[Growth]:
    with ExitStack() as servers:
        figures_of = _measure([_store(kind, servers) for _ in sizes], sizes)
    return [
        Growth(kind, name, tuple(figures), bounded=name != COUNTS)  # a count of everything grows with everything
        for name, figures in figures_of.items()
    ]


def _store(kind: str, servers: ExitStack) -> Store:
    """Return a migrated, empty store that is closed, with its server or its folder, at the end."""
    if kind == "sqlite":
        url = f"sqlite:///{Path(servers.enter_context(TemporaryDirectory())) / 'fleet.db'}"
    else:
        url = servers.enter_context(start_postgres("autovacuum=off", "max_wal_size=8GB")).url
    store = open_store(url, statement_seconds=PATIENCE_SECONDS)
    servers.callback(store.close)
    store.upgrade()
    return store


def _measure(stores: list[Store], sizes: Sequence[int]) -> dict[str, list[float]]:
    """Return the median of each measure in milliseconds, for each size."""
    claims = []
    for store, size in zip(stores, sizes, strict=True):
        load(store, size)
        _make_due(store, min(DUE, size))
        due = [grant.grant_id for grant in store.due(min(DUE, size))]
        random.Random(1).shuffle(due)  # noqa: S311 - an order that repeats, no secret
        claims.append(iter(due))
    scans = [partial(store.due, BATCH) for store in stores]
    few = _medians(scans, ROUNDS)
    claim = _medians([partial(_claim_next, store, due) for store, due in zip(stores, claims, strict=True)], CLAIMS)
    for store, size in zip(stores, sizes, strict=True):
        _make_due(store, size)
    crowd = _medians(scans, ROUNDS)
    group = _medians([partial(_claim_group, store) for store in stores], GROUPS)
    status = _medians([store.fleet_status for store in stores], 5)
    return dict(zip(MEASURES, (few, crowd, claim, group, status), strict=True))


def load(store: Store, size: int, *, app: str = "") -> None:
    """Load a fleet of which nothing is due, as one that has lived for a while."""
    now = int(store.ping().timestamp() * 1000)
    _run(store, GRANTS.format(numbers=NUMBERS[store.kind]), size=size, app=app, now=now, day=DAY_MILLISECONDS)
    _run(store, PAIRS, sealed=b"s" * 220)
    _run(store, ATTEMPTS)
    _settle(store)


def _make_due(store: Store, count: int) -> None:
    """Make the grants due that have the least time left, and let the database look at its statistics."""
    now = int(store.ping().timestamp() * 1000)
    _run(
        store,
        "UPDATE grants SET next_refresh_at = :now - 1000 WHERE access_expires_at <="
        " (SELECT max(access_expires_at) FROM"
        " (SELECT access_expires_at FROM grants ORDER BY access_expires_at LIMIT :count) AS soonest)",
        now=now,
        count=count,
    )
    _settle(store)


def _settle(store: Store) -> None:
    if store.kind == "sqlite":
        _run(store, "ANALYZE")
        return
    with closing(store._engine().raw_connection()) as pooled:  # noqa: SLF001 - VACUUM runs outside any transaction, which the store never does
        driver: Any = pooled.driver_connection
        driver.autocommit = True
        driver.execute("VACUUM ANALYZE")
        driver.execute("CHECKPOINT")
        driver.autocommit = False


def _run(store: Store, statement: str, **values: object) -> None:
    """Run one statement; SQLite holds its pages in memory for it, since millions of rows come in no index's order."""

    def act(connection: Connection) -> None:
        if store.kind == "sqlite":
            usual = connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
            connection.exec_driver_sql(f"PRAGMA cache_size = -{LOADING_KIBIBYTES}")
        connection.execute(text(statement), values).close()
        if store.kind == "sqlite":
            connection.exec_driver_sql(f"PRAGMA cache_size = {usual}")
            connection.exec_driver_sql("PRAGMA shrink_memory").close()

    store.transact(act, writes=True)


def _claim_next(store: Store, due: Iterator[int]) -> None:
    assert store.claim_group([next(due)], owner="a worker", lease_seconds=120)


def _claim_group(store: Store) -> None:
    ids = [grant.grant_id for grant in store.due(GROUP)]
    assert len(store.claim_group(ids, owner="a worker", lease_seconds=120)) == GROUP


def _medians(acts: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Time each function in turn, round after round; return each one's median in milliseconds."""
    seconds: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for act, column in zip(acts, seconds, strict=True):
            start = time.perf_counter()
            act()
            column.append(time.perf_counter() - start)
    return [statistics.median(column) * 1000 for column in seconds]
