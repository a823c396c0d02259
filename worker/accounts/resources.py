"""What is pulled: each resource is declared here once, with its path, scopes, fields, paging, budget and tables.

Another resource is one more declaration and its table. The engine reads what is declared, in the order of `RESOURCES`:
the most important first, so that a short quota makes the least important wait.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal

BASIC: Final = "user.info.basic"
INSIGHTS: Final = "user.insights"
STATS: Final = "user.info.stats"
VIDEO_LIST: Final = "video.list"
VIDEO_INSIGHTS: Final = "video.insights"
COMMENT_LIST: Final = "comment.list"
MENTION_SCOPE: Final = "biz.brand.insights"


class Kind(StrEnum):
    """What a value of a field is, and so how it is read."""

    TEXT = "text"
    ID = "id"  # text, also if it came as a number
    WHOLE = "whole number"
    NUMBER = "number"
    SHARE = "share"  # 0 to 1
    FLAG = "flag"
    EPOCH = "instant"  # seconds since 1970 as text, or a date with a time in UTC
    DAY = "day"
    ADDRESS = "address"  # of media, with an end of its own
    LIST = "list"  # of labels and shares, or of points of a curve
    HOURS = "hours"


@dataclass(frozen=True)
class Listed:
    """How the objects of a list are read.

    Attributes:
        kind: the word of the tables for what is divided.
        label: the name of an object's label, or of its second.
        value: the name of its share.
        curve: True for a curve over seconds.
    """

    kind: str
    label: str
    value: str = "percentage"
    curve: bool = False


@dataclass(frozen=True)
class Field:
    """One field of an answer.

    Attributes:
        name: TikTok's name.
        kind: what its value is.
        scope: without this scope TikTok refuses the whole call; None if the field is not asked for by name.
        column: the column, if it has another name.
        listed: for a list.
        official: False for a field that no page of TikTok's names: it is the first suspect if a request is refused.
        signed: True for a number that may be negative, such as the figures of a day: likes are taken back, too.
    """

    name: str
    kind: Kind
    scope: str | None = None
    column: str = ""
    listed: Listed | None = None
    official: bool = True
    signed: bool = False

    @property
    def stored_as(self) -> str:
        """The column."""
        return self.column or self.name


@dataclass(frozen=True)
class Part:
    """One list of objects in an answer, or the answer itself, and the table that its objects go to.

    Attributes:
        path: the name of the list in `data`; empty for `data` itself.
        key: the columns without which an object cannot be stored.
    """

    path: str
    table: str
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paging:
    """How a list is read page by page; it ends when `has_more` is false, whatever the cursor says.

    Attributes:
        size: objects of a page, TikTok's highest.
        cursor: how the cursor moves: a time that falls, or a place in the list that rises.
        most_pages: a list with more pages than this is cut off; nothing in it is then taken for vanished.
    """

    size: int
    cursor: Literal["time", "place"]
    most_pages: int = 2_000

    def moves(self, old: int | None, new: int) -> bool:
        """Return True if a cursor has moved the way it must; one that stands still would never end."""
        if old is None:
            return True
        return new < old if self.cursor == "time" else new > old


@dataclass(frozen=True, eq=False)
class Resource:
    """One read of the API.

    Attributes:
        call: its path.
        needs: the scope without which the call is not made; None if TikTok names no scope.
        parts: what of the answer goes where.
        base: fields that every request has and that every creator grants.
        per: what one pass is read for: the creator, each of some videos or comments, or a configured category.
        every: the part of a UTC day of which each has a pass: a day, or a half of one.
        budget: most requests of one pull for this resource.
        query: parameters of every request.
        other_people: True for what other people wrote: it is deleted by age.
        names: members of an answer that are known and not stored.
    """

    name: str
    call: str
    needs: str | None
    parts: tuple[Part, ...]
    base: tuple[str, ...] = ()
    paging: Paging | None = None
    per: Literal["creator", "video", "comment", "category"] = "creator"
    every: timedelta = timedelta(days=1)
    budget: int = 2_000
    query: Mapping[str, str | int | list[str]] = field(default_factory=dict)
    other_people: bool = False
    names: frozenset[str] = frozenset()

    def fields_for(self, scopes: Collection[str]) -> tuple[str, ...]:
        """Return the fields that the granted scopes allow, in the order of the declaration, each once.

        One field whose scope was not granted fails the whole call, so nothing beyond the scopes is named.
        """
        return tuple(name for name, scope in self.scope_of().items() if scope in scopes)

    def scope_of(self) -> dict[str, str]:
        """Return each field that is asked for by name, with its scope."""
        named = (each for part in self.parts for each in part.fields)
        return {each.name: each.scope for each in named if each.scope is not None}

    def unofficial(self) -> set[str]:
        """Return the fields that no page of TikTok's names."""
        return {each.name for part in self.parts for each in part.fields if not each.official}


def _fields(
    scope: str | None, kind: Kind, *names: str, official: bool = True, signed: bool = False
) -> tuple[Field, ...]:
    return tuple(Field(name, kind, scope, official=official, signed=signed) for name in names)


def _shares(scope: str, name: str, kind: str, label: str) -> Field:
    return Field(name, Kind.LIST, scope, listed=Listed(kind, label))


_OF_A_DAY: Final = (
    "video_views", "unique_video_views", "profile_views", "likes", "comments", "shares",
    "daily_total_followers", "daily_new_followers", "daily_lost_followers", "engaged_audience",
    "phone_number_clicks", "lead_submissions", "app_download_clicks", "bio_link_clicks", "email_clicks",
    "address_clicks",
)  # fmt: skip
_UNOFFICIAL: Final = (
    "engagement_rate", "completion_rate", "average_views", "average_likes", "average_comments",
    "average_shares", "followers_growth_rate",
)  # fmt: skip
"""In no official copy, and in the list of names that a refusal of 40002 shows."""
_OF_A_VIDEO: Final = (
    "new_followers", "profile_views", "website_clicks", "phone_number_clicks", "lead_submissions",
    "app_download_clicks", "email_clicks", "address_clicks",
)  # fmt: skip
_AVERAGES: Final = (
    "average_likes", "average_comments", "average_shares", "average_video_count", "average_follower_count",
    "average_follower_growth", "average_engagement_rate", "average_video_views",
)  # fmt: skip

# The daily `followers_count` has the same name as the counter and comes with it: without user.info.stats the name would
# fail the whole call.
_COUNTERS: Final = _fields(STATS, Kind.WHOLE, "following_count", "followers_count", "total_likes", "videos_count")

ACCOUNT: Final = Resource(
    name="account",
    call="business/get/",
    needs=None,
    base=("display_name", "profile_image"),
    parts=(
        Part(
            "",
            "account_profiles",
            (
                Field("display_name", Kind.TEXT, BASIC),
                Field("profile_image", Kind.ADDRESS, BASIC),
                Field("username", Kind.TEXT, "user.info.username"),
                *_fields("user.info.profile", Kind.TEXT, "profile_deep_link", "bio_description"),
                Field("is_verified", Kind.FLAG, "user.info.profile"),
                *_COUNTERS,
                Field("is_business_account", Kind.FLAG, "user.account.type"),
                _shares(INSIGHTS, "audience_ages", "age", "age"),
                _shares(INSIGHTS, "audience_genders", "gender", "gender"),
                _shares(INSIGHTS, "audience_countries", "country", "country"),
                _shares(INSIGHTS, "audience_cities", "city", "city_name"),
            ),
        ),
        Part("", "account_counters", _COUNTERS),
        Part(
            "metrics",
            "account_days",
            (
                Field("date", Kind.DAY, column="day"),
                Field("audience_activity", Kind.HOURS, INSIGHTS),
                *_fields(
                    INSIGHTS,
                    Kind.WHOLE,
                    *_OF_A_DAY,
                    signed=True,
                ),
                Field("followers_count", Kind.WHOLE, signed=True),
                *_fields(
                    INSIGHTS,
                    Kind.NUMBER,
                    *_UNOFFICIAL,
                    official=False,
                    signed=True,
                ),
                # Some requests get the audience inside the days.
                *(
                    Field(name, Kind.LIST, listed=Listed(kind, label))
                    for name, kind, label in (
                        ("audience_ages", "age", "age"),
                        ("audience_genders", "gender", "gender"),
                        ("audience_countries", "country", "country"),
                        ("audience_cities", "city", "city_name"),
                    )
                ),
            ),
            key=("day",),
        ),
    ),
)
"""Profile, counters, daily figures, hours and audience: one request for up to 60 days."""

VIDEOS: Final = Resource(
    name="videos",
    call="business/video/list/",
    needs=VIDEO_LIST,
    base=("item_id", "create_time"),
    paging=Paging(size=20, cursor="time"),
    parts=(
        Part(
            "videos",
            "videos",
            (
                Field("item_id", Kind.ID, VIDEO_LIST),
                Field("create_time", Kind.EPOCH, VIDEO_LIST, column="created_at"),
                *_fields(VIDEO_LIST, Kind.TEXT, "media_type", "share_url", "embed_url", "caption"),
                Field("is_ad", Kind.FLAG, VIDEO_LIST),
                Field("thumbnail_url", Kind.ADDRESS, VIDEO_LIST),
                Field("video_duration", Kind.NUMBER, VIDEO_LIST),
                *_fields(VIDEO_LIST, Kind.WHOLE, "likes", "comments", "shares", "favorites", "reach", "video_views"),
                *_fields(VIDEO_INSIGHTS, Kind.NUMBER, "total_time_watched", "average_time_watched"),
                Field("full_video_watched_rate", Kind.SHARE, VIDEO_INSIGHTS),
                *_fields(
                    VIDEO_INSIGHTS,
                    Kind.WHOLE,
                    *_OF_A_VIDEO,
                ),
                Field(
                    "video_view_retention", Kind.LIST, VIDEO_INSIGHTS, listed=Listed("retention", "second", curve=True)
                ),
                Field("engagement_likes", Kind.LIST, VIDEO_INSIGHTS, listed=Listed("likes", "second", curve=True)),
                _shares(VIDEO_INSIGHTS, "impression_sources", "source", "impression_source"),
                _shares(VIDEO_INSIGHTS, "audience_genders", "gender", "gender"),
                _shares(VIDEO_INSIGHTS, "audience_countries", "country", "country"),
                _shares(VIDEO_INSIGHTS, "audience_cities", "city", "city_name"),
                _shares(VIDEO_INSIGHTS, "audience_types", "type", "type"),
            ),
            key=("item_id",),
        ),
    ),
)
"""The list of videos, newest first; its figures are sums over a video's life."""

BENCHMARK: Final = Resource(
    name="benchmark",
    call="business/benchmark/",
    needs=None,
    per="category",
    parts=(
        Part(
            "",
            "benchmarks",
            (
                Field("business_category", Kind.TEXT),
                *_fields(
                    None,
                    Kind.NUMBER,
                    *_AVERAGES,
                    signed=True,
                ),
            ),
            key=("business_category",),
        ),
    ),
)
"""The averages of a category: the same for every creator, so once for each configured category and day."""

_COMMENT_FIELDS: Final = (
    Field("comment_id", Kind.ID),
    Field("video_id", Kind.ID, column="item_id"),
    *_fields(None, Kind.ID, "parent_comment_id", "user_id", "unique_identifier"),
    Field("create_time", Kind.EPOCH, column="created_at"),
    *_fields(None, Kind.TEXT, "text", "image_url", "username", "display_name", "status"),
    Field("profile_image", Kind.ADDRESS),
    *_fields(None, Kind.WHOLE, "likes", "replies"),
    *_fields(None, Kind.FLAG, "liked", "pinned", "owner"),
)
_SORTED: Final[dict[str, str | int | list[str]]] = {"sort_field": "create_time", "sort_order": "desc"}
"""TikTok's own order is random from page to page."""

COMMENTS: Final = Resource(
    name="comments",
    call="business/comment/list/",
    needs=COMMENT_LIST,
    paging=Paging(size=30, cursor="place", most_pages=100),
    per="video",
    budget=40,
    query=_SORTED,
    other_people=True,
    parts=(Part("comments", "video_comments", _COMMENT_FIELDS, key=("comment_id",)),),
    names=frozenset({"reply_list"}),
)
"""The comments of videos whose number of comments has changed; beyond 500 TikTok's list has holes and repetitions."""

REPLIES: Final = Resource(
    name="replies",
    call="business/comment/reply/list/",
    needs=COMMENT_LIST,
    paging=Paging(size=30, cursor="place", most_pages=100),
    per="comment",
    budget=20,
    query=_SORTED,
    other_people=True,
    parts=(Part("comments", "video_comments", _COMMENT_FIELDS, key=("comment_id",)),),
)
"""The replies to comments whose number of replies has changed."""

MENTIONS: Final = Resource(
    name="mentions",
    call="business/mention/video/list/",
    needs=MENTION_SCOPE,
    paging=Paging(size=100, cursor="place", most_pages=10),
    base=("item_id",),
    budget=10,
    query={"sort_field": "CREATE_TIME", "number_of_days": 30},
    other_people=True,
    parts=(
        Part(
            "videos",
            "mentions",
            (
                Field("item_id", Kind.ID, MENTION_SCOPE),
                Field("create_time", Kind.EPOCH, MENTION_SCOPE, column="created_at"),
                *_fields(MENTION_SCOPE, Kind.TEXT, "video_link", "caption", "creator_handle_name"),
                *_fields(MENTION_SCOPE, Kind.WHOLE, "likes", "comments", "shares", "views", "reach"),
                Field("thumbnail_url", Kind.ADDRESS, MENTION_SCOPE),
            ),
            key=("item_id",),
        ),
    ),
)
"""Videos of other people that mention the brand."""

RESOURCES: Final = (ACCOUNT, VIDEOS, BENCHMARK, MENTIONS, COMMENTS, REPLIES)
"""Every resource, the most important first."""
BY_NAME: Final = {resource.name: resource for resource in RESOURCES}
