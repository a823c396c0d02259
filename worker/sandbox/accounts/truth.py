"""What a complete database must hold of an account: settled figures, and what can be known of each post.

The rows are plain: dates and moments are ISO texts in UTC, names are TikTok's. Addresses of images lack their end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from worker.sandbox.accounts import comments, days, surroundings, videos
from worker.sandbox.accounts.days import (
    ACTIVITY,
    AUDIENCES,
    LABELS,
    Calendar,
    date_of,
    day_of,
    number_of,
    text_of_moment,
)
from worker.sandbox.accounts.traits import CATEGORIES, DAY_SECONDS, Account
from worker.sandbox.accounts.videos import CURVES, FIELDS, SHARES

MOST_DAYS: Final = 1_000
FIGURES: Final = tuple(name for name in FIELDS if name not in (*CURVES, *SHARES))

Row = dict[str, Any]


class TruthError(ValueError):
    """A question cannot be answered; the text is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about one account.

    Attributes:
        account: the account.
        calendar: how figures come and what they mean.
        since: the first day on which somebody read the account, in days since 1970.
        now: seconds since 1970.
        seen: the last day on which each post was read, by its id; the day of `now` for posts that are not named.
    """

    account: Account
    calendar: Calendar
    since: int
    now: float
    seen: Mapping[str, int] = field(default_factory=dict)

    def all_days(self) -> range:
        """Return the days on which the account was read."""
        return range(self.since, day_of(self.now) + 1)


def profile(asked: Question) -> list[Row]:
    """Return the profile and the counters at this moment."""
    count = videos.public_videos(asked.account, asked.now)
    found = days.profile_now(asked.account, asked.now, videos=count)
    return [found | {"profile_image": _without_end(found["profile_image"])}]


def daily(asked: Question) -> list[Row]:
    """Return each day that a reader has seen since 60 days before the first read.

    `settled` is false while its figures may be corrected, `settled_at` is when they begin to stand, and `versions` are
    the figures that it had before, oldest first.
    """
    account, calendar = asked.account, asked.calendar
    found = []
    for day in range(max(account.analytics_from, asked.since - 60), day_of(asked.now)):
        if days.never_comes(account, day) or asked.now < days.first_figures_at(account, day, calendar):
            continue
        to_come = days.corrections_to_come(account, day, asked.now, calendar)
        first = days.corrections_to_come(account, day, days.first_figures_at(account, day, calendar), calendar)
        row, *versions = [
            _figures(days.figures_of(account, day, to_come=left, calendar=calendar))
            for left in (to_come, *range(first, to_come, -1))
        ]
        settled = {"settled": not to_come, "settled_at": text_of_moment(days.settled_at(account, day, calendar))}
        found.append({"date": date_of(day).isoformat(), **row, **settled, "versions": versions})
    return found


def activity(asked: Question) -> list[Row]:
    """Return the followers active in each hour of each settled day."""
    found = []
    for row in daily(asked):
        if row["settled"]:
            day = number_of(date.fromisoformat(row["date"]))
            figures = days.figures_of(asked.account, day, to_come=0, calendar=asked.calendar)
            found += [{"date": row["date"], **one} for one in figures.get(ACTIVITY, ())]
    return found


def audience(asked: Question) -> list[Row]:
    """Return the shares of the audience on each day of the span, as a read on that day brings them."""
    return [
        {"pull_date": date_of(day).isoformat(), **share}
        for day in asked.all_days()
        for share in _shares(days.shown_audience(asked.account, day * DAY_SECONDS), AUDIENCES)
    ]


def posts(asked: Question) -> list[Row]:
    """Return each post that was listed in the span, with the last value of each field that a read could bring.

    `public` says whether it is listed now, `gone` when it is deleted, and `hidden` from when to when it is hidden.
    """
    found = []
    for one in _listed(asked):
        last = asked.seen.get(one.item_id, day_of(asked.now))
        row: Row = {}
        for day in range(asked.since, last + 1):
            moment = _public_moment(asked, one, day)
            if moment is not None:
                row |= videos.shown_video(asked.account, one, moment, frozenset(FIGURES))
        if row:
            row["thumbnail_url"] = _without_end(row["thumbnail_url"])
            found.append(row | _ends(one, asked.now))
    return found


def post_readings(asked: Question) -> list[Row]:
    """Return the figures of each listed post on each day of the span, as a read on that day brings them."""
    wanted = frozenset(FIGURES) - frozenset(videos.REAL_TIME) | {"item_id"}
    return [
        {"pull_date": date_of(day).isoformat(), **videos.shown_video(asked.account, one, moment, wanted)}
        for one in _listed(asked)
        for day in asked.all_days()
        if (moment := _public_moment(asked, one, day)) is not None
    ]


def post_shares(asked: Question) -> list[Row]:
    """Return the shares of each post's audience on the last day on which it was read."""
    found = []
    for one in _listed(asked):
        moment = _last_moment(asked, one)
        if moment is not None:
            shown = videos.shown_video(asked.account, one, moment, frozenset(SHARES))
            as_of = date_of(day_of(moment)).isoformat()
            found += [{"item_id": one.item_id, "pull_date": as_of, **share} for share in _shares(shown, SHARES)]
    return found


def post_curves(asked: Question) -> list[Row]:
    """Return the points of each post's curves on the last day on which it was read."""
    found = []
    for one in _listed(asked):
        moment = _last_moment(asked, one)
        if moment is not None:
            for kind, points in videos.shown_video(asked.account, one, moment, frozenset(CURVES)).items():
                found += [{"item_id": one.item_id, "kind": kind, **point} for point in points]
    return found


def post_comments(asked: Question) -> list[Row]:
    """Return the comments and replies that are listed now on posts that are."""
    found: list[Row] = []
    for one in _listed(asked):
        if one.is_public(asked.now):
            for each in comments.comments_at(asked.account, one, asked.now):
                listed = [each, *(comments.replies_at(asked.account, each, asked.now) if not each.hidden else ())]
                found += [comments.shown_comment(comment, asked.account, asked.now) for comment in listed]
    return [row | {"profile_image": _without_end(row["profile_image"])} for row in found]


def mentions(asked: Question) -> list[Row]:
    """Return the posts of others that mention the account, of the last thirty days."""
    found = surroundings.mentions_at(asked.account, asked.now, 30)
    return [row | {"thumbnail_url": _without_end(row["thumbnail_url"])} for row in found]


def benchmark(asked: Question) -> list[Row]:
    """Return the averages of every category on each day of the span; they are the same for all accounts."""
    return [
        {"pull_date": date_of(day).isoformat(), **surroundings.benchmark(asked.account.seed, category, day)}
        for day in asked.all_days()
        for category in CATEGORIES
    ]


TABLES: Final[dict[str, Callable[[Question], list[Row]]]] = {
    "profile": profile,
    "daily": daily,
    "activity": activity,
    "audience": audience,
    "videos": posts,
    "video_readings": post_readings,
    "video_shares": post_shares,
    "video_curves": post_curves,
    "comments": post_comments,
    "mentions": mentions,
    "benchmark": benchmark,
}
"""What can be asked, by name."""


def answer(account: Account, calendar: Calendar, asked: dict[str, Any], now: float) -> list[Row]:
    """Answer a question.

    Args:
        account: the account.
        calendar: how figures come and what they mean.
        asked: `table`, and as far as wanted `since`, `now` and `seen`, with dates and moments as ISO texts.
        now: the sandbox's clock, in seconds since 1970.

    Raises:
        TruthError: the question is not understood.
    """
    if unknown := asked.keys() - {"table", "since", "now", "seen"}:
        raise TruthError(f"truth: {', '.join(sorted(unknown))} not known; there are table, since, now, seen")
    table = TABLES.get(asked.get("table", ""))
    if table is None:
        raise TruthError(f"table: there are {', '.join(TABLES)}")
    try:
        moment = datetime.fromisoformat(asked["now"]).timestamp() if "now" in asked else now
        since = number_of(date.fromisoformat(asked["since"])) if "since" in asked else day_of(moment)
        seen = {name: number_of(date.fromisoformat(text)) for name, text in asked.get("seen", {}).items()}
    except ValueError as error:
        raise TruthError(f"since, now, seen: {error}") from None
    if not 0 <= day_of(moment) - since <= MOST_DAYS:
        raise TruthError(f"since: at most {MOST_DAYS} days before now")
    return table(Question(account, calendar, since, moment, seen))


def _figures(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != ACTIVITY}


def _shares(shown: Row, names: tuple[str, ...]) -> list[Row]:
    return [
        {"kind": name, "label": share[LABELS[name]], "percentage": share["percentage"]}
        for name in names
        for share in shown.get(name, ())
    ]


def _listed(asked: Question) -> list[videos.Video]:
    """Return the posts that were listed on some day of the span."""
    account = asked.account
    every = (videos.video(account, number) for number in range(videos.posted_by(account, asked.now)))
    return [one for one in every if any(_public_moment(asked, one, day) is not None for day in asked.all_days())]


def _public_moment(asked: Question, one: videos.Video, day: int) -> float | None:
    """Return a moment of a day, up to now, at which a post is listed; None if it is not."""
    moments = (max(day * DAY_SECONDS, one.created), min((day + 1) * DAY_SECONDS - 1, asked.now))
    return next((moment for moment in moments if one.is_public(moment)), None)


def _last_moment(asked: Question, one: videos.Video) -> float | None:
    last = asked.seen.get(one.item_id, day_of(asked.now))
    moments = (_public_moment(asked, one, day) for day in range(last, asked.since - 1, -1))
    return next((moment for moment in moments if moment is not None), None)


def _ends(one: videos.Video, now: float) -> Row:
    hidden = [text_of_moment(moment) for moment in one.hidden if moment != float("inf")]
    return {
        "public": one.is_public(now),
        "gone": text_of_moment(one.deleted) if one.deleted != float("inf") else None,
        "hidden": hidden or None,
        "last_activity": text_of_moment(one.last_activity),
    }


def _without_end(address: str) -> str:
    return address.partition("?")[0]
