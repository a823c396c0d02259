"""How the due scan and a claim grow with the fleet: 1,000 to 1,000,000 grants, on SQLite and PostgreSQL.

Run it from the project's root: `python -m benchmarks.due_scan [--sizes 1000,100000] [--databases sqlite]`. Each fleet
is loaded by SQL, then timed with 500 grants due, and again with all of them due; the fleets take turns, so that a busy
machine slows all of them alike. It exits 1 where a median grows more than threefold from the smallest to the largest.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from tests.conftest import start_postgres
from worker.store import Store, open_store

SIZES: Final = (1_000, 100_000, 1_000_000)
DUE: Final = 500
BATCH: Final = 200
ROUNDS: Final = 40
CLAIMS: Final = 200
MOST_GROWTH: Final = 3.0
DAY_MILLISECONDS: Final = 86_400_000
MEASURES: Final = ("due scan, 500 due", "due scan, all due", "claim", "fleet status")

NUMBERS: Final = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :size)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(1, CAST(:size AS bigint)) AS n)",
}
# Ends are spread over a day without regard to ids, as they are in a fleet that has lived for a while.
GRANTS: Final = """
INSERT INTO grants (id, creator_id, consent, generation, pair_generation, status, scope, issued_at, access_expires_at,
    next_refresh_at, jitter, created_at, updated_at)
{numbers} SELECT n, 'creator ' || n, 1, 1, 1, 'active', 'user.info.basic', :now - :day, :now + 1 + (n * 48271) % :day,
    :now + :day, 0.5, :now, :now FROM numbers
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


def main() -> int:
    """Measure, print the table, and return 1 where something grows more than it may."""
    arguments = _arguments()
    sizes = sorted(int(size) for size in arguments.sizes.split(","))
    table = Table(title=f"Median of {ROUNDS} scans of {BATCH} ids, and of {CLAIMS} claims, in milliseconds")
    for heading in ("database", "measured", *(f"{size:,} grants" for size in sizes), "growth"):
        table.add_column(heading, justify="left" if heading in {"database", "measured"} else "right")
    too_much = False
    for kind in arguments.databases.split(","):
        with ExitStack() as servers:
            figures_of = _measure([_store(kind, servers) for _ in sizes], sizes)
        for measure in MEASURES:
            figures = figures_of[measure]
            growth = figures[-1] / figures[0]
            bounded = measure != "fleet status"  # a count of everything grows with everything
            too_much |= bounded and growth > MOST_GROWTH
            mark = f"{growth:.2f}x" if bounded else f"({growth:.0f}x)"
            table.add_row(kind, measure, *(f"{figure:.2f}" for figure in figures), mark)
    Console(width=110).print(table)
    return int(too_much)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="grants, separated by commas")
    parser.add_argument("--databases", default="sqlite,postgresql", help="which to measure")
    return parser.parse_args()


def _store(kind: str, servers: ExitStack) -> Store:
    """Return a migrated, empty store that is closed, with its server or its folder, at the end."""
    if kind == "sqlite":
        url = f"sqlite:///{Path(servers.enter_context(TemporaryDirectory())) / 'fleet.db'}"
    else:
        url = servers.enter_context(start_postgres("autovacuum=off", "max_wal_size=8GB")).url
    store = open_store(url, statement_seconds=600)
    servers.callback(store.close)
    store.upgrade()
    return store


def _measure(stores: list[Store], sizes: list[int]) -> dict[str, list[float]]:
    """Return the median of each measure in milliseconds, for each size."""
    claims = []
    for store, size in zip(stores, sizes, strict=True):
        _load(store, size)
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
    status = _medians([store.fleet_status for store in stores], 5)
    return dict(zip(MEASURES, (few, crowd, claim, status), strict=True))


def _load(store: Store, size: int) -> None:
    now = int(store.ping().timestamp() * 1000)
    _run(store, GRANTS.format(numbers=NUMBERS[store.kind]), size=size, now=now, day=DAY_MILLISECONDS)
    _run(store, PAIRS, sealed=b"s" * 220)
    _run(store, ATTEMPTS)
    _settle(store)


def _make_due(store: Store, count: int) -> None:
    """Make the grants due that have the least time left, and let the database look at its statistics."""
    now = int(store.ping().timestamp() * 1000)
    _run(
        store,
        "UPDATE grants SET next_refresh_at = :now - 1000 WHERE id IN"
        " (SELECT id FROM grants ORDER BY access_expires_at LIMIT :count)",
        now=now,
        count=count,
    )
    _settle(store)


def _settle(store: Store) -> None:
    if store.kind == "sqlite":
        _run(store, "ANALYZE")
        return
    with store._engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:  # noqa: SLF001 - VACUUM and CHECKPOINT run outside any transaction, which the store never does
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))


def _run(store: Store, statement: str, **values: object) -> None:
    store.transact(lambda connection: connection.execute(text(statement), values).close(), writes=True)


def _claim_next(store: Store, due: Iterator[int]) -> None:
    assert store.claim(next(due), owner="a worker", lease_seconds=120) is not None


def _medians(acts: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Time each function in turn, round after round; return each one's median in milliseconds."""
    seconds: list[list[float]] = [[] for _ in acts]
    for _ in range(rounds):
        for act, column in zip(acts, seconds, strict=True):
            start = time.perf_counter()
            act()
            column.append(time.perf_counter() - start)
    return [statistics.median(column) * 1000 for column in seconds]


if __name__ == "__main__":
    sys.exit(main())
