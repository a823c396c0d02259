"""Account data: requests, rows a second and memory of first pulls and of a usual day, on one database.

Run it from the project's root: `python -m benchmarks.accounts [--creators 100] [--videos 200] [--database postgresql]`;
the part `accounts` of the whole benchmark runs it on each database. One process pulls each creator once, as a worker's
thread does, from a stand-in whose accounts are a year old, and then all that is due within the next day, which passes
in seconds. An account needs one request for its profile and sixty days of figures, and a list one for each page: to its
end at first, and then as deep as videos are younger than thirty days, twice a day while one is younger than a week. It
exits 1 if more than 2 % are sent beyond that, if days or videos are missing, or if memory grew by more than a tenth in
the last half of the first pulls. The quota is set too high to matter.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sqlalchemy import Table as Rows
from sqlalchemy import func, select

from benchmarks import machine
from benchmarks.fleet import database_of, settings_of
from benchmarks.quota import Server
from benchmarks.report import Sheet
from tests.support.account_worker import TABLE
from tests.support.world import World
from worker.accounts.resources import VIDEOS
from worker.policy import readings
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.services import Services
from worker.store import GrantView, clock
from worker.store.account_models import DATA
from worker.store.account_models import VIDEOS as VIDEO_ROWS
from worker.tiktok import ACCOUNT_CALL

MOST_REQUESTS: Final = 1.02
MOST_GROWTH: Final = 1.1
LEAST_DAYS: Final = 55
STEP: Final = timedelta(seconds=5)
HALF_DAY: Final = timedelta(hours=12)
MORNING: Final = 6
"""The hour, in UTC, of the first pulls: what is read twice a day comes again before midnight."""
MARGIN: Final = timedelta(minutes=1)
LONG: Final = 10**8
PATIENCE: Final = 120.0
"""Seconds."""
SCOPES: Final = (
    "user.info.basic,user.info.username,user.info.profile,user.info.stats,user.account.type,user.insights,"
    "video.list,video.insights"
)
FREE: Final = {"QUOTA_PER_SECOND": "1000", "QUOTA_PER_MINUTE": "60000", "QUOTA_PER_ACCOUNT_MINUTE": "1000"}


@dataclass(frozen=True)
class Pulls:
    """What pulls of all creators cost.

    Attributes:
        requests: those that were sent for account and videos.
        needed: those that are necessary.
        seconds: of the clock.
        processor: seconds of processor time of the process that pulls.
    """

    requests: int
    needed: int
    seconds: float
    processor: float


@dataclass(frozen=True)
class Found:
    """What was measured on one database.

    Attributes:
        creators: how many.
        first: their first pulls.
        day: the day after.
        rows: rows after the first pulls, by table.
        mebibytes: memory of the process after half of the first pulls, and after all of them.
        whole: True if every video and nearly every day is there.
    """

    database: str
    creators: int
    first: Pulls
    day: Pulls
    rows: dict[str, int]
    mebibytes: tuple[float, float]
    whole: bool

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Found:
        """Return what another process has measured, from its JSON."""
        return cls(**{**kept, "first": Pulls(**kept["first"]), "day": Pulls(**kept["day"])})

    @property
    def is_kept(self) -> bool:
        """True if every promise is."""
        most = all(each.requests <= MOST_REQUESTS * each.needed for each in (self.first, self.day))
        return self.whole and most and self.mebibytes[1] <= MOST_GROWTH * self.mebibytes[0]

    def figures(self) -> dict[str, str]:
        """Return the figures for people, each with its name."""
        rows = sum(self.rows.values())
        return {
            "first pulls: requests (necessary)": f"{self.first.requests:,} ({self.first.needed:,})",
            "first pulls: requests for each creator": f"{self.first.requests / self.creators:.2f}",
            "first pulls: rows": f"{rows:,}",
            "first pulls: rows a second": f"{rows / self.first.seconds:,.0f}",
            "first pulls: rows a second of processor time": f"{rows / self.first.processor:,.0f}",
            "first pulls: seconds for each creator": f"{self.first.seconds / self.creators:.2f}",
            "a usual day: requests (necessary)": f"{self.day.requests:,} ({self.day.needed:,})",
            "a usual day: requests for each creator": f"{self.day.requests / self.creators:.2f}",
            "a usual day: processor ms for each creator": f"{1000 * self.day.processor / self.creators:,.0f}",
            "memory after half of the first pulls, and all": "{:.0f} and {:.0f} MiB".format(*self.mebibytes),
        }


class Fleet:
    """Creators with accounts at the stand-in, and a daemon that pulls them.

    Attributes:
        world: the daemon.
        sandbox: TikTok.
        grants: the creators.
    """

    def __init__(self, world: World, sandbox: RunningSandbox, creators: int) -> None:
        self.world, self.sandbox = world, sandbox
        world.services.store.upgrade()
        self._sql(f"CREATE TABLE {TABLE} (ms BIGINT NOT NULL)")
        self._sql(f"INSERT INTO {TABLE} VALUES (0)")  # noqa: S608 - our own words
        _move_clock()
        world.services.hook = lambda _: None
        self.grants: list[GrantView] = world.creators(creators, scope=SCOPES)
        self._creators = {grant.grant_id: grant.creator_id for grant in self.grants}
        now = world.services.store.ping()
        self._move((now.replace(hour=MORNING, minute=0, second=0) - now) % (2 * HALF_DAY))

    def pull_first(self) -> list[float]:
        """Pull each creator once, and return the memory after each; one by one, since accounts go before lists."""
        sizes = []
        for grant in self.grants:
            self.world.services.store.request_pull(grant.creator_id)
            self._pull(grant.grant_id)
            sizes.append(machine.resident_mebibytes(os.getpid()))
        return sizes

    def pull_due(self, at: datetime, spread: timedelta) -> None:
        """Move the clocks to a moment, and pull each creator as soon as it is due from then on.

        Args:
            at: the moment.
            spread: for how long from then on creators become due, one after the other.
        """
        self._move(at - self.world.services.store.ping())
        for _ in range(math.ceil((spread + 2 * MARGIN) / STEP)):
            for grant_id in self.world.services.store.due_pulls(len(self.grants)):
                self._pull(grant_id)
            self._move(STEP)

    def posted(self) -> list[list[datetime]]:
        """Return when each creator's videos were posted, the newest last."""
        query = select(VIDEO_ROWS.c.creator_id, VIDEO_ROWS.c.created_at).order_by(VIDEO_ROWS.c.created_at)
        found: dict[str, list[datetime]] = {}
        for creator, at in self.world.services.store.transact(
            lambda connection: connection.execute(query).all(), writes=False
        ):
            found.setdefault(creator, []).append(at)
        return list(found.values())

    def requests(self) -> int:
        """Return how many requests for account and videos the stand-in has had."""
        return sum(1 for entry in self.sandbox.entries() if entry.call in {ACCOUNT_CALL, VIDEOS.call})

    def _pull(self, grant_id: int) -> None:
        """Pull one creator; a pull that was denied, as on a starved machine that loses Redis, has sent nothing."""
        deadline = time.monotonic() + PATIENCE
        while (ended := self.world.services.puller.pull(grant_id).kind) == "denied" and time.monotonic() < deadline:
            time.sleep(1)
            self.world.services.store.request_pull(self._creators[grant_id])
        if ended != "pulled":
            raise AssertionError(f"a pull ended with {ended}")

    def _move(self, by: timedelta) -> None:
        self.sandbox.advance(seconds=by.total_seconds())
        self._sql(f"UPDATE {TABLE} SET ms = ms + {round(by.total_seconds() * 1000)}")  # noqa: S608 - our own words

    def _sql(self, statement: str) -> None:
        self.world.services.store.transact(lambda connection: connection.exec_driver_sql(statement), writes=True)


def _move_clock() -> None:
    """Add the benchmark's milliseconds to what every statement of this process takes for now."""
    for dialect, text in clock.NOW.items():
        clock.NOW[dialect] = f"({text} + (SELECT ms FROM {TABLE}))"  # noqa: S608 - our own words


def measure(database: str, *, creators: int, videos: int) -> Found:
    """Measure on one database; its servers and the stand-in run on other cores than the pulls, if there are others."""
    pulling, serving = machine.split_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        with machine.pinned(serving):
            options = SandboxOptions(ledger=str(folder / "ledger.jsonl"), ledger_all=True, expires_in=LONG)
            sandbox = stack.enter_context(start_sandbox(options))
            sandbox.set_account(videos=videos, deleted_every=0, hidden_every=0, private_run=0)
            server = Server(folder)
            stack.callback(server.stop)
            address = database_of(database, folder, stack)
        stack.enter_context(machine.pinned(pulling))
        environ = settings_of(sandbox, folder, server.url, address)
        world = World(sandbox, environ | {f"EVERTOKEN_{name}": value for name, value in FREE.items()})
        stack.callback(world.close)
        fleet = Fleet(world, sandbox, creators)
        start, began, processor = world.services.store.ping(), time.monotonic(), time.process_time()
        sizes = fleet.pull_first()
        seconds, processor = time.monotonic() - began, time.process_time() - processor
        rows, sent, posted = counted(world.services), fleet.requests(), fleet.posted()
        pages = sum(1 + _pages(len(each)) for each in posted)
        first = Pulls(sent, pages, seconds, processor)
        whole = all(len(each) >= videos for each in posted) and rows["account_days"] >= creators * LEAST_DAYS
        began, processor = time.monotonic(), time.process_time()
        for halves in (1, 2):
            fleet.pull_due(start + halves * HALF_DAY, timedelta(seconds=seconds))
        needed = sum(_needed(each, start) for each in fleet.posted())
        day = Pulls(fleet.requests() - sent, needed, time.monotonic() - began, time.process_time() - processor)
        return Found(database, creators, first, day, rows, (sizes[len(sizes) // 2], sizes[-1]), whole)


def sheet(found: list[Found]) -> Sheet:
    """Return the table for people."""
    names = list(found[0].figures())
    rows = [(name, *(each.figures()[name] for each in found)) for name in names]
    title = f"Account data of {found[0].creators:,} creators"
    return Sheet(title, ("", *(each.database for each in found)), rows)


def counted(services: Services) -> dict[str, int]:
    """Return how many rows each table of account data has."""

    def count(table: Rows) -> int:
        return services.store.transact(
            lambda connection: int(connection.execute(select(func.count()).select_from(table)).scalar_one()),
            writes=False,
        )

    return {table.name: count(table) for table in DATA}


def _needed(posted: list[datetime], start: datetime) -> int:
    """Return the requests of the day after a first pull: one for the account, and pages of each pass over the list."""
    half, end = start + HALF_DAY, start + 2 * HALF_DAY
    passes = [half, end] if _is_fresh(posted, start) else [end]
    if len(passes) > 1 and not _is_fresh(posted, half):
        passes = [half, end] if half.date() == start.date() else [half]  # the next day has its pass at the usual time
    return 1 + sum(_young_pages(posted, at) for at in passes)


def _is_fresh(posted: list[datetime], at: datetime) -> bool:
    return readings.video_pause(max(each for each in posted if each <= at), now=at) < timedelta(days=1)


def _young_pages(posted: list[datetime], at: datetime) -> int:
    listed = [each for each in posted if each <= at]
    young = sum(readings.is_young(each, now=at) for each in listed)
    return min(_pages(len(listed)), _pages(young + 1))


def _pages(videos: int) -> int:
    size = VIDEOS.paging.size if VIDEOS.paging else 1
    return max(1, math.ceil(videos / size))


def main() -> int:
    """Run, print the figures, and return 1 if a promise is broken."""
    given = _arguments()
    found = measure(given.database, creators=given.creators, videos=given.videos)
    if not given.quiet:
        sheet([found]).show()
    if given.json:
        given.json.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return int(not found.is_kept)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creators", type=int, default=100, help="how many")
    parser.add_argument("--videos", type=int, default=200, help="of each")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql", help="which one")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--quiet", action="store_true", help="print no table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
