"""Account data over weeks against the sandbox's truth: faults are on, workers are killed, and the database is right."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from tests.support.account_oracle import Difference, Oracle
from tests.support.account_worker import TABLE, AccountWorker
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store.account_models import DATA
from worker.store.clock import Instant, as_milliseconds
from worker.store.models import GRANTS

pytestmark = pytest.mark.as_owner

LONG = 10**9
"""Seconds: the tokens outlive FIRST_DAY, however early the test runs."""
FIRST_DAY = date(2040, 1, 1)
"""Always the same, since the figures are drawn by the day."""
LEAST = timedelta(minutes=1)
"""From one look of the worker at what is due to the next."""
DAY = timedelta(days=1)
SCOPES = (
    "user.info.basic",
    "user.info.username",
    "user.info.profile",
    "user.info.stats",
    "user.account.type",
    "user.insights",
    "video.list",
    "video.insights",
    "comment.list",
    "biz.brand.insights",
)
FAULTS: Sequence[dict[str, Any]] = (
    {"kind": "status", "status": 503, "probability": 0.04},
    {"kind": "lost", "how": "rst", "probability": 0.02},
    {"kind": "cut", "at": 300, "probability": 0.02},
    {"kind": "html", "probability": 0.02},
    {"kind": "code", "code": 50000, "probability": 0.03},
    {"kind": "data", "value": {}, "probability": 0.02},
    {"kind": "partial", "call": "account", "without": ["audience_ages", "likes", "metrics"], "probability": 0.02},
    {
        "kind": "partial",
        "call": "videos",
        "without": ["reach", "video_views", "impression_sources"],
        "probability": 0.03,
    },
    {"kind": "rewrite", "call": "account", "find": '"shares":', "put": '"shares":NaN,"was":', "probability": 0.02},
    {"kind": "rewrite", "call": "videos", "find": '"likes":', "put": '"likes":"many","was":', "probability": 0.02},
    {"kind": "stuck_cursor", "call": "videos", "probability": 0.03},
)


@dataclass
class Weeks:
    """Creators whose accounts are pulled over weeks that pass in seconds.

    Attributes:
        world: the daemon.
        sandbox: TikTok, with accounts of every kind.
        worker: the process that pulls.
        creators: whose accounts.
        since: the day of the first pull.
        now: what the clocks show.
    """

    world: World
    sandbox: RunningSandbox
    worker: AccountWorker
    creators: Sequence[str]
    since: date
    now: datetime

    def move(self, by: timedelta) -> None:
        """Move the clocks of TikTok and of the database, which stand still meanwhile."""
        self.now += by
        self.sandbox.advance(seconds=by.total_seconds())
        self.world.sql(f"UPDATE {TABLE} SET ms = {as_milliseconds(self.now)}")  # noqa: S608 - our own words

    def play(self, by: timedelta = DAY, draw: random.Random | None = None) -> None:
        """Let time pass, and pull whenever something is due; some workers die, and another goes on."""
        end = self.now + by
        while self.now < end:
            kill = draw.randrange(1, 6) if draw is not None and draw.random() < 0.1 else None
            self.worker.pull(kill=kill, answered=bool(kill and kill % 2))
            self.move(min(max(self.next_pull_at() - self.now, LEAST), end - self.now))

    def next_pull_at(self) -> datetime:
        """Return when the first pull is wanted."""
        at: datetime = self.world.services.store.transact(
            lambda connection: connection.execute(
                select(func.min(GRANTS.c.next_pull_at, type_=Instant()))
            ).scalar_one(),
            writes=False,
        )
        return at

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Read every table of account data."""

        def rows(connection: Any) -> dict[str, list[dict[str, Any]]]:
            return {table.name: [dict(row._mapping) for row in connection.execute(table.select())] for table in DATA}

        found: dict[str, list[dict[str, Any]]] = self.world.services.store.transact(rows, writes=False)
        return found

    def differences(self, *, gaps: bool = False) -> list[Difference]:
        """Let a day pass without a fault, pull once more, and compare each creator's rows with the truth."""
        self.sandbox.heal()
        self.play()
        for creator in self.creators:
            self.world.services.store.request_pull(creator)
        self.play(timedelta(hours=4))  # lists wait for the other creators' accounts
        for creator in self.creators:  # a day that came late came perhaps in these hours
            self.world.services.store.request_pull(creator)
        self.play(LEAST)
        dump = self.dump()
        return [
            found
            for creator in self.creators
            for found in Oracle(self.sandbox.truth, dump, creator, self.since, self.now, gaps=gaps).differences()
        ]


@pytest.fixture
def seed() -> int:
    """Another one in each run; `TRUTH_SEED` plays a run again, as a failure shows it."""
    found = int(os.environ.get("TRUTH_SEED") or secrets.randbelow(10**6))
    print(f"TRUTH_SEED={found}")  # noqa: T201 - a failure shows it
    return found


@pytest.fixture
def weeks(seed: int, new_world: Callable[..., World], tmp_path: Path) -> Iterator[Weeks]:
    """Four accounts: an ordinary one, a personal one, a small one that shows zeros, and one with private posts."""
    with ExitStack() as stack:
        options = SandboxOptions(expires_in=LONG, seed=seed, first_day=str(FIRST_DAY), scopes=SCOPES)
        sandbox = stack.enter_context(start_sandbox(options))
        world = new_world(
            TIKTOK_BASE_URL=sandbox.url, TIKTOK_AUTHORIZE_URL=sandbox.authorize_url, LEASE_SECONDS="60",
            DEADLINE_SECONDS="20", PULL_RESOURCES="videos,comments,mentions", PULL_BUDGET="1000",
            BENCHMARK_CATEGORIES="PETS,BABY",
        )  # fmt: skip
        world.sandbox = sandbox
        grants = world.creators(4, scope=",".join(SCOPES), prefix="c-")
        ada, ben, cleo, dora = creators = [grant.creator_id for grant in grants]
        usual: dict[str, Any] = {"video_seconds": 15, "comments": 0, "age_days": 400}
        sandbox.set_account(ada, videos=45, deleted_every=7, hidden_every=9, **{**usual, "comments": 5})
        sandbox.set_account(ben, videos=20, business=False, missing=0.2, uncomputed="empty", **usual)
        sandbox.set_account(cleo, videos=18, followers=90, uncomputed="zero", late=0.6, **usual)
        sandbox.set_account(dora, videos=70, private_run=45, analytics_days=350, **usual)
        world.sql(f"CREATE TABLE {TABLE} (ms BIGINT NOT NULL)")
        world.sql(f"INSERT INTO {TABLE} VALUES (0)")  # noqa: S608 - our own words
        worker = AccountWorker(world.environ, seed, tmp_path / "worker.log")
        stack.callback(worker.close)
        midnight = datetime.combine(FIRST_DAY, time.min, UTC)
        found = Weeks(world, sandbox, worker, creators, FIRST_DAY, midnight)
        found.move(timedelta(minutes=30))
        world.sql("UPDATE grants SET next_pull_at = 1")
        yield found


@pytest.mark.night
@pytest.mark.timeout(1200)
def test_sixty_days_with_faults_and_deaths_equal_the_truth(weeks: Weeks, seed: int) -> None:
    """After sixty days, with faults on and workers killed between any two steps, every row is as the truth has it."""
    draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
    for fault in FAULTS:
        weeks.sandbox.control("faults", fault)
    for _ in range(60):
        weeks.play(draw=draw)

    found = weeks.differences(gaps=True)

    assert found == [], "\n".join(map(str, found))
    assert weeks.worker.deaths > 5
    assert weeks.sandbox.stats()["faults"] > 100


@pytest.mark.night
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("bug", "days", "tables"),
    [
        ("null erases", 16, {"videos"}),  # until old videos are read without what TikTok gives for seven days
        ("missing is zero", 9, {"account_days"}),
        ("corrections lost", 9, {"account_corrections"}),
        ("read once", 9, {"account_days", "account_hours"}),
        ("short page ends", 9, {"videos"}),
    ],
)
def test_planted_bugs_are_found(weeks: Weeks, bug: str, days: int, tables: set[str]) -> None:
    """A database that was written with a bug differs from the truth in the tables that the bug touches."""
    weeks.worker.bug = bug
    for _ in range(days):
        weeks.play()

    found = {each.table for each in weeks.differences()}

    assert tables <= found


@pytest.mark.slow_suite
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_three_days_equal_the_truth(weeks: Weeks) -> None:
    """Without a fault a few days are as the truth has them, in every table."""
    for _ in range(3):
        weeks.play()

    assert weeks.differences() == []
    dump = weeks.dump()
    assert all(dump.values())
