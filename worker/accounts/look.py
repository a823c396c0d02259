"""What is known of one creator's account: the same figures for the terminal, for pictures and for the desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from worker.store import Store

DAYS: Final = 60
TOP: Final = 10


@dataclass(frozen=True)
class Day:
    """A UTC day of an account.

    Attributes:
        followers: the counter as the day's last reading had it; None if none was read that day.
        figures: the day's row of `account_days`; empty if there is none.
    """

    day: date
    followers: int | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def figure(self, name: str) -> int | None:
        """Return a figure of the day, or None if it is not known."""
        found: int | None = self.figures.get(name)
        return found

    @property
    def net_followers(self) -> int | None:
        """New followers minus lost ones; None unless both are known."""
        new, lost = self.figure("daily_new_followers"), self.figure("daily_lost_followers")
        return None if new is None or lost is None else new - lost

    @property
    def is_provisional(self) -> bool:
        """True if the day has figures that may still change."""
        return bool(self.figures) and not self.figures["settled"]


def look(store: Store, creator_id: str, *, days: int = DAYS, top: int = TOP) -> dict[str, Any]:
    """Return what is known of a creator, as types of JSON know it; instants are `datetime`.

    Args:
        store: the database.
        creator_id: whose account.
        days: figures and readings are of the newest so many days.
        top: most videos, and most kinds of values in quarantine.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    return {
        "profile": _plain(store.profile(creator_id)),
        "days": [_plain(row) for row in store.days_of(creator_id, limit=days)],
        "counters": [_plain(row) for row in store.counters_of(creator_id, days=days)],
        "videos": [_plain(row) for row in store.top_videos(creator_id, limit=top)],
        "resources": [asdict(each) for each in store.progress_of(creator_id)],
        "refused": [asdict(each) for each in store.narrowed_of(creator_id)],
        "quarantine": [_plain(row) for row in store.quarantine_of(creator_id, limit=top)],
    }


def calendar(found: Mapping[str, Any], *, days: int = DAYS) -> list[Day]:
    """Return every day up to the newest with a figure or a reading, oldest first; a day without either is among them.

    Args:
        found: what `look` returned.
        days: most days.
    """
    figures = {date.fromisoformat(row["day"]): row for row in found["days"]}
    followers = {
        row["read_at"].astimezone(UTC).date(): row["followers_count"]
        for row in found["counters"]
        if row["followers_count"] is not None
    }
    known = figures.keys() | followers.keys()
    if not known:
        return []
    last = max(known)
    first = max(min(known), last - timedelta(days=days - 1))
    every = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [Day(day, followers.get(day), figures.get(day, {})) for day in every]


def _plain(row: Any) -> Any:
    if row is None:
        return None
    return {
        name: value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value
        for name, value in row._mapping.items()  # noqa: SLF001 - SQLAlchemy's public name for a row's values
        if name != "digests"
    }
