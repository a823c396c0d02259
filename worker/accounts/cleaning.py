"""From an answer to rows: what fits its declaration is taken over, what does not becomes a doubt for the quarantine.

No value is guessed and none is lost without a trace. Missing is never zero: a value that is absent or null is left out.

One idea: what a value may look like, and what is said of one that does not, belong together.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

from worker.accounts.resources import Field, Kind, Listed, Part, Resource
from worker.policy import readings
from worker.store import Doubt, LabelledList
from worker.tiktok import OddNumber, ReadAnswer

OWNER_NAMES: Final = ("open_id", "business_id", "creator_id")
ENVELOPE: Final = frozenset({"cursor", "has_more", "total", "total_number", *OWNER_NAMES})
LARGEST: Final = 10**15
"""No account has a figure of this size."""
SHORT_DIGITS: Final = 16
LARGEST_SHARE: Final = 1.01
LARGEST_POINT: Final = 10.0
"""A curve may rise above 1, since viewers watch a part again."""
LONGEST_TEXT: Final = 20_000
LONGEST_ID: Final = 64
LONGEST_LABEL: Final = 200
LONGEST_NAME: Final = 60
MOST_DOUBTS: Final = 200
EXAMPLE: Final = 300
HOURS: Final = range(24)
EARLIEST: Final = datetime(2010, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
TWICE: Final = "twice with two values"
COUNTED: Final = frozenset({Kind.WHOLE, Kind.NUMBER})
NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE: Final = re.compile(r"[+-]?\d{1,16}(\.0+)?", re.ASCII)
CLOCKED: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", re.ASCII)


class AnotherAccountError(Exception):
    """The answer names another account than the one that was asked for."""


class _OddError(Exception):
    """A value that cannot be taken over; its text is the reason, of a few words."""


@dataclass
class Cleaned:
    """What an answer holds.

    Attributes:
        rows: rows by table.
        unsure: the rows of which a value could not be read, each by its table and its key.
        items: how many objects the lists held, good and bad.
        keyless: how many of them are no row, because what they are of could not be read.
        torn: how many lists of shares or points could not be read, or not all of them.
        missing: True if the answer lacks what it was asked for altogether.
        in_part: True if a list, or what says whether it goes on, could not be read: TikTok may have more than this.
        has_more: None if TikTok says neither that the list goes on nor that it ends here.
    """

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lists: list[LabelledList] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    unsure: set[tuple[str, tuple[Any, ...]]] = field(default_factory=set)
    items: int = 0
    keyless: int = 0
    torn: int = 0
    missing: bool = False
    in_part: bool = False
    has_more: bool | None = False
    cursor: int | None = None

    @property
    def is_lossy(self) -> bool:
        """True if a value, an object or a list could not be read."""
        return bool(self.unsure or self.keyless or self.torn)


class Cleaner:
    """Reads one answer by the declaration of its resource."""

    def __init__(
        self,
        resource: Resource,
        answer: ReadAnswer,
        *,
        creator_id: str,
        now: datetime,
        days: tuple[date, date] | None = None,
        target: str | None = None,
    ) -> None:
        """Keep the arguments.

        Args:
            resource: what was asked for.
            answer: what came.
            creator_id: the creator who was asked for.
            now: the database's time.
            days: the days that were asked for.
            target: the video or comment that was asked for.
        """
        self._resource = resource
        self._answer = answer
        self._creator_id = creator_id
        self._now = now
        self._days = days
        self._target = target
        self._spoilt = False
        self._out = Cleaned()

    def clean(self) -> Cleaned:
        """Return the rows and the doubts of the answer; an answer for another account brings doubts only."""
        data = self._answer.data
        if self._is_twice("data"):
            return Cleaned(doubts=[Doubt("data", TWICE, _shown(data))], missing=True)
        try:
            self._refuse_other_owner(data)
            for part in self._resource.parts:
                (self._objects if part.path else self._whole_answer)(part, data)
        except AnotherAccountError as error:
            self._out = Cleaned(doubts=[Doubt("data", "of another account", str(error))], missing=True)
            return self._out
        first = self._resource.parts[0].path
        self._out.missing = not self._is_list(first) if first else not self._out.rows
        self._unknown(data, "data", {part.path for part in self._resource.parts}, top=True)
        if self._resource.paging is not None:
            self._place(data)
        return self._out

    def _whole_answer(self, part: Part, data: dict[str, Any]) -> None:
        if row := self._row(part, data, "data"):
            self._out.rows.setdefault(part.table, []).append(row)
            if self._spoilt:
                self._out.unsure.add((part.table, tuple(row[name] for name in part.key)))

    def _objects(self, part: Part, data: dict[str, Any]) -> None:
        path, found = f"data.{part.path}[]", data.get(part.path)
        if not isinstance(found, list) or self._is_twice(part.path):
            if found is not None:
                self._doubt(f"data.{part.path}", TWICE if self._is_twice(part.path) else "not a list", found)
                self._out.in_part = True
            return
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for item in found:
            self._out.items += 1
            if not isinstance(item, dict):
                self._doubt(path, "not an object", item)
                self._out.keyless += 1
                continue
            self._refuse_other_owner(item)
            row = self._row(part, item, path)
            if row is None:
                continue
            key = tuple(row[name] for name in part.key)
            if rows.setdefault(key, row) != row:
                self._spoil(path, TWICE, item)
            if self._spoilt:
                self._out.unsure.add((part.table, key))
        if rows:
            self._out.rows.setdefault(part.table, []).extend(rows.values())

    def _row(self, part: Part, item: dict[str, Any], path: str) -> dict[str, Any] | None:
        """Return the row of an object, or None if its key is missing or wrong."""
        row: dict[str, Any] = {}
        lists: list[Field] = []
        self._spoilt = False
        for each in part.fields:
            value = item.get(each.name)
            if value is None:
                continue
            if self._is_twice(each.name):
                self._spoil(f"{path}.{each.name}", TWICE, value)
            elif each.kind in {Kind.LIST, Kind.HOURS}:
                lists.append(each)
            else:
                self._value(row, each, value, f"{path}.{each.name}")
        if part.path:
            self._unknown(item, path, {each.name for each in part.fields})
        if any(row.get(name) is None for name in part.key):
            if part.path or item:
                self._doubt(path, "no key", item)
                self._out.keyless += bool(part.path)
            return None
        if not self._asked_for(row, path):
            return None
        for each in lists:
            self._list(each, item[each.name], f"{path}.{each.name}", row)
        return row

    def _value(self, row: dict[str, Any], each: Field, value: Any, path: str) -> None:
        try:
            read = _READERS[each.kind](value)
            if each.kind in COUNTED and not each.signed:
                _refuse_negative(read)
            row[each.stored_as] = read
        except _OddError as odd:
            self._spoil(path, str(odd), value)
            return
        if each.kind is Kind.ADDRESS and (ends_at := readings.media_ends_at(row[each.stored_as], now=self._now)):
            row[f"{each.stored_as}_ends_at"] = ends_at

    def _asked_for(self, row: dict[str, Any], path: str) -> bool:
        """Return False for a day that was not asked for, or a comment of another video."""
        if self._days is not None and "day" in row and not self._days[0] <= row["day"] <= self._days[1]:
            self._doubt(f"{path}.date", "a day that was not asked for", row["day"].isoformat())
            return False
        if self._resource.per == "video" and row.setdefault("item_id", self._target) != self._target:
            self._doubt(f"{path}.video_id", "of another video", row["item_id"])
            return False
        if self._resource.per == "comment" and self._target is not None:
            item_id, _, comment_id = self._target.partition("/")
            row.setdefault("item_id", item_id)
            if row.setdefault("parent_comment_id", comment_id) != comment_id:
                self._doubt(f"{path}.parent_comment_id", "of another comment", row["parent_comment_id"])
                return False
        if self._resource.per == "category" and row.get("business_category") != self._target:
            self._doubt(f"{path}.business_category", "of another category", row.get("business_category"))
            return False
        return True

    def _list(self, each: Field, found: Any, path: str, row: dict[str, Any]) -> None:
        if not isinstance(found, list):
            (self._spoil if each.kind is Kind.HOURS else self._doubt)(path, "not a list", found)
            self._out.torn += 1
            return
        if each.kind is Kind.HOURS:
            self._hours(found, path, row["day"])
            return
        assert each.listed is not None  # noqa: S101 - every list of the declarations says how it is read
        points: dict[str | int, float] = {}
        whole = True
        for item in found:
            try:
                label, share = self._point(each.listed, item)
            except _OddError as odd:
                self._doubt(f"{path}[]", str(odd), item)
                whole = False
                continue
            if points.setdefault(label, share) != share:
                self._doubt(f"{path}[]", TWICE, item)
                whole = False
        self._out.torn += not whole
        if points:
            curve = each.listed.curve
            ordered = tuple(sorted(points.items()) if curve else points.items())
            kept = LabelledList(row.get("item_id"), each.listed.kind, ordered, curve=curve, whole=whole)
            self._out.lists.append(kept)

    @staticmethod
    def _point(listed: Listed, item: Any) -> tuple[str | int, float]:
        if not isinstance(item, dict):
            raise _OddError("not an object")
        share = _number(item.get(listed.value))
        if not 0 <= share <= (LARGEST_POINT if listed.curve else LARGEST_SHARE):
            raise _OddError("a share out of bounds")
        label = item.get(listed.label)
        if listed.curve:
            second = _whole(label)
            if second < 0:
                raise _OddError("a second before the first")
            return second, share
        return _text(label)[:LONGEST_LABEL], share

    def _hours(self, found: Iterable[Any], path: str, day: date) -> None:
        rows: dict[int, dict[str, Any]] = {}
        for item in found:
            try:
                hour, count = _hour(item)
            except _OddError as odd:
                self._spoil(f"{path}[]", str(odd), item)
                continue
            row = {"day": day, "hour": hour, "active": count}
            if rows.setdefault(hour, row) != row:
                self._spoil(f"{path}[]", TWICE, item)
        self._out.rows.setdefault("account_hours", []).extend(rows.values())

    def _place(self, data: dict[str, Any]) -> None:
        more = None if self._is_twice("has_more") else data.get("has_more")
        if isinstance(more, bool):
            self._out.has_more = more
        else:
            self._out.has_more, self._out.in_part = None, True
            self._doubt("data.has_more", "not yes or no", data.get("has_more"))
        cursor = None if self._is_twice("cursor") else data.get("cursor")
        if cursor is not None:
            try:
                self._out.cursor = _whole(cursor)
            except _OddError as odd:
                self._doubt("data.cursor", str(odd), cursor)

    def _is_twice(self, name: str) -> bool:
        """Return True if a name came twice with two values: it means neither."""
        return name in self._answer.repeated

    def _is_list(self, name: str) -> bool:
        return isinstance(self._answer.data.get(name), list) and not self._is_twice(name)

    def _refuse_other_owner(self, found: dict[str, Any]) -> None:
        for name in OWNER_NAMES:
            named = found.get(name)
            if isinstance(named, str | int) and not isinstance(named, bool) and str(named) != self._creator_id:
                raise AnotherAccountError(str(named)[:LONGEST_ID])

    def _unknown(self, found: dict[str, Any], path: str, lists: set[str], *, top: bool = False) -> None:
        known = set(lists) | ENVELOPE | self._resource.names
        if top:
            known |= {each.name for part in self._resource.parts for each in part.fields if not part.path}
        for name, value in found.items():
            if name not in known:
                self._doubt(f"{path}.{name[:LONGEST_NAME]}", "an unknown field", value)

    def _spoil(self, path: str, reason: str, value: Any) -> None:
        """Note a value of the present row that could not be read."""
        self._spoilt = True
        self._doubt(path, reason, value)

    def _doubt(self, path: str, reason: str, value: Any) -> None:
        doubt = Doubt(path, reason, _shown(value))
        # A counter goes to two tables, and is one doubt.
        if len(self._out.doubts) < MOST_DOUBTS and ("[]" in path or doubt not in self._out.doubts):
            self._out.doubts.append(doubt)


def _shown(value: Any) -> str:
    if isinstance(value, OddNumber):
        return value.text
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=_odd_text, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "nested too deeply"
    return text[:EXAMPLE]


def _odd_text(value: Any) -> str:
    return value.text if isinstance(value, OddNumber) else type(value).__name__


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _OddError("not a text")
    if len(value) > LONGEST_TEXT:
        raise _OddError("too long a text")
    return value


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.strip()) <= LONGEST_ID:
        raise _OddError("not an id")
    return value.strip()


def _whole(value: Any) -> int:
    if type(value) is str and len(value) < SHORT_DIGITS and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, OddNumber):
        raise _OddError("an absurd number")
    if isinstance(value, str) and WHOLE.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _OddError("not a whole number")
    if abs(value) >= LARGEST:
        raise _OddError("an absurd number")
    return value


def _number(value: Any) -> float:
    if type(value) is float and -LARGEST < value < LARGEST:
        return value
    if isinstance(value, OddNumber):
        raise _OddError("an absurd number")
    if isinstance(value, str) and len(value) <= LONGEST_ID:
        if NUMBER.fullmatch(value) is None:
            raise _OddError("not a number")
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _OddError("not a number")
    if not math.isfinite(value) or abs(value) >= LARGEST:
        raise _OddError("an absurd number")
    return float(value)


def _refuse_negative(value: Any) -> None:
    if value < 0:
        raise _OddError("below zero")


def _hour(item: Any) -> tuple[int, int]:
    if not isinstance(item, dict):
        raise _OddError("not an object")
    hour = _whole(item.get("hour"))
    if hour not in HOURS:
        raise _OddError("no hour of a day")
    count = _whole(item.get("count"))
    _refuse_negative(count)
    return hour, count


def _share(value: Any) -> float:
    number = _number(value)
    if not 0 <= number <= LARGEST_SHARE:
        raise _OddError("a share out of bounds")
    return number


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise _OddError("not yes or no")


def _epoch(value: Any) -> datetime:
    if isinstance(value, str) and CLOCKED.fullmatch(value):
        try:
            at = datetime.fromisoformat(value).replace(tzinfo=UTC)
        except ValueError:
            raise _OddError("not an instant") from None
    else:
        try:
            at = datetime.fromtimestamp(_whole(value), UTC)
        except (_OddError, ValueError, OverflowError, OSError):
            raise _OddError("not an instant") from None
    if not EARLIEST <= at < LATEST:
        raise _OddError("an absurd instant")
    return at


def _day(value: Any) -> date:
    try:
        return date.fromisoformat(_text(value)[:10])
    except ValueError:
        raise _OddError("not a day") from None


_READERS: Final = {
    Kind.TEXT: _text,
    Kind.ADDRESS: _text,
    Kind.ID: _id,
    Kind.WHOLE: _whole,
    Kind.NUMBER: _number,
    Kind.SHARE: _share,
    Kind.FLAG: _flag,
    Kind.EPOCH: _epoch,
    Kind.DAY: _day,
}


def without_odd(value: Any) -> Any:
    """Return a value of an answer as JSON can hold it: numbers that cannot be represented become None."""
    if isinstance(value, OddNumber):
        return None
    if isinstance(value, dict):
        return {name: without_odd(inner) for name, inner in value.items()}
    return [without_odd(inner) for inner in value] if isinstance(value, list) else value
