"""How the due scan and a claim grow with the fleet: 1,000 to 1,000,000 grants, on SQLite and PostgreSQL.

Run it from the project's root: `python -m benchmarks.due_scan [--sizes 1000,100000] [--databases sqlite]`. Each fleet
is loaded by SQL, then timed with 500 grants due, and again with all of them due. It exits 1 where a median grows more
than threefold from the smallest fleet to the largest.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
        columns = [_measure(kind, size) for size in sizes]
        for measure in MEASURES:
            figures = [column[measure] for column in columns]
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


@contextmanager
def _empty_store(kind: str) -> Iterator[Store]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"sqlite:///{Path(folder) / 'fleet.db'}", statement_seconds=600)
            yield store
            store.close()
        return
    with start_postgres("autovacuum=off", "max_wal_size=8GB") as server:
        store = open_store(server.url, statement_seconds=600)
        yield store
        store.close()


def _measure(kind: str, size: int) -> dict[str, float]:
    with _empty_store(kind) as store:
        store.upgrade()
        _load(store, size)
        _make_due(store, min(DUE, size))
        few = _median(lambda: store.due(BATCH), ROUNDS)
        due = [grant.grant_id for grant in store.due(min(DUE, size))]
        random.Random(1).shuffle(due)  # noqa: S311 - an order that repeats, no secret
        waiting = iter(due)
        claim = _median(lambda: _claim(store, next(waiting)), min(CLAIMS, len(due)))
        _make_due(store, size)
        return {
            "due scan, 500 due": few,
            "due scan, all due": _median(lambda: store.due(BATCH), ROUNDS),
            "claim": claim,
            "fleet status": _median(store.fleet_status, 5),
        }


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
    store.transact(lambda connection: connection.execute(text(statement), values) and None, writes=True)


def _claim(store: Store, grant_id: int) -> None:
    assert store.claim(grant_id, owner="a worker", lease_seconds=120) is not None


def _median(act: Callable[[], object], rounds: int) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1000


if __name__ == "__main__":
    sys.exit(main())
