"""Account data over time: which days to read, when figures stand, how deep the list of videos is read; pure.

TikTok computes a day's figures 24 to 48 hours after it, keeps 60 days, and stops counting a video 365 days after it
was posted. All days are UTC days.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final

LOOK_BACK_DAYS: Final = 60
"""The oldest day that TikTok gives."""
PROVISIONAL_DAYS: Final = 3
"""Figures of days younger than this may change whatever they say."""
AGAIN_DAYS: Final = 7
"""All days that TikTok still has are read again at this interval, in days: late corrections and holes."""
RETRY_HOLES_DAYS: Final = 14
"""A day that never came is asked for on every pull up to this age, later only with all others."""
YOUNG_DAYS: Final = 30
"""Videos up to this age are read every day, older ones when the whole list is read."""
LIVE_DAYS: Final = 365
"""TikTok counts nothing for a video after this age."""
FRESH_DAYS: Final = 7
"""While a creator has a video younger than this, videos are read twice a day."""
DAY: Final = timedelta(days=1)
BEFORE_MIDNIGHT: Final = timedelta(hours=2)
"""No daily slot is in this last part of a UTC day: a pull that is late by less still reads the day that it is for."""
LATE_PULL_SECONDS: Final = 6 * 3600.0
"""A resource that has been due for longer than this is late."""
LONGEST_MEDIA_LIFE: Final = timedelta(days=400)
X_EXPIRES: Final = re.compile(r"[?&]x-expires=(\d{9,11})(?:&|$)", re.ASCII)
NET_SHARE: Final = 0.2
TOTAL_SHARE: Final = 0.8


class Meaning(StrEnum):
    """What a contested figure is on the live API."""

    TOTAL = "running total"
    NET = "net of the day"
    UNKNOWN = "not known"


def first_day(*, today: date, whole: bool, unsettled: date | None, known: Iterable[date]) -> date:
    """Return the first day to ask for; the last one is always yesterday.

    Args:
        today: the day of the pull.
        whole: True for every day that TikTok has: a first pull, or the weekly look at all.
        unsettled: the oldest stored day whose figures do not stand yet.
        known: the stored days; a recent day that is not among them is asked for again.
    """
    earliest = today - timedelta(days=LOOK_BACK_DAYS)
    if whole:
        return earliest
    have = set(known)
    recent = (today - timedelta(days=age) for age in range(RETRY_HOLES_DAYS, 0, -1))
    hole = next((day for day in recent if day not in have), today - timedelta(days=1))
    # At least the provisional days: a day that settled early may still be corrected.
    wanted = min(unsettled or hole, hole, today - timedelta(days=PROVISIONAL_DAYS))
    return max(earliest, wanted)


def windows(first: date, last: date, longest: int) -> list[tuple[date, date]]:
    """Cut a span of days into spans of at most `longest` days, oldest first."""
    found = []
    while first <= last:
        end = min(last, first + timedelta(days=longest - 1))
        found.append((first, end))
        first = end + timedelta(days=1)
    return found


def is_computed(day: date, figures: Mapping[str, Any], *, read_on: date) -> bool:
    """Return False for a row that TikTok sent before it had computed the day: a recent one with nothing but zeros."""
    known = [value for value in figures.values() if value is not None]
    return bool(known) and ((read_on - day).days >= PROVISIONAL_DAYS or any(known))


def is_settled(day: date, *, read_on: date, read_before: date | None, changed: bool) -> bool:
    """Return True if a day's figures stand.

    They do when the day is three days old and a reading of another day, from when it was that old, brought the same.

    Args:
        day: the day of the figures.
        read_on: the day of this reading.
        read_before: the day of the reading before; None if there was none.
        changed: True if this reading changed a figure.
    """
    old_enough = day + timedelta(days=PROVISIONAL_DAYS)
    return not changed and read_before is not None and old_enough <= read_before < read_on


def is_live(created_at: datetime | None, *, now: datetime) -> bool:
    """Return True if TikTok still counts a video's figures; an unknown age counts as live."""
    return created_at is None or now - created_at <= timedelta(days=LIVE_DAYS)


def is_young(created_at: datetime | None, *, now: datetime) -> bool:
    """Return True for a video whose figures are read every day."""
    return created_at is not None and now - created_at <= timedelta(days=YOUNG_DAYS)


def reads_whole_list(whole_at: datetime | None, *, now: datetime) -> bool:
    """Return True if the list of videos is to be read to its end: on the seventh day, at whatever time of it."""
    return whole_at is None or (now.date() - whole_at.date()).days >= AGAIN_DAYS


def video_pause(newest: datetime | None, *, now: datetime) -> timedelta:
    """Return how long the list of videos rests after a pass."""
    fresh = newest is not None and now - newest <= timedelta(days=FRESH_DAYS)
    return DAY / 2 if fresh else DAY


def next_slot(now: datetime, *, anchor: datetime, pause: timedelta) -> datetime:
    """Return when a resource is read again: once in each UTC day, or in each half of it, at the creator's own time.

    The slot depends on no earlier reading, so that delays do not add up until a day is left out. Whoever comes in the
    last part of a day gets a slot earlier in the day, spread as widely as the others.

    Args:
        now: the time of this reading, in UTC.
        anchor: whose time of the day is the creator's own: the first reading.
        pause: the length of the parts of a day of which each has a reading: a day, or half of one.
    """
    own, last = anchor - _midnight(anchor), DAY - BEFORE_MIDNIGHT
    if own >= last:
        own = (own - last) * (last / BEFORE_MIDNIGHT)
    midnight = _midnight(now)
    return midnight + ((now - midnight) // pause + 1) * pause + own % pause


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.date(), time.min, at.tzinfo)


def media_ends_at(url: str, *, now: datetime) -> datetime | None:
    """Return when a temporary address ends, from its own `x-expires`; None if it does not say or says nonsense."""
    found = X_EXPIRES.search(url)
    if found is None:
        return None
    at = datetime.fromtimestamp(int(found[1]), UTC)
    return at if abs(at - now) <= LONGEST_MEDIA_LIFE else None


def meaning_of_total(daily: Sequence[tuple[int | None, int | None, int | None, int | None]]) -> Meaning:
    """Say what a daily number of followers is: the total on that day, or the net of the day.

    Args:
        daily: for each day the contested figure, the account's counter, new followers and lost followers.
    """
    net = total = 0
    for figure, counter, new, lost in daily:
        if figure is None:
            continue
        if new is not None and lost is not None and figure == new - lost and (not counter or figure < counter * 0.5):
            net += 1
        elif counter and figure >= counter * TOTAL_SHARE:
            total += 1
        elif counter and abs(figure) <= counter * NET_SHARE:
            net += 1
    if net == total:
        return Meaning.UNKNOWN
    return Meaning.NET if net > total else Meaning.TOTAL
