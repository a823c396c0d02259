"""What one refresh costs a worker's process: groups of grants from the message to the commit, without Celery.

Run it from the project's root: `python -m benchmarks.engine [--creators 1000] [--threads 16] [--rounds 3]`. One
process refreshes every creator of a fleet against the sandbox, over and over, from messages of a hundred ids that its
threads take in turn: journal, sealing, limiter and log lines are on, and the database is a PostgreSQL that syncs its
commits, or SQLite. On a machine with two cores or more the process keeps to one and the servers to the others. It
prints refreshes a second and processor time for each, of the best round.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.conftest import start_postgres, start_redis
from tests.support.daemon import daemon_settings
from tests.support.world import World
from worker.refresh.refresher import Batch
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.telemetry import configure_logging
from worker.vault import Keyring

MESSAGE = 100


def main() -> int:
    """Run the benchmark on both databases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--creators", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    chosen = parser.parse_args()
    table = Table("database", "refreshes/s", "processor us each", "group")
    for database in chosen.database or ("sqlite", "postgresql"):
        rate, cost, group = measure(database, chosen.creators, chosen.threads, chosen.rounds)
        table.add_row(database, f"{rate:.0f}", f"{cost:.0f}", str(group))
    Console().print(table)
    return 0


def measure(database: str, creators: int, threads: int, rounds: int) -> tuple[float, float, int]:
    """Return refreshes a second, processor microseconds for each, and the size of the last groups."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="evertoken-engine-")))
        log = stack.enter_context((folder / "log").open("w"))
        os.sched_setaffinity(0, cores[:-1] or cores)
        sandbox = stack.enter_context(start_sandbox(SandboxOptions(ledger_all=False)))
        redis = stack.enter_context(start_redis())
        url = f"sqlite:///{folder / 'evertoken.db'}"
        if database == "postgresql":
            url = stack.enter_context(start_postgres()).url
        os.sched_setaffinity(0, cores[-1:])
        environ = daemon_settings(
            sandbox,
            folder,
            DATABASE_URL=url,
            REDIS_URL=redis.url,
            KEYRING=Keyring.new().to_json(),
            QUOTA_PER_SECOND="1000000",
            QUOTA_PER_MINUTE="60000000",
        )
        stack.enter_context(redirect_stderr(log))
        configure_logging(log_format="json", level="INFO")
        world = World(sandbox, environ)
        stack.callback(world.close)
        world.services.store.upgrade()
        grants = [grant for _ in range(max(1, creators // 500)) for grant in world.creators(min(creators, 500))]
        ids = [grant.grant_id for grant in grants]
        best = min((_round(world, ids, threads) for _ in range(rounds)), key=lambda took: took[1])
        return len(ids) / best[0], best[1] / len(ids) * 1e6, world.services.refresher.pace.group_size


def _round(world: World, ids: list[int], threads: int) -> tuple[float, float]:
    world.sql("UPDATE grants SET next_refresh_at = 0")
    messages = [ids[start : start + MESSAGE] for start in range(0, len(ids), MESSAGE)]
    wall, processor = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        batches: list[Batch] = list(pool.map(world.services.refresher.refresh_all, messages))
    took = time.perf_counter() - wall, time.process_time() - processor
    assert sum(len(batch.refreshed) for batch in batches) == len(ids), "every grant is refreshed once"
    return took


if __name__ == "__main__":
    sys.exit(main())
