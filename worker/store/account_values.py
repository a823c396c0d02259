"""Values of account data that the store takes and hands out."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any, Final

from worker.store.values import PullClaim

ZLIB_LEVEL: Final = 6
EVERYTHING: Final = "*"
"""The field of a narrowing that stands for the whole resource."""


@dataclass(frozen=True)
class Doubt:
    """A value of an answer that was not taken over.

    Attributes:
        path: where it stood, with every index as `[]`.
        reason: one of a few words.
        example: the value as text, bounded and without a secret.
    """

    path: str
    reason: str
    example: str = ""


@dataclass(frozen=True)
class LabelledList:
    """A list of shares by label, or the points of a curve.

    Attributes:
        item_id: the video; None for the account's audience.
        kind: what is divided, such as `age`.
        points: label or second, and share.
        curve: True for a curve over seconds.
        whole: False if a point could not be read: such a list does not replace one that is stored.
    """

    item_id: str | None
    kind: str
    points: tuple[tuple[str | int, float], ...]
    curve: bool = False
    whole: bool = True

    @cached_property
    def text(self) -> str:
        """The points as JSON."""
        return json.dumps(self.points, separators=(",", ":"))


@dataclass(frozen=True)
class Progress:
    """How far the pull of one resource has come; see the table."""

    resource: str
    started_at: datetime | None = None
    whole: bool = False
    clean: bool = False
    target: str | None = None
    cursor: str | None = None
    pages: int = 0
    finished_at: datetime | None = None
    whole_at: datetime | None = None
    next_at: datetime | None = None
    failures: int = 0
    problem: str | None = None

    @property
    def is_open(self) -> bool:
        """True if a pass was begun and not finished."""
        return self.started_at is not None and (self.finished_at is None or self.finished_at < self.started_at)


@dataclass(frozen=True)
class AccountPage:
    """One answer, read and cleaned, on its way into the tables.

    Attributes:
        rows: rows by table, without the creator; columns that are not known are left out.
        raw: the answer as it came.
        keeps_raw: True to keep it; an answer with a doubt is kept all the same.
        requests: how many requests were spent on it.
        partial: True if TikTok said that the answer is not complete.
        unsure: the rows of which a value could not be read, each by its table and its key without the creator.
        progress: how the resource stands after this page.
        vanish: True if the list was read to its end without a doubt: what it did not hold has vanished.
        seen_twice: True if the pass before this one lacked most of what is known, too.
        target_done: the video or comment that was read to its end.
        snapshot: the fields as TikTok named them, for the table of snapshots; None for no snapshot.
    """

    call: str
    progress: Progress
    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    lists: Sequence[LabelledList] = ()
    doubts: Sequence[Doubt] = ()
    request_id: str | None = None
    raw: bytes | None = field(default=None, repr=False)
    keeps_raw: bool = False
    requests: int = 1
    partial: bool = False
    unsure: Collection[tuple[str, tuple[Any, ...]]] = frozenset()
    vanish: bool = False
    seen_twice: bool = False
    target_done: str | None = None
    snapshot: dict[str, Any] | None = None

    @cached_property
    def packed(self) -> bytes | None:
        """The raw answer, compressed."""
        return None if self.raw is None else zlib.compress(self.raw, ZLIB_LEVEL)

    def is_sure(self, table: str, *key: Any) -> bool:
        """Return True if all that this answer should say of a row could be read."""
        return not self.partial and (table, key) not in self.unsure

    def prepare(self) -> None:
        """Work out beforehand what costs time, so that no transaction is longer for it."""
        for each in self.lists:
            _ = each.text
        if self.keeps_raw:
            _ = self.packed


@dataclass(frozen=True)
class PageSaved:
    """What storing a page did.

    Attributes:
        claim: the claim with its new lease.
        progress: how the resource stands; with a doubt that only the store could find, its pass is not clean.
        rows: how many rows the answer brought.
        corrections: how many figures of settled days it changed.
        doubts: how many values went into quarantine.
        vanished: how many videos were marked as vanished.
        missing: how many were not, though they are missing: they are most of what is known.
    """

    claim: PullClaim
    progress: Progress
    rows: int = 0
    corrections: int = 0
    doubts: int = 0
    vanished: int = 0
    missing: int = 0


@dataclass(frozen=True)
class Narrowed:
    """A field that TikTok refuses for a creator; `fresh` while it is left out."""

    resource: str
    field: str
    scope: str | None
    code: int | None
    since: datetime
    again_at: datetime
    fresh: bool


@dataclass(frozen=True)
class AccountState:
    """What is known of a creator's account data before a pull.

    Attributes:
        progress: by resource.
        narrowed: the fields that TikTok refused.
        requests_today: requests that were sent on the current UTC day.
        unsettled: the oldest day whose figures do not stand yet and were not read today.
        days: the stored days that TikTok still has.
        standing: those of them whose figures stand.
        newest_video: when the newest video was posted.
        first_read_at: when the account was read first.
        now: the database's time.
    """

    progress: Mapping[str, Progress]
    narrowed: Sequence[Narrowed]
    requests_today: int
    unsettled: date | None
    days: frozenset[date]
    standing: frozenset[date]
    newest_video: datetime | None
    first_read_at: datetime | None
    now: datetime


@dataclass(frozen=True)
class AccountCosts:
    """What a resource cost on one UTC day, for all creators together."""

    day: date
    resource: str
    creators: int
    requests: int


@dataclass(frozen=True)
class LateResource:
    """A resource that waits, for one creator or many.

    Attributes:
        creators: for how many creators it is late.
        oldest_at: since when the oldest of them waits.
        failing: for how many of them the last try failed.
    """

    resource: str
    creators: int
    oldest_at: datetime
    failing: int
