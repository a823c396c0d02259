"""Account data over weeks against the sandbox's truth: faults are on, workers are killed, and the database is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.account_oracle import Difference, Oracle
from tests.support.account_worker import TABLE, AccountWorker
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store.account_models import DATA

pytestmark = pytest.mark.as_owner

LONG = 10**8
STEP = timedelta(hours=6)
SOON = timedelta(minutes=20)
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
    """

    world: World
    sandbox: RunningSandbox
    worker: AccountWorker
    creators: Sequence[str]
    since: date

    def move(self, by: timedelta) -> datetime:
        """Move the clocks of TikTok and of the database."""
        now = self.sandbox.advance(seconds=by.total_seconds())
        moved = round(by.total_seconds() * 1000)
        self.world.sql(f"UPDATE {TABLE} SET ms = ms + {moved}")  # noqa: S608 - our own words
        return datetime.fromtimestamp(now, UTC)

    def day(self, draw: random.Random | None = None) -> None:
        """Let a day pass, with pulls every six hours; some of them die, and another worker goes on."""
        for _ in range(4):
            kill = draw.randrange(1, 12) if draw is not None and draw.random() < 0.08 else None
            self.worker.pull(kill=kill, answered=bool(kill and kill % 2))
            # What waited for other creators' pulls comes next.
            self.move(SOON)
            self.worker.pull()
            self.move(STEP - SOON)

    def dump(self) -> dict[str, list[dict[str, Any]]]:
        """Read every table of account data."""

        def rows(connection: Any) -> dict[str, list[dict[str, Any]]]:
            return {table.name: [dict(row._mapping) for row in connection.execute(table.select())] for table in DATA}

        found: dict[str, list[dict[str, Any]]] = self.world.services.store.transact(rows, writes=False)
        return found

    def differences(self, *, gaps: bool = False) -> list[Difference]:
        """Let a day pass without a fault, pull once more, and compare each creator's rows with the truth."""
        self.sandbox.heal()
        self.day()
        for creator in self.creators:
            self.world.services.store.request_pull(creator)
        for _ in range(3):
            now = self.move(SOON)
            self.worker.pull()
        dump = self.dump()
        return [
            found
            for creator in self.creators
            for found in Oracle(self.sandbox.truth, dump, creator, self.since, now, gaps=gaps).differences()
        ]


@pytest.fixture
def weeks(new_world: Callable[..., World], tmp_path: Path) -> Iterator[Weeks]:
    """Four accounts: an ordinary one, a personal one, a small one that shows zeros, and one with private posts."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(start_sandbox(SandboxOptions(expires_in=LONG, seed=11, scopes=SCOPES)))
        world = new_world(
            TIKTOK_BASE_URL=sandbox.url, TIKTOK_AUTHORIZE_URL=sandbox.authorize_url, LEASE_SECONDS="60",
            DEADLINE_SECONDS="20", PULL_RESOURCES="videos,comments,mentions", PULL_BUDGET="1000",
            BENCHMARK_CATEGORIES="PETS,BABY",
        )  # fmt: skip
        world.sandbox = sandbox
        grants = world.creators(4, scope=",".join(SCOPES))
        ada, ben, cleo, dora = creators = [grant.creator_id for grant in grants]
        usual: dict[str, Any] = {"video_seconds": 15, "comments": 0, "age_days": 400}
        sandbox.set_account(ada, videos=45, deleted_every=7, hidden_every=9, **{**usual, "comments": 5})
        sandbox.set_account(ben, videos=20, business=False, missing=0.2, uncomputed="empty", **usual)
        sandbox.set_account(cleo, videos=18, followers=90, uncomputed="zero", late=0.6, **usual)
        sandbox.set_account(dora, videos=70, private_run=45, analytics_days=350, **usual)
        world.sql(f"CREATE TABLE {TABLE} (ms BIGINT NOT NULL)")
        world.sql(f"INSERT INTO {TABLE} VALUES (0)")  # noqa: S608 - our own words
        began = datetime.now(UTC)
        worker = AccountWorker(world.environ, tmp_path / "worker.log")
        stack.callback(worker.close)
        found = Weeks(world, sandbox, worker, creators, began.date() + timedelta(days=1))
        # Half past midnight, so that no step comes near the end of a day.
        found.move(datetime.combine(found.since, datetime.min.time(), UTC) + timedelta(minutes=30) - began)
        world.sql("UPDATE grants SET next_pull_at = 1")
        yield found


@pytest.mark.night
@pytest.mark.timeout(1200)
def test_sixty_days_with_faults_and_deaths_equal_the_truth(weeks: Weeks) -> None:
    """After sixty days, with faults on and workers killed between any two steps, every row is as the truth has it."""
    draw = random.Random(3)  # noqa: S311 - repeatable on purpose
    for fault in FAULTS:
        weeks.sandbox.control("faults", fault)
    for _ in range(60):
        weeks.day(draw)

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
        weeks.day()

    found = {each.table for each in weeks.differences()}

    assert tables <= found


@pytest.mark.slow_suite
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_three_days_equal_the_truth(weeks: Weeks) -> None:
    """Without a fault a few days are as the truth has them, in every table."""
    for _ in range(3):
        weeks.day()

    assert weeks.differences() == []
    dump = weeks.dump()
    assert all(dump.values())
