"""First pulls of account data: requests, rows a second and memory, on one database.

Run it from the project's root: `python -m benchmarks.accounts [--creators 100] [--videos 200] [--database postgresql]`.
One process pulls each creator once, as a worker's thread does, from a stand-in whose accounts are a year old. An
account needs one request for its profile and sixty days of figures, and one for each page of its videos. It exits 1 if
more than 2 % are sent beyond that, if days or videos are missing, or if memory grew by more than a tenth in the last
half of the run. The quota is set too high to matter.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import Table as Rows
from sqlalchemy import func, select

from benchmarks.fleet import database_of, settings_of
from benchmarks.quota import Server
from tests.support.world import World
from worker.accounts.resources import VIDEOS
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.services import Services
from worker.store.account_models import DATA
from worker.store.account_models import VIDEOS as VIDEO_ROWS
from worker.tiktok import ACCOUNT_CALL

MOST_REQUESTS: Final = 1.02
MOST_GROWTH: Final = 1.1
SCOPES: Final = (
    "user.info.basic,user.info.username,user.info.profile,user.info.stats,user.account.type,user.insights,"
    "video.list,video.insights"
)
FREE: Final = {"QUOTA_PER_SECOND": "1000", "QUOTA_PER_MINUTE": "60000", "QUOTA_PER_ACCOUNT_MINUTE": "1000"}


def main() -> int:
    """Run, print the figures, and return 1 if a promise is broken."""
    given = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        options = SandboxOptions(ledger=str(folder / "ledger.jsonl"), ledger_all=True)
        sandbox = stack.enter_context(start_sandbox(options))
        sandbox.set_account(videos=given.videos, deleted_every=0, hidden_every=0, private_run=0)
        server = Server(folder)
        stack.callback(server.stop)
        environ = settings_of(sandbox, folder, server.url, database_of(given.database, folder, stack))
        environ |= {f"EVERTOKEN_{name}": value for name, value in FREE.items()}
        world = World(sandbox, environ)
        stack.callback(world.close)
        world.services.store.upgrade()
        world.services.hook = lambda _: None
        grants = world.creators(given.creators, scope=SCOPES)
        sizes, began, processor = [], time.monotonic(), time.process_time()
        for grant in grants:  # one by one, since accounts that wait go before the videos of others
            world.services.store.request_pull(grant.creator_id)
            ended = world.services.puller.pull(grant.grant_id).kind
            if ended != "pulled":
                raise SystemExit(f"a pull ended with {ended}")
            sizes.append(resident())
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        rows, listed = counted(world.services), videos_of(world.services)
        calls = Counter(entry.call for entry in sandbox.entries())
    return _report(given, calls=calls, rows=rows, listed=listed, sizes=sizes, seconds=seconds, processor=processor)


def _report(
    given: argparse.Namespace,
    *,
    calls: Counter[str],
    rows: dict[str, int],
    listed: list[int],
    sizes: list[int],
    seconds: float,
    processor: float,
) -> int:
    sent = {call: calls[call] for call in (ACCOUNT_CALL, VIDEOS.call)}
    size = VIDEOS.paging.size if VIDEOS.paging else 1
    needed = sum(1 + math.ceil(videos / size) for videos in listed)
    growth = sizes[-1] / sizes[len(sizes) // 2]
    total = sum(rows.values())
    table = Table("figure", "value", title=f"First pulls of {given.creators:,} creators, {given.database}")
    for row in (
        ("requests for account and videos", " and ".join(f"{count:,}" for count in sent.values())),
        ("requests that are necessary", f"{needed:,}"),
        ("rows", f"{total:,}, of them {rows['account_days']:,} of days and {rows['videos']:,} videos"),
        ("rows a second", f"{total / seconds:,.0f}"),
        (
            "seconds for each creator, and of processor time",
            f"{seconds / given.creators:.2f}, {processor / given.creators:.2f}",
        ),
        ("memory after half of them, and at the end", f"{sizes[len(sizes) // 2] >> 20} and {sizes[-1] >> 20} MiB"),
    ):
        table.add_row(*row)
    Console(width=110).print(table)
    short = rows["videos"] < given.creators * given.videos or rows["account_days"] < given.creators * 55
    return int(short or sum(sent.values()) > MOST_REQUESTS * needed or growth > MOST_GROWTH)


def counted(services: Services) -> dict[str, int]:
    """Return how many rows each table of account data has."""

    def count(table: Rows) -> int:
        return services.store.transact(
            lambda connection: int(connection.execute(select(func.count()).select_from(table)).scalar_one()),
            writes=False,
        )

    return {table.name: count(table) for table in DATA}


def videos_of(services: Services) -> list[int]:
    """Return how many videos each creator has."""
    query = select(func.count()).select_from(VIDEO_ROWS).group_by(VIDEO_ROWS.c.creator_id)
    return services.store.transact(lambda connection: list(connection.execute(query).scalars()), writes=False)


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creators", type=int, default=100, help="how many")
    parser.add_argument("--videos", type=int, default=200, help="of each")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql", help="which one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
