"""What the journal costs a refresh: the whole way from claim to commit, with it and without it, by turns in one run.

Run it from the project's root: `python -m benchmarks.journal_cost [--creators 40] [--rounds 40]`. Workers' own
services refresh every creator of a fleet against the sandbox, in rounds that take turns between a process with the
journal and one whose journal keeps nothing; the server is a PostgreSQL that syncs its commits, or SQLite. Each pair of
rounds gives one ratio, and the median of the ratios is printed, so a busy machine slows both alike. It exits 1 if the
journal costs more than a tenth of the throughput.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.conftest import start_postgres, start_redis
from tests.support.daemon import daemon_settings
from tests.support.world import World
from worker.journal import Journal, JournalEntry, RecordId
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.services import Services
from worker.settings import load_settings
from worker.telemetry import configure_logging
from worker.vault import Keyring

MOST_COST: Final = 0.10
DATABASES: Final = ("sqlite", "postgresql")
THREADS: Final = (1, 8)
WARM_UP_ROUNDS: Final = 1


class Forgetful(Journal):
    """A journal that keeps nothing, as if there were none."""

    def ready(self) -> None:
        """Find nothing to do."""

    def append(self, entry: JournalEntry) -> RecordId:
        """Drop the record."""
        del entry
        return RecordId("", 0)

    def release(self, record: RecordId) -> None:
        """Find nothing to delete."""


class WithoutJournal(Services):
    """A process's services without a journal."""

    @cached_property
    def journal(self) -> Journal:
        """The journal that keeps nothing."""
        return Forgetful(self.settings.journal_dir, self.sealer, owner=self.owner)


def main() -> int:
    """Measure, print the table, and return 1 if the journal costs too much."""
    arguments = _arguments()
    table = Table("database", "threads", "with, a second", "without, a second", "cost (median)", "quartiles")
    worst = 0.0
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        with redirect_stderr(nowhere):
            configure_logging(log_format="json", level="INFO")  # a worker's log lines cost time too
        for kind in arguments.databases.split(","):
            with ExitStack() as servers:
                folder = Path(servers.enter_context(TemporaryDirectory(dir=arguments.dir)))
                sandbox = servers.enter_context(start_sandbox(SandboxOptions(rotation="strict")))
                environ = daemon_settings(
                    sandbox,
                    folder,
                    DATABASE_URL=_database(kind, folder, servers),
                    REDIS_URL=servers.enter_context(start_redis()).url,
                    KEYRING=Keyring.new().to_json(),
                    QUOTA_PER_SECOND="100000",
                    QUOTA_PER_MINUTE="6000000",
                    QUOTA_PER_ACCOUNT_MINUTE="100000",
                )
                for threads in THREADS:
                    kept, bare = _measure(sandbox, environ, arguments, threads)
                    costs = sorted(1 - one / other for one, other in zip(kept, bare, strict=True))
                    low, cost, high = statistics.quantiles(costs, n=4)
                    worst = max(worst, cost)
                    table.add_row(
                        kind,
                        str(threads),
                        f"{statistics.median(kept):.0f}",
                        f"{statistics.median(bare):.0f}",
                        f"{cost:.1%}",
                        f"{low:.1%} to {high:.1%}",
                    )
    Console(width=110).print(table)
    return int(worst > MOST_COST)


def _measure(
    sandbox: RunningSandbox, environ: dict[str, str], arguments: argparse.Namespace, threads: int
) -> tuple[list[float], list[float]]:
    """Return refreshes a second of each round with the journal and of each without it."""
    world = World(sandbox, environ)
    world.services.store.upgrade()
    ids = [grant.grant_id for grant in world.creators(arguments.creators)]
    both = [_services(environ, Services, "kept"), _services(environ, WithoutJournal, "bare")]
    rates: tuple[list[float], list[float]] = ([], [])
    with ThreadPoolExecutor(threads) as pool:
        for number in range(WARM_UP_ROUNDS + arguments.rounds):
            order = (0, 1) if number % 2 else (1, 0)
            for which in order:
                refresher = both[which].refresher
                began = time.perf_counter()
                ends = list(pool.map(lambda grant_id, by=refresher: by.refresh(grant_id, force=True).kind, ids))
                seconds = time.perf_counter() - began
                assert set(ends) == {"refreshed"}, set(ends)
                if number >= WARM_UP_ROUNDS:
                    rates[which].append(len(ids) / seconds)
    for services in both:
        services.close()
    world.close()
    return rates


def _services(environ: dict[str, str], kind: type[Services], name: str) -> Services:
    settings = environ | {"EVERTOKEN_JOURNAL_DIR": f"{environ['EVERTOKEN_JOURNAL_DIR']}-{name}"}
    return kind(load_settings(settings, dotenv=None), pool_size=max(THREADS) + 2)


def _database(kind: str, folder: Path, servers: ExitStack) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/evertoken.db"
    return servers.enter_context(start_postgres()).url


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creators", type=int, default=40, help="refreshes in a round")
    parser.add_argument("--rounds", type=int, default=40, help="rounds with the journal, and as many without")
    parser.add_argument("--databases", default=",".join(DATABASES), help="sqlite, postgresql or both")
    parser.add_argument("--dir", type=Path, default=Path(), help="a folder on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
