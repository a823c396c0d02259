"""The truth: what a reader who reads every day must have in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from worker.sandbox.accounts.days import METRICS, Calendar, first_figures_at
from worker.sandbox.accounts.traits import AccountBook
from worker.sandbox.accounts.truth import TABLES, TruthError, answer
from worker.sandbox.accounts.videos import CURVES, FIELDS, VANISHING
from worker.sandbox.process import RunningSandbox, SandboxError

LONG = 10**8
DAYS = 20
VIDEO_FIELDS = json.dumps([name for name in FIELDS if name not in CURVES])
SCOPES = ["user.info.basic", "user.info.stats", "user.insights", "video.list", "video.insights", "comment.list"]


class Reader:
    """A simple reader: it reads everything once a day, and keeps the last value of each field.

    Args:
        sandbox: where it reads.
        send: sends one request.
        creator: whose account.
    """

    def __init__(self, sandbox: RunningSandbox, send: Callable[..., SimpleNamespace], creator: str) -> None:
        self.sandbox, self.creator, self._send = sandbox, creator, send
        self._token = sandbox.grants(creators=[creator])[0]["access_token"]
        self.days: dict[str, dict[str, Any]] = {}
        self.videos: dict[str, dict[str, Any]] = {}
        self.audience: dict[str, list[dict[str, Any]]] = {}

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Read one page."""
        text = urlencode({"business_id": self.creator, **query})
        found = self._send(
            self.sandbox, "GET", f"/open_api/v1.3/business/{path}?{text}", headers={"Access-Token": self._token}
        ).json
        assert found["code"] == 0, found
        data: dict[str, Any] = found["data"]
        return data

    def read(self, today: datetime) -> None:
        """Read the account and all its posts."""
        query = {
            "start_date": str(today.date() - timedelta(days=60)),
            "end_date": str(today.date() - timedelta(days=1)),
        }
        fields = json.dumps(["followers_count", *METRICS, "audience_ages"])
        account = self.get("get/", fields=fields, **query)
        for row in account["metrics"]:
            self.days.setdefault(row["date"], {}).update(row)
        self.audience[str(today.date())] = account["audience_ages"]
        cursor: dict[str, Any] = {}
        while True:
            page = self.get("video/list/", fields=VIDEO_FIELDS, max_count=20, **cursor)
            for row in page["videos"]:
                self.videos.setdefault(row["item_id"], {}).update(row)
            if not page["has_more"]:
                return
            cursor = {"cursor": page["cursor"]}


def test_reading_every_day_gives_the_truth(start: Callable[..., RunningSandbox], send: Callable[..., Any]) -> None:
    """A reader who merges what each day brings has the settled days, the shares and all posts as the truth has them."""
    sandbox = start(expires_in=LONG, scopes=SCOPES, seed=4)
    sandbox.set_account("ada", videos=80, deleted_every=5, hidden_every=7, age_days=100)
    reader = Reader(sandbox, send, "ada")
    # Noon, so that no midnight falls into the test.
    began = datetime.fromtimestamp(sandbox.advance(), UTC)
    noon = (began + timedelta(days=1)).replace(hour=12, minute=0)
    now = sandbox.advance(seconds=(noon - began).total_seconds())
    for _ in range(DAYS):
        reader.read(datetime.fromtimestamp(now, UTC))
        now = sandbox.advance(days=1)
    reader.read(datetime.fromtimestamp(now, UTC))

    since = str(noon.date())
    days = {row["date"]: row for row in sandbox.truth("daily", "ada", since=since)}
    settled = {day for day, row in days.items() if row["settled"]}
    figures = {name for name in ("followers_count", *METRICS) if name != "audience_activity"}
    assert len(settled) > 60
    assert reader.days.keys() == days.keys()
    assert all(reader.days[day][name] == days[day][name] for day in settled for name in figures)
    hours = {(row["date"], row["hour"]): row["count"] for row in sandbox.truth("activity", "ada", since=since)}
    found = ((day, one) for day in settled for one in reader.days[day]["audience_activity"])
    assert hours == {(day, one["hour"]): one["count"] for day, one in found}
    ages = {
        (row["pull_date"], row["label"]): row["percentage"]
        for row in sandbox.truth("audience", "ada", since=since)
        if row["kind"] == "audience_ages"
    }
    assert ages == {(day, one["age"]): one["percentage"] for day, rows in reader.audience.items() for one in rows}
    check_videos(reader, sandbox.truth("videos", "ada", since=since))


def check_videos(reader: Reader, truth: list[dict[str, Any]]) -> None:
    """Compare the posts; one that was listed for less than a day between two reads may be missing."""
    expected = {row["item_id"]: row for row in truth}
    assert reader.videos.keys() <= expected.keys()
    assert len(reader.videos) > len(expected) - 4
    assert any(not row["public"] for row in expected.values())
    same = 0
    for item_id, found in reader.videos.items():
        row = {name: value for name, value in expected[item_id].items() if name in found and name != "thumbnail_url"}
        if expected[item_id]["public"]:
            assert row == {name: found[name] for name in row}
            assert expected[item_id].keys() - {"public", "gone", "hidden", "last_activity"} <= found.keys()
            same += 1
    assert same > 40
    assert any(set(VANISHING) & row.keys() for row in expected.values())


def test_truth_keeps_what_vanished(start: Callable[..., RunningSandbox]) -> None:
    """The seven-day fields of a post are in the truth if somebody read it while they were given, and otherwise not."""
    sandbox = start()
    sandbox.set_account("ada", videos=300, deleted_every=0, hidden_every=0)
    now = datetime.fromtimestamp(sandbox.advance(days=60), UTC)

    early = sandbox.truth("videos", "ada", since=str(now.date() - timedelta(days=60)))
    late = sandbox.truth("videos", "ada", since=str(now.date()))

    assert len([row for row in early if "reach" in row]) > len([row for row in late if "reach" in row]) > 0
    assert len(early) == len(late)


def test_versions_are_what_reads_before_brought() -> None:
    """A day's versions are its figures before each correction; the last version of all is the settled one."""
    account = AccountBook(1, 20_000).find("versions")
    day = next(
        day for day in range(19_990, 19_900, -1) if first_figures_at(account, day, Calendar()) == (day + 2) * 86_400
    )
    since = "2024-09-01"

    def row(now: float) -> dict[str, Any]:
        moment = datetime.fromtimestamp(now, UTC).isoformat()
        found = answer(account, Calendar(), {"table": "daily", "since": since, "now": moment}, now)
        return next(each for each in found if each["date"] == str(datetime.fromtimestamp(day * 86_400, UTC).date()))

    first, second, last = (row((day + 2 + half / 2) * 86_400 + 5) for half in range(3))

    assert [one["settled"] for one in (first, second, last)] == [False, False, True]
    assert [version["video_views"] for version in last["versions"]] == [first["video_views"], second["video_views"]]
    assert first["video_views"] < second["video_views"] < last["video_views"]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_rows(shared: RunningSandbox, table: str) -> None:
    """Each table of the truth has rows for an ordinary account."""
    shared.set_account("truth", videos=60, comments=20, mentions=200, video_seconds=15)
    rows = shared.truth(table, "truth", since=str(datetime.now(UTC).date() - timedelta(days=2)))

    assert rows
    assert all(row for row in rows)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"table": "shoes"}, "table: there are profile"),
        ({"table": "daily", "since": "soon"}, "since, now, seen"),
        ({"table": "daily", "now": "soon"}, "since, now, seen"),
        ({"table": "daily", "since": "1999-01-01"}, "since: at most"),
        ({"table": "daily", "since": "2999-01-01"}, "since: at most"),
        ({"table": "videos", "seen": {"1": "x"}}, "since, now, seen"),
        ({"table": "daily", "shoes": 1}, "shoes not known"),
    ],
)
def test_wrong_questions_are_refused_with_a_sentence(shared: RunningSandbox, asked: dict[str, Any], words: str) -> None:
    """A question that is not understood is answered with what is wrong."""
    with pytest.raises(SandboxError, match=words):
        shared.control("truth", {"creator": "truth", **asked})
    with pytest.raises(TruthError):
        answer(AccountBook(1, 20_000).find("x"), Calendar(), asked, 20_000 * 86_400.0)
