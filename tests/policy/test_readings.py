"""Which days are read, when they stand, and how lists and addresses are judged; all pure."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta

import pytest

from worker.policy import readings
from worker.policy.readings import Meaning

TODAY = date(2026, 11, 27)
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def back(days: int) -> date:
    """Return a day before today."""
    return TODAY - timedelta(days=days)


EVERY = frozenset(back(age) for age in range(1, 61))


@pytest.mark.parametrize(
    ("whole", "unsettled", "known", "first"),
    [
        pytest.param(True, None, frozenset(), 60, id="first pull"),
        pytest.param(False, None, EVERY, 3, id="all stand"),
        pytest.param(False, back(9), EVERY, 9, id="oldest unsettled"),
        pytest.param(False, None, EVERY - {back(8)}, 8, id="a hole"),
        pytest.param(False, back(20), EVERY - {back(8)}, 20, id="both"),
        pytest.param(False, None, EVERY - {back(30)}, 3, id="an old hole waits for the weekly look"),
        pytest.param(False, back(200), EVERY, 60, id="never before what TikTok has"),
        pytest.param(False, None, frozenset(back(age) for age in range(12, 61)), 11, id="an outage of eleven days"),
    ],
)
def test_the_first_day_reaches_back_to_what_is_not_certain(
    whole: bool, unsettled: date | None, known: frozenset[date], first: int
) -> None:
    """Every unsettled day and every recent hole is in the span; an outage loses nothing within 60 days."""
    assert readings.first_day(today=TODAY, whole=whole, unsettled=unsettled, known=known) == back(first)


@pytest.mark.parametrize(("days", "longest", "spans"), [(60, 60, 1), (60, 30, 2), (60, 7, 9), (1, 60, 1), (0, 60, 0)])
def test_spans_cover_every_day_once(days: int, longest: int, spans: int) -> None:
    """A shorter span costs more requests and loses no day."""
    found = readings.windows(back(days), back(1), longest)

    assert len(found) == spans
    covered = [start + timedelta(days=n) for start, end in found for n in range((end - start).days + 1)]
    assert covered == [back(age) for age in range(days, 0, -1)]


@pytest.mark.parametrize(
    ("age", "before", "changed", "settled"),
    [
        (3, 0, False, False),  # the first reading when it is old enough
        (4, 1, False, True),
        (4, 1, True, False),
        (4, 2, False, False),  # the reading before was of a provisional day
        (40, None, False, False),
        (40, 1, False, True),
        (4, 0, False, False),  # two readings of one day prove nothing
    ],
)
def test_a_day_stands_when_two_late_readings_agree(age: int, before: int | None, changed: bool, settled: bool) -> None:
    """Three days old at the reading before, read again on another day, and not changed."""
    read_before = None if before is None else back(before)
    assert readings.is_settled(back(age), read_on=TODAY, read_before=read_before, changed=changed) is settled


@pytest.mark.parametrize(
    ("age", "figures", "computed"),
    [
        (1, {"likes": 0, "views": 0}, False),
        (2, {"likes": None}, False),
        (2, {"likes": 0, "views": 3}, True),
        (3, {"likes": 0, "views": 0}, True),
        (9, {}, False),
    ],
)
def test_zeros_of_a_day_that_is_not_computed_are_no_figures(
    age: int, figures: dict[str, int | None], computed: bool
) -> None:
    """Missing is never zero, and zero of an old day is zero."""
    assert readings.is_computed(back(age), figures, read_on=TODAY) is computed


@pytest.mark.parametrize(
    ("url", "ends_at"),
    [
        ("https://p16.example/a?x-expires=1795867200&sig=b", datetime.fromtimestamp(1795867200, UTC)),
        ("https://p16.example/a?sig=b", None),
        ("https://p16.example/a?x-expires=1", None),
        ("https://p16.example/a?x-expires=99999999999", None),
        ("https://p16.example/a?y-x-expires=1795867200", None),
    ],
)
def test_the_end_of_an_address_is_its_own(url: str, ends_at: datetime | None) -> None:
    """Nothing assumes 24 or 48 hours."""
    assert readings.media_ends_at(url, now=NOW) == ends_at


@pytest.mark.parametrize(
    ("daily", "meaning"),
    [
        ([(1000, 1010, 5, 2)] * 3, Meaning.TOTAL),
        ([(3, 1010, 5, 2)] * 3, Meaning.NET),
        ([(4, 1124, None, None)], Meaning.NET),
        ([(None, 1010, 5, 2)], Meaning.UNKNOWN),
        ([], Meaning.UNKNOWN),
        ([(1000, 1010, 5, 2), (3, 1010, 5, 2)], Meaning.UNKNOWN),
        ([(500, 1010, 5, 2)], Meaning.UNKNOWN),
    ],
)
def test_a_contested_figure_is_judged_by_what_it_is_near(
    daily: list[tuple[int | None, int | None, int | None, int | None]], meaning: Meaning
) -> None:
    """Near the counter it is a total, equal to new minus lost it is the net; a draw says nothing."""
    assert readings.meaning_of_total(daily) is meaning


def test_old_videos_are_not_counted_and_young_ones_are_read_often() -> None:
    """Day 365 is the last, day 30 the last of the young ones, and a fresh video halves the pause."""
    assert readings.is_live(NOW - timedelta(days=365), now=NOW)
    assert not readings.is_live(NOW - timedelta(days=366), now=NOW)
    assert readings.is_young(NOW - timedelta(days=30), now=NOW)
    assert not readings.is_young(NOW - timedelta(days=31), now=NOW)
    assert not readings.is_young(None, now=NOW)
    assert readings.video_pause(NOW - timedelta(days=1), now=NOW) == timedelta(hours=12)
    assert readings.video_pause(None, now=NOW) == timedelta(days=1)
    assert readings.reads_whole_list(None, now=NOW)
    assert not readings.reads_whole_list(NOW - timedelta(days=6), now=NOW)
    assert readings.reads_whole_list(NOW - timedelta(days=7) + timedelta(minutes=1), now=NOW)


@pytest.mark.parametrize("pause", [timedelta(days=1), timedelta(hours=12)])
@pytest.mark.parametrize("first", ["00:00:00", "08:30:00", "12:00:00", "21:59:59", "22:00:00", "23:59:59"])
def test_delays_leave_no_part_of_a_day_out_and_move_no_slot(first: str, pause: timedelta) -> None:
    """Over 400 days, each pull late by up to nearly two hours, every day has as many readings as it has parts."""
    anchor = at = datetime.fromisoformat(f"2026-01-01T{first}+00:00")
    draw = random.Random(first)  # noqa: S311 - repeatable on purpose
    read, slots = Counter[date](), set()
    while at < anchor + timedelta(days=400):
        at = readings.next_slot(at, anchor=anchor, pause=pause)
        slots.add(at.time())
        at += timedelta(seconds=draw.random() * 7190) * (at.time() < time(22))
        read[at.date()] += 1

    assert len(slots) == timedelta(days=1) / pause
    whole_days = [read[anchor.date() + timedelta(days=day)] for day in range(1, 400)]
    assert set(whole_days) == {len(slots)}


def test_an_early_pull_is_the_reading_of_its_day() -> None:
    """Somebody who pulls before the day's slot saves that one, and the slot of the next day stays where it was."""
    anchor = NOW - timedelta(days=30)

    slots = [readings.next_slot(NOW + timedelta(hours=by), anchor=anchor, pause=readings.DAY) for by in (-11, 0, 11)]

    assert slots == [NOW + timedelta(days=1)] * 3


def test_a_fleet_stays_spread_over_the_day() -> None:
    """Creators who came at any minute of a day have slots that no hour has many more of than another."""
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    anchors = [midnight + timedelta(minutes=minute) for minute in range(1440)]

    slots = [readings.next_slot(NOW, anchor=anchor, pause=readings.DAY) for anchor in anchors]

    assert {slot.date() for slot in slots} == {TODAY + timedelta(days=1)}
    hours = Counter(slot.hour for slot in slots)
    assert set(hours) == set(range(22))
    assert 64 <= min(hours.values()) <= max(hours.values()) <= 67
