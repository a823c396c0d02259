"""An account's posts: which there are at a moment, and each one's figures as TikTok shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp
from typing import Any, Final

from worker.sandbox.accounts.days import day_of, followers_at_end, media_url, video_audience
from worker.sandbox.accounts.traits import DAY_SECONDS, Account, draw

REAL_TIME: Final = (
    "item_id",
    "media_type",
    "is_ad",
    "thumbnail_url",
    "share_url",
    "embed_url",
    "caption",
    "create_time",
)
LISTED: Final = ("video_duration", "likes", "comments", "shares", "favorites", "reach", "video_views")
CLICKS: Final = (
    "website_clicks",
    "phone_number_clicks",
    "lead_submissions",
    "app_download_clicks",
    "email_clicks",
    "address_clicks",
)
WATCHED: Final = ("total_time_watched", "average_time_watched", "full_video_watched_rate", "new_followers")
CURVES: Final = ("video_view_retention", "engagement_likes")
SHARES: Final = ("impression_sources", "audience_genders", "audience_countries", "audience_cities", "audience_types")
INSIGHTS: Final = (*WATCHED, "profile_views", *CLICKS, *CURVES, *SHARES)
FIELDS: Final = (*REAL_TIME, *LISTED, *INSIGHTS)
"""All 33 fields."""
VANISHING: Final = (
    "reach",
    "full_video_watched_rate",
    "total_time_watched",
    "average_time_watched",
    "impression_sources",
    "audience_countries",
)
"""They are no longer given seven days after a post's last activity."""
VANISH_DAYS: Final = 7
LAST_FIGURES_DAYS: Final = 365
"""Figures stop moving so long after posting."""
HIDDEN_DAYS: Final = 10
ID_SHIFT: Final = 32
MOST_ID_DIGITS: Final = 20

_SECONDS: Final = (15, 15, 30, 30, 60, 60, 180, 600)


@dataclass(frozen=True, slots=True)
class Video:
    """One post.

    Attributes:
        number: its place in the order of posting, from 0.
        item_id: its id.
        created: when it was posted, in seconds since 1970.
        deleted: when it is deleted.
        hidden: from when to when it is hidden.
        last_activity: the last moment at which its figures move.
        seconds: its length; 0 for a photo.
    """

    number: int
    item_id: str
    created: int
    deleted: float
    hidden: tuple[float, float]
    last_activity: int
    seconds: int

    def is_public(self, moment: float) -> bool:
        """Return whether TikTok lists it at a moment."""
        return self.created <= moment < self.deleted and not self.hidden[0] <= moment < self.hidden[1]


def _every(account: Account) -> float:
    return account.traits.age_days * DAY_SECONDS / account.traits.videos


def _created(account: Account, number: int) -> int:
    u = draw(account.key, "posted", number)[0]
    return account.opened * DAY_SECONDS + int((number + 0.05 + 0.9 * u) * _every(account))


def posted_by(account: Account, moment: float) -> int:
    """Return how many posts were made up to a moment, the deleted ones too."""
    if not account.traits.videos:
        return 0
    number = int((moment - account.opened * DAY_SECONDS) // _every(account))
    if number < 0:
        return 0
    return number + (_created(account, number) <= moment)


def video(account: Account, number: int) -> Video:
    """Return one post."""
    traits, created = account.traits, _created(account, number)
    a, b, c, d, e, f, *_ = draw(account.key, "video", number)
    never = float("inf")
    start = posted_by(account, account.started * DAY_SECONDS)
    in_run = start // 2 <= number < start // 2 + traits.private_run
    deleted, hidden = never, (never, never)
    if traits.private or in_run:
        hidden = (0.0, never)
    elif traits.deleted_every and number % traits.deleted_every == traits.deleted_every // 2:
        deleted = created + int((1 + 60 * a * a) * DAY_SECONDS)
    elif traits.hidden_every and number % traits.hidden_every == traits.hidden_every // 3:
        since = created + int((1 + 30 * b) * DAY_SECONDS)
        hidden = (since, since + HIDDEN_DAYS * DAY_SECONDS)
    active_days = LAST_FIGURES_DAYS if c < 0.05 else 2 + 38 * d * d  # noqa: PLR2004  # one in twenty goes on for a year
    photo = not traits.video_seconds and f < 0.08  # noqa: PLR2004  # one in twelve
    return Video(
        number=number,
        item_id=str((created - int(e * 182)) << ID_SHIFT | int(f * 2**ID_SHIFT)),
        created=created,
        deleted=deleted,
        hidden=hidden,
        last_activity=created + int(active_days * DAY_SECONDS),
        seconds=0 if photo else traits.video_seconds or _SECONDS[int(e * len(_SECONDS))],
    )


def find_video(account: Account, item_id: str) -> Video | None:
    """Find a post by its id, listed or not."""
    if len(item_id) > MOST_ID_DIGITS or not item_id.isascii() or not item_id.isdigit():
        return None
    around = posted_by(account, int(item_id) >> ID_SHIFT)
    for number in range(max(0, around - 1), around + 3):
        found = video(account, number)
        if found.item_id == item_id:
            return found
    return None


def videos_before(account: Account, before: float) -> Iterator[Video]:
    """Yield the posts made before a moment, newest first, those too that are not listed."""
    for number in range(posted_by(account, before) - 1, -1, -1):
        found = video(account, number)
        if found.created < before:
            yield found


def public_videos(account: Account, moment: float) -> int:
    """Count the posts that are listed at a moment, without looking at each."""
    traits, posted = account.traits, posted_by(account, moment)
    if traits.private:
        return 0
    start = posted_by(account, account.started * DAY_SECONDS)
    gone = set(range(start // 2, min(posted, start // 2 + traits.private_run)))
    for every, first in ((traits.deleted_every, 2), (traits.hidden_every, 3)):
        if every:
            for number in range(every // first, posted, every):
                if not video(account, number).is_public(moment):
                    gone.add(number)
    return posted - len(gone)


def shown_video(account: Account, one: Video, moment: float, wanted: frozenset[str]) -> dict[str, Any]:
    """Return a post's fields as TikTok shows them at a moment.

    Figures are those of 24 to 48 hours earlier and change once a day. A post that has none yet shows them as the
    account's trait says. The fields of `VANISHING` are left out in the end.
    """
    found = {name: value for name, value in _real_time(one, moment).items() if name in wanted}
    as_of = (day_of(moment) - 1) * DAY_SECONDS
    style = account.traits.uncomputed
    if as_of <= one.created:
        if style == "zero":
            found |= {name: [] if name in SHARES + CURVES else 0 for name in _names(account) if name in wanted}
            if "video_duration" in wanted:
                found["video_duration"] = float(one.seconds)
        return found
    figures = figures_of_video(account, one, as_of, wanted)
    if as_of > one.last_activity + VANISH_DAYS * DAY_SECONDS:
        return found | {name: value for name, value in figures.items() if name not in VANISHING}
    return found | figures


def _names(account: Account) -> list[str]:
    traits = account.traits
    names = [*LISTED, *WATCHED, *CURVES, *SHARES]
    return names + ["profile_views"] * traits.business + list(CLICKS) * (traits.business and traits.registered)


def _real_time(one: Video, moment: float) -> dict[str, Any]:
    address = f"https://www.tiktok.example/@{one.item_id}"
    return {
        "item_id": one.item_id,
        "media_type": "VIDEO" if one.seconds else "PHOTO",
        "is_ad": one.number % 50 == 7,  # noqa: PLR2004  # one in fifty
        "thumbnail_url": media_url(f"{one.item_id}.webp", moment),
        "share_url": f"{address}/video/{one.item_id}?utm_source=share",
        "embed_url": f"https://www.tiktok.example/embed/{one.item_id}",
        "caption": "" if one.number % 9 == 4 else f"No {one.number} \N{SPARKLES} #week{one.number % 53}",  # noqa: PLR2004
        "create_time": str(one.created),
    }


def figures_of_video(account: Account, one: Video, as_of: float, wanted: frozenset[str]) -> dict[str, Any]:
    """Return the figures of a post as they are at a moment.

    Args:
        account: the account.
        one: the post.
        as_of: seconds since 1970.
        wanted: names of fields; costly ones are worked out only if they are named.
    """
    u = draw(account.key, "figures", one.number)
    last = min(one.last_activity, one.created + LAST_FIGURES_DAYS * DAY_SECONDS)
    age, life = min(as_of, last) - one.created, last - one.created
    progress = (1 - exp(-4 * age / life)) / (1 - exp(-4))
    views = int((50 + followers_at_end(account, day_of(one.created)) * (0.1 + 3 * u[0] ** 4)) * progress)
    average = round(max(1, one.seconds) * (0.2 + 0.5 * u[1]), 2)
    found: dict[str, Any] = {
        "video_duration": float(one.seconds),
        "likes": int(views * (0.02 + 0.1 * u[2])),
        "comments": int(views * 0.004 * u[3]),
        "shares": int(views * 0.005 * u[4]),
        "favorites": int(views * 0.01 * u[5]),
        "reach": int(views * 0.8),
        "video_views": views,
        "total_time_watched": round(views * average, 2),
        "average_time_watched": average,
        "full_video_watched_rate": round(0.05 + 0.5 * u[6], 4),
        "new_followers": int(views * 0.002 * u[7]),
    }
    if account.traits.business:
        found["profile_views"] = int(views * 0.01 * u[0])
        if account.traits.registered:
            found |= {name: int(views * 0.0005 * u[place]) for place, name in enumerate(CLICKS)}
    found = {name: value for name, value in found.items() if name in wanted}
    if not wanted.isdisjoint(SHARES):
        day = day_of(min(as_of, last))
        found |= {name: value for name, value in video_audience(account, one.number, day).items() if name in wanted}
    for name in CURVES:
        if name in wanted:
            found[name] = _curve(one, steep=u[1] if name == "video_view_retention" else 1 - u[1])
    return found


def _curve(one: Video, *, steep: float) -> list[dict[str, Any]]:
    """Return a point a second; a long video has some 50 kB of them."""
    step = (2 + 3 * steep) / max(1, one.seconds)
    return [{"second": str(second), "percentage": round(exp(-step * second), 4)} for second in range(one.seconds + 1)]
