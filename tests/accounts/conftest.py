"""A TikTok in memory that answers reads from a truth, and a puller over it on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.store.conftest import Fleet
from tests.support.ground import ground_of
from tests.support.turns import take_turns
from worker.accounts import schedule
from worker.accounts.pull import Puller, PullResult
from worker.accounts.resources import ACCOUNT, VIDEOS
from worker.errors import GiveUpError, StopEveryoneError
from worker.store import GrantView, Store
from worker.telemetry import Fact
from worker.tiktok import ReadAnswer
from worker.vault import Token

Answer = Callable[[dict[str, Any]], dict[str, Any]]
ALL_SCOPES = (
    "user.info.basic,user.info.username,user.info.stats,user.info.profile,user.account.type,user.insights,"
    "video.list,video.insights,comment.list,biz.brand.insights"
)


class FreeLimiter:
    """A limiter that permits everything, unless it is told to deny."""

    def __init__(self) -> None:
        self.denies: dict[str, float] = {}
        self.punished: list[tuple[str, float]] = []

    def take(self, *, lane: str, call: str, account: str) -> float:
        """Permit the first request of a pull."""
        return self.denies.get(call, 0.0)

    def admit(self, *, lane: str, call: str, account: str, patience_seconds: float) -> float:
        """Permit a further request."""
        return self.denies.get(call, 0.0)

    def depart(self) -> float:
        """Send at once."""
        return 0.0

    def punish(self, scope: str, seconds: float) -> None:
        """Note a pause."""
        self.punished.append((scope, seconds))


class OpenSealer:
    """A sealer whose pairs are all the same token."""

    def open_access(self, sealed: object, place: object) -> Token:
        """Return a token."""
        return Token("act.test-token")


@dataclass
class Truth:
    """What TikTok knows of one account, and how it misbehaves.

    Attributes:
        granted: scopes that the creator really gives.
        retired: fields that TikTok has taken offline.
        longest: most days of one request.
        faults: what the next calls of a path do instead of answering.
    """

    profile: dict[str, Any] = field(default_factory=lambda: {"display_name": "Ada", "followers_count": 1000})
    days: dict[date, dict[str, Any]] = field(default_factory=dict)
    videos: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    benchmark: dict[str, dict[str, Any]] = field(default_factory=dict)
    mentions: list[dict[str, Any]] = field(default_factory=list)
    granted: set[str] = field(default_factory=lambda: set(ALL_SCOPES.split(",")))
    retired: set[str] = field(default_factory=set)
    names_the_field: bool = True
    longest: int = 60
    faults: dict[str, list[BaseException | ReadAnswer]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def read(self, token: Token, call: str, creator_id: str, parameters: dict[str, Any]) -> ReadAnswer:
        """Answer one read."""
        self.calls.append((call, dict(parameters)))
        if faults := self.faults.get(call):
            fault = faults.pop(0)
            if isinstance(fault, BaseException):
                raise fault
            return fault
        self._refuse(call, parameters)
        data = {
            "business/get/": self._account,
            "business/video/list/": self._videos,
            "business/comment/list/": self._comments,
            "business/comment/reply/list/": self._replies,
            "business/benchmark/": lambda asked: self.benchmark[asked["business_category"]],
            "business/mention/video/list/": self._mentions,
        }[call](parameters)
        raw = json.dumps({"code": 0, "data": data}).encode()
        return ReadAnswer(data, f"r{len(self.calls)}", raw=raw)

    def count(self, call: str) -> int:
        """Return how many requests a path got."""
        return sum(1 for each, _ in self.calls if each == call)

    def _refuse(self, call: str, parameters: dict[str, Any]) -> None:
        scopes = ACCOUNT.scope_of() if call == "business/get/" else VIDEOS.scope_of()
        for name in parameters.get("fields", ()):
            said = f": {name}" if self.names_the_field else ""
            if scopes.get(name, "user.info.basic") not in self.granted and call != "business/mention/video/list/":
                raise GiveUpError(f"scope{said}", call=call, code=40130)
            if name in self.retired:
                raise GiveUpError(f"offline{said}", call=call, code=41002)
        if "start_date" in parameters:
            first, last = (date.fromisoformat(parameters[name]) for name in ("start_date", "end_date"))
            if (last - first).days + 1 > self.longest:
                raise StopEveryoneError("start_date: too long a span", call=call, code=40002)

    def _account(self, asked: dict[str, Any]) -> dict[str, Any]:
        names = set(asked["fields"])
        data = {name: value for name, value in self.profile.items() if name in names}
        if not names & {"likes", "video_views"}:
            return data
        first, last = (date.fromisoformat(asked[name]) for name in ("start_date", "end_date"))
        data["metrics"] = [
            {"date": day.isoformat(), **{name: value for name, value in figures.items() if name in names}}
            for day, figures in sorted(self.days.items())
            if first <= day <= last
        ]
        return data

    def _videos(self, asked: dict[str, Any]) -> dict[str, Any]:
        names = set(asked["fields"])
        before = asked.get("cursor")
        older = [
            video
            for video in sorted(self.videos, key=lambda video: -int(video["create_time"]))
            if before is None or int(video["create_time"]) * 1000 < before
        ]
        page = older[: asked["max_count"]]
        last = int(page[-1]["create_time"]) * 1000 if page else 0
        listed = [{name: value for name, value in video.items() if name in names} for video in page]
        return {"videos": listed, "cursor": last, "has_more": len(older) > len(page)}

    def _comments(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._listed("comments", self.comments.get(asked["video_id"], []), asked)

    def _replies(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._listed("comments", self.comments.get(asked["comment_id"], []), asked)

    def _mentions(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self._listed("videos", self.mentions, asked)

    @staticmethod
    def _listed(name: str, found: list[dict[str, Any]], asked: dict[str, Any]) -> dict[str, Any]:
        at = asked.get("cursor", 0)
        page = found[at : at + asked["max_count"]]
        return {name: page, "cursor": at + len(page), "has_more": at + len(page) < len(found)}


@dataclass
class Studio:
    """A creator, TikTok, and pulls; `stop` tells the process to end."""

    fleet: Fleet
    grant: GrantView
    truth: Truth
    limiter: FreeLimiter
    puller: Puller
    facts: list[Fact]
    stop: Event

    @property
    def store(self) -> Store:
        """The database."""
        return self.fleet.store

    def pull(self) -> PullResult:
        """Want a pull, and pull."""
        self.store.request_pull(self.grant.creator_id)
        return self.puller.pull(self.grant.grant_id)

    def pass_days(self, days: float = 1) -> None:
        """Move all that is stored into the past by some days."""
        moved = round(days * 86_400_000)
        for table, columns in MOVED.items():
            changes = ", ".join(f"{column} = {column} - {moved}" for column in columns)
            self.fleet.sql(f"UPDATE {table} SET {changes}")  # noqa: S608 - our own names
        self.fleet.sql("UPDATE account_requests SET requests = 0")

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the creator's rows of a table."""
        found = self.store.account_rows(table, creator_id=self.grant.creator_id, since=None, after=())
        return [dict(row._mapping) for row in found]

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return the fields of each fact of a name."""
        return [dict(fact.fields) for fact in self.facts if fact.name == name]

    def back(self, age: int) -> date:
        """Return a day before today."""
        return self.store.ping().date() - timedelta(days=age)

    def video(self, number: int | str, *, age: float, **figures: Any) -> dict[str, Any]:
        """Return a video that was posted some days ago."""
        at = datetime.now(UTC) - timedelta(days=age)
        return {"item_id": f"v{number}", "create_time": str(int(at.timestamp())), "likes": 7, **figures}


MOVED = {
    "account_days": ("read_at", "first_read_at"),
    "account_profiles": ("read_at", "first_read_at"),
    "videos": ("first_seen_at", "last_seen_at"),
    "account_progress": ("started_at", "finished_at", "whole_at", "next_at"),
    "account_narrowings": ("since", "again_at"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the databases take turns."""
    take_turns(items, Path(__file__).parent)


@pytest.fixture
def fleet(store: Store) -> Fleet:
    """A fleet on both databases."""
    return Fleet(store)


@pytest.fixture
def new_studio(fleet: Fleet) -> Callable[..., Studio]:
    """Make a studio; by default every scope is granted and every resource is pulled."""

    def make(
        creator: str = "ada",
        *,
        scope: str = ALL_SCOPES,
        resources: tuple[str, ...] = ("videos", "comments", "replies", "mentions"),
        budget: int = 1000,
        categories: tuple[str, ...] = (),
        pull_seconds: float | None = None,
    ) -> Studio:
        facts: list[Fact] = []
        truth, limiter = Truth(), FreeLimiter()
        ground = ground_of(
            store=fleet.store, sealer=OpenSealer(), limiter=limiter, tiktok=truth, hook=facts.append, owner="a worker"
        )
        owners: Any = None
        puller = Puller(
            ground,
            owners=owners,
            lease_seconds=60,
            snapshots_kept=5,
            choice=schedule.Choice(frozenset(resources), categories, budget, pull_seconds),
            keeps_answers=True,
        )
        return Studio(fleet, fleet.add(creator, scope=scope), truth, limiter, puller, facts, ground.stop)

    return make


@pytest.fixture
def studio(new_studio: Callable[..., Studio]) -> Studio:
    """A creator who grants everything."""
    return new_studio()
