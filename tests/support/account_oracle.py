"""The oracle of account data: compares the rows of a database with the truth that the sandbox holds.

It knows the tables by their names and columns alone, as plain rows, so a database is compared in the same way however
it was read. It is asked right after the last pull, while the sandbox's clock still shows that pull's day.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from worker.sandbox.accounts.days import BUSINESS, EVERYONE, REGISTERED
from worker.sandbox.accounts.videos import CURVES, LISTED, REAL_TIME, SHARES, VANISHING
from worker.sandbox.accounts.videos import FIELDS as VIDEO_FIELDS

Row = Mapping[str, Any]
Dump = Mapping[str, Sequence[Row]]
Ask = Callable[..., list[dict[str, Any]]]
"""Asks the sandbox: `ask(table, creator, since=..., now=..., seen=...)`."""

DAILY: Final = ("followers_count", *EVERYONE, *BUSINESS, *REGISTERED)
KINDS: Final = {
    "audience_ages": "age",
    "audience_genders": "gender",
    "audience_countries": "country",
    "audience_cities": "city",
    "audience_types": "type",
    "impression_sources": "source",
    "video_view_retention": "retention",
    "engagement_likes": "likes",
}
"""The word of the tables for each list."""
PROFILE: Final = (
    "username",
    "display_name",
    "profile_image",
    "profile_deep_link",
    "bio_description",
    "is_verified",
    "is_business_account",
)
VIDEO_FIGURES: Final = tuple(
    name for name in VIDEO_FIELDS if name not in (*REAL_TIME, *CURVES, *SHARES, "video_duration")
)
COMMENT: Final = ("parent_comment_id", "text", "username", "display_name", "status", "replies", "owner", "pinned")
YOUNG_DAYS: Final = 28
"""Videos up to this age are read every day, older ones once a week."""
WEEK: Final = timedelta(days=7)
SETTLED_DAYS: Final = 6
"""From this age on a day has been read twice after it stood."""
SPOILT_DAYS: Final = 2
"""By so many days more if answers are spoilt, which confirm nothing."""
NONE: Final = "none"
CLOCK_SLACK: Final = timedelta(minutes=10)


@dataclass(frozen=True)
class Difference:
    """One thing that the database has otherwise than the truth.

    Attributes:
        table: the table of the database.
        key: which row.
        field: which column, or what is wrong with the row.
        stored: what the database has.
        true: what it should have.
    """

    table: str
    key: tuple[Any, ...]
    field: str
    stored: Any
    true: Any


@dataclass(frozen=True)
class Oracle:
    """Compares one creator's rows.

    Attributes:
        ask: asks the sandbox.
        dump: the rows of each table, of all creators.
        creator: whose rows are compared.
        since: the day of the first pull.
        now: the moment of the last pull.
        gaps: whether, because an answer was spoilt, a figure may be missing in the reading of one day, a kind of shares
            may be missing on one day, a day stands later, and a figure that was not read at first has no correction.
    """

    ask: Ask
    dump: Dump
    creator: str
    since: date
    now: datetime
    gaps: bool = False

    def differences(self) -> list[Difference]:
        """Compare every table."""
        checks = (
            self._days, self._corrections, self._hours, self._audience, self._profile, self._counters,
            self._videos, self._readings, self._video_shares, self._curves, self._comments, self._mentions,
            self._benchmarks,
        )  # fmt: skip
        return [found for check in checks for found in check()]

    def _true(self, table: str, **asked: Any) -> list[dict[str, Any]]:
        return self.ask(table, self.creator, **{"since": str(self.since), "now": self.now.isoformat(), **asked})

    def _rows(self, table: str) -> list[Row]:
        return [row for row in self.dump[table] if row["creator_id"] == self.creator]

    def _days(self) -> Iterator[Difference]:
        true = {date.fromisoformat(row["date"]): row for row in self._true("daily")}
        stored = {row["day"]: row for row in self._rows("account_days")}
        yield from _keys("account_days", stored, true)
        for day in stored.keys() & true.keys():
            row, expected = stored[day], true[day]
            accepted = [expected] if expected["settled"] else [expected, *expected["versions"]]
            for name in DAILY:
                values = [each.get(name) for each in accepted]
                if row[name] not in values:
                    yield Difference("account_days", (day,), name, row[name], values[0])
            if bool(row["settled"]) and not expected["settled"]:
                yield Difference("account_days", (day,), "settled", stored=True, true=False)
            # The oldest day of the first pull cannot be read a second time.
            again = self.since - day < timedelta(days=60)
            stands_at = SETTLED_DAYS + (SPOILT_DAYS if self.gaps else 0)
            if again and not row["settled"] and (self.now.date() - day).days >= stands_at:
                yield Difference("account_days", (day,), "settled", stored=False, true=True)

    def _corrections(self) -> Iterator[Difference]:
        """Each correction leads from one version of a figure to another, the last one to what is stored."""
        true = {date.fromisoformat(row["date"]): row for row in self._true("daily")}
        kept: dict[tuple[date, str], list[Row]] = defaultdict(list)
        for row in sorted(self._rows("account_corrections"), key=lambda one: one["read_at"]):
            kept[row["day"], row["field"]].append(row)
        for (day, name), rows in kept.items():
            versions = [true[day].get(name), *(each.get(name) for each in true[day]["versions"])] if day in true else []
            for row in rows:
                if row["old"] not in versions or row["new"] not in versions or row["old"] == row["new"]:
                    yield Difference("account_corrections", (day, name), "old, new", (row["old"], row["new"]), versions)
        corrected = {day for day, _ in kept}
        for row in self._rows("account_days"):
            expected = true.get(row["day"])
            if expected is None or not expected["settled"]:
                continue
            early = row["first_read_at"] < datetime.fromisoformat(expected["settled_at"]) - CLOCK_SLACK
            for name in DAILY:
                moved = early and expected["versions"] and expected["versions"][-1].get(name) != expected.get(name)
                last = kept.get((row["day"], name), [])
                if self.gaps and not last and row["day"] in corrected:
                    continue  # the first answer was spoilt there
                if moved and (not last or last[-1]["new"] != expected[name]):
                    yield Difference("account_corrections", (row["day"], name), "missing", NONE, expected[name])

    def _hours(self) -> Iterator[Difference]:
        true = {(date.fromisoformat(row["date"]), int(row["hour"])): row["count"] for row in self._true("activity")}
        settled = {day for day, _ in true}
        stored = {(row["day"], row["hour"]): row["active"] for row in self._rows("account_hours")}
        past = {key: value for key, value in stored.items() if key[0] in settled}
        yield from _values("account_hours", past, true)

    def _audience(self) -> Iterator[Difference]:
        read_on = {row["read_at"].date() for row in self._rows("account_counters")}
        true = {
            (date.fromisoformat(row["pull_date"]), KINDS[row["kind"]], row["label"]): row["percentage"]
            for row in self._true("audience")
        }
        true = {key: value for key, value in true.items() if key[0] in read_on}
        stored = {(row["pull_day"], row["kind"], row["label"]): row["share"] for row in self._rows("audience_shares")}
        if self.gaps:
            kinds = {(day, kind) for day, kind, _ in stored}
            true = {key: value for key, value in true.items() if key[:2] in kinds}
        yield from _values("audience_shares", stored, true)

    def _profile(self) -> Iterator[Difference]:
        rows = self._rows("account_profiles")
        if len(rows) != 1:
            yield Difference("account_profiles", (), "rows", len(rows), 1)
            return
        (row,), (true,) = rows, self._true("profile", now=rows[0]["read_at"].isoformat())
        yield from _same("account_profiles", (), row, true, PROFILE)
        yield from _end("account_profiles", (), row, "profile_image")
        if row["read_at"].date() != self.now.date():
            yield Difference("account_profiles", (), "read_at", row["read_at"], self.now.date())

    def _counters(self) -> Iterator[Difference]:
        """Counters move within the day, and the clocks of database and sandbox are not quite one."""
        for row in self._rows("account_counters"):
            ends = [
                self._true("profile", now=(row["read_at"] + slack).isoformat())[0]
                for slack in (-CLOCK_SLACK, CLOCK_SLACK)
            ]
            for name in ("followers_count", "total_likes", "videos_count", "following_count"):
                low, high = sorted(end[name] for end in ends)
                if not low <= row[name] <= high:
                    yield Difference("account_counters", (row["read_at"],), name, row[name], (low, high))

    def _videos(self) -> Iterator[Difference]:
        stored = {row["item_id"]: row for row in self._rows("videos")}
        seen = {item_id: str(row["last_seen_at"].date()) for item_id, row in stored.items()}
        true = {row["item_id"]: row for row in self._true("videos", seen=seen)}
        for item_id in stored.keys() - true.keys():
            yield Difference("videos", (item_id,), "row", "stored", NONE)
        for item_id, expected in true.items():
            created = _moment(expected["create_time"])
            row = stored.get(item_id)
            if row is None:
                if expected["public"] and self.now - created > timedelta(days=1):
                    yield Difference("videos", (item_id,), "row", NONE, "listed")
                continue
            yield from self._video(row, expected, created)

    def _video(self, row: Row, expected: Row, created: datetime) -> Iterator[Difference]:
        key = (row["item_id"],)
        names = ("media_type", "is_ad", "share_url", "embed_url", "caption", "thumbnail_url")
        yield from _same("videos", key, row, expected, names)
        yield from _end("videos", key, row, "thumbnail_url")
        if row["created_at"] != created:
            yield Difference("videos", key, "created_at", row["created_at"], created)
        last_activity = datetime.fromisoformat(expected["last_activity"])
        read_daily = last_activity + timedelta(days=9) - created <= timedelta(days=YOUNG_DAYS)
        for name in (*LISTED, *VIDEO_FIGURES):
            value = expected.get(name)
            # Fields that vanish from a video that is read once a week may have been read last before they stood.
            if name in VANISHING and not read_daily and value is not None and row[name] is not None:
                continue
            if row[name] != value:
                yield Difference("videos", key, name, row[name], value)
        yield from self._presence(row, expected, created)

    def _presence(self, row: Row, expected: Row, created: datetime) -> Iterator[Difference]:
        """Check when a video was seen last, and whether it is marked as vanished."""
        key = (row["item_id"],)
        pause = timedelta(days=1) if self.now - created <= timedelta(days=YOUNG_DAYS) else WEEK + timedelta(days=1)
        if expected["public"]:
            back = [datetime.fromisoformat(text) for text in (expected["hidden"] or ())][1:]
            fresh = self.now - row["last_seen_at"] <= pause + timedelta(days=1)
            if not fresh and not any(self.now - at <= pause + timedelta(days=1) for at in back):
                yield Difference("videos", key, "last_seen_at", row["last_seen_at"], self.now)
            if row["vanished_at"] is not None and fresh and not back:
                yield Difference("videos", key, "vanished_at", row["vanished_at"], None)
        elif expected["gone"] is not None:
            gone = datetime.fromisoformat(expected["gone"])
            if self.now - gone > WEEK + timedelta(days=2) and row["vanished_at"] is None:
                yield Difference("videos", key, "vanished_at", None, gone)
            if row["vanished_at"] is not None and row["vanished_at"] < gone - CLOCK_SLACK:
                yield Difference("videos", key, "vanished_at", row["vanished_at"], gone)

    def _readings(self) -> Iterator[Difference]:
        """Each reading is what TikTok showed on its day and nothing older, and no day of a young video is missing."""
        true = {(row["item_id"], date.fromisoformat(row["pull_date"])): row for row in self._true("video_readings")}
        stored = {(row["item_id"], row["pull_day"]): row for row in self._rows("video_readings")}
        read_on = {day for _, day in stored}
        for key, row in stored.items():
            if key not in true:
                yield Difference("video_readings", key, "row", "stored", NONE)
                continue
            for name in VIDEO_FIGURES:
                value = true[key].get(name)
                if row[name] != value and not (self.gaps and row[name] is None):
                    yield Difference("video_readings", key, name, row[name], value)
        created = {row["item_id"]: row["created_at"].date() for row in self._rows("videos") if row["created_at"]}
        for (item_id, day), row in true.items():
            before = true.get((item_id, day - timedelta(days=1)))
            young = item_id in created and (day - created[item_id]).days < YOUNG_DAYS
            changed = before is not None and any(
                row.get(name, 0) != before.get(name, 0) for name in ("video_views", "likes")
            )
            daily = day in read_on and day - timedelta(days=1) in read_on and day < self.now.date()
            if young and changed and daily and not self.gaps and (item_id, day) not in stored:
                yield Difference("video_readings", (item_id, day), "row", NONE, row.get("video_views"))

    def _video_shares(self) -> Iterator[Difference]:
        """The newest shares of each kind are those of their day."""
        stored: dict[tuple[str, str], dict[date, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in self._rows("video_shares"):
            stored[row["item_id"], row["kind"]][row["pull_day"]][row["label"]] = row["share"]
        newest = {key: max(days) for key, days in stored.items()}
        for day in set(newest.values()):
            seen = {item_id: str(day) for (item_id, _), last in newest.items() if last == day}
            true: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
            for row in self._true("video_shares", seen=seen):
                if row["item_id"] in seen and row["pull_date"] == str(day):
                    true[row["item_id"], KINDS[row["kind"]]][row["label"]] = row["percentage"]
            for key, last in newest.items():
                if last == day and stored[key][day] != true.get(key):
                    yield Difference("video_shares", (*key, day), "shares", stored[key][day], true.get(key))
        known = {row["item_id"] for row in self._rows("videos") if row["reach"]}
        for item_id in known - {item_id for item_id, kind in newest if kind == "source"}:
            yield Difference("video_shares", (item_id, "source"), "rows", NONE, "shares")

    def _curves(self) -> Iterator[Difference]:
        """Each curve is what TikTok showed on the last day on which its video was read, and none is missing."""
        seen = {row["item_id"]: str(row["last_seen_at"].date()) for row in self._rows("videos")}
        true: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
        for row in self._true("video_curves", seen=seen):
            true[row["item_id"], KINDS[row["kind"]]].append([int(row["second"]), row["percentage"]])
        stored = {(row["item_id"], row["kind"]): _points(row["points"]) for row in self._rows("video_curves")}
        for key, points in stored.items():
            if true.get(key, points) != points:
                yield Difference("video_curves", key, "points", points, true.get(key))
        known = {row["item_id"] for row in self._rows("videos") if row["video_views"] is not None}
        for item_id, kind in true:
            if item_id in known and (item_id, kind) not in stored:
                yield Difference("video_curves", (item_id, kind), "row", NONE, "a curve")

    def _comments(self) -> Iterator[Difference]:
        """Comments that are stored are right; those older than a week, on videos that are read, are all there."""
        stored = {row["comment_id"]: row for row in self._rows("video_comments")}
        if not stored:
            return
        true = {row["comment_id"]: row for row in self._true("comments")}
        known = {row["item_id"]: row["comments_read_at"] for row in self._rows("videos")}
        for comment_id, expected in true.items():
            row, created = stored.get(comment_id), _moment(expected["create_time"])
            read_at = known.get(expected["video_id"])
            if row is None:
                if read_at is not None and "parent_comment_id" not in expected and created < read_at - CLOCK_SLACK:
                    yield Difference("video_comments", (comment_id,), "row", NONE, expected["text"])
                continue
            yield from _same("video_comments", (comment_id,), row, expected, COMMENT)
            if (row["created_at"], row["item_id"]) != (created, expected["video_id"]):
                yield Difference("video_comments", (comment_id,), "created_at", row["created_at"], created)

    def _mentions(self) -> Iterator[Difference]:
        stored = {row["item_id"]: row for row in self._rows("mentions")}
        if not stored:
            return
        for expected in self._true("mentions"):
            item_id = expected["item_id"]
            if item_id in stored:
                names = ("caption", "video_link", "likes", "views", "reach", "creator_handle_name", "thumbnail_url")
                yield from _same("mentions", (item_id,), stored[item_id], expected, names)
            elif self.now - _moment(expected["create_time"]) > timedelta(days=2):
                yield Difference("mentions", (item_id,), "row", NONE, expected["caption"])

    def _benchmarks(self) -> Iterator[Difference]:
        true = {(row["business_category"], row["pull_date"]): row for row in self._true("benchmark")}
        for row in self.dump["benchmarks"]:
            key = (row["business_category"], str(row["pull_day"]))
            yield from _same("benchmarks", key, row, true[key], [name for name in row if name.startswith("average_")])
        stored = {(row["business_category"], str(row["pull_day"])) for row in self.dump["benchmarks"]}
        days = {str(row["read_at"].date()) for row in self._rows("account_counters")}
        for category in {category for category, _ in stored}:
            # It is read once a day, by whichever creator's pull is first, so the last day may lack it for an hour.
            for day in days - {str(self.now.date())}:
                if (category, day) not in stored:
                    yield Difference("benchmarks", (category, day), "row", NONE, "averages")


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(int(text), tz=_UTC)


_UTC: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00").tzinfo


def _points(text: str) -> list[list[float]]:
    return [[int(second), share] for second, share in json.loads(text)]


def _keys(table: str, stored: Iterable[Any], true: Iterable[Any]) -> Iterator[Difference]:
    stored, true = set(stored), set(true)
    for key in sorted(stored - true):
        yield Difference(table, (key,), "row", "stored", NONE)
    for key in sorted(true - stored):
        yield Difference(table, (key,), "row", NONE, "there")


def _values(table: str, stored: Mapping[Any, Any], true: Mapping[Any, Any]) -> Iterator[Difference]:
    for key in stored.keys() | true.keys():
        if stored.get(key, NONE) != true.get(key, NONE):
            yield Difference(table, key, "value", stored.get(key, NONE), true.get(key, NONE))


def _same(table: str, key: tuple[Any, ...], row: Row, true: Row, names: Iterable[str]) -> Iterator[Difference]:
    """Compare columns; addresses without their end, and an empty text is no other than none."""
    for name in names:
        stored, expected = row[name], true.get(name)
        if isinstance(stored, str) and "x-expires=" in stored:
            stored = stored.partition("?")[0]
        if (stored or None if isinstance(stored, str) else stored) != (
            expected or None if expected == "" else expected
        ):
            yield Difference(table, key, name, stored, expected)


def _end(table: str, key: tuple[Any, ...], row: Row, name: str) -> Iterator[Difference]:
    """Check that the end of a temporary address is that in the address."""
    end = _moment(row[name].rpartition("x-expires=")[2])
    if row[f"{name}_ends_at"] != end:
        yield Difference(table, key, f"{name}_ends_at", row[f"{name}_ends_at"], end)
