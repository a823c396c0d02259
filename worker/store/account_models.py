"""The tables of account data, as SQLModel models: what was pulled, what is doubtful, and how far each pull has come.

Every table with rows of one creator has `creator_id`, the stable id of the TikTok account, so that one condition finds
all of them. A figure that TikTok never sent is NULL, never 0. Days are UTC days; ids are text.

One idea: the tables of account data are read as one schema.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)
from sqlmodel import Field, SQLModel

from worker.policy.creator_id import LONGEST
from worker.store.clock import Instant
from worker.store.models import METADATA, ROW_ID, Row

ID: Final = 64
"""Longest id of a video or a comment, in characters."""
LABEL: Final = 200
"""Longest label of a share: a city's name, for instance."""
WORD: Final = 40
"""Longest name of ours: a kind, or a resource."""
PATH: Final = 160
"""Longest place in an answer."""


def _creator() -> Any:
    return Field(sa_column=Column(String(LONGEST), primary_key=True))


def _key(length: int) -> Any:
    return Field(sa_column=Column(String(length), primary_key=True))


def _key_day() -> Any:
    return Field(sa_column=Column(Date, primary_key=True))


def _day() -> Any:
    return Field(sa_column=Column(Date, nullable=True))


def _instant(*, null: bool = True) -> Any:
    return Field(sa_column=Column(Instant, nullable=null))


def _figure() -> Any:
    return Field(default=None, sa_type=BigInteger, nullable=True)


def _number() -> Any:
    return Field(default=None, sa_type=Double, nullable=True)


def _text() -> Any:
    return Field(sa_column=Column(Text, nullable=True))


def _flag() -> Any:
    return Field(sa_column=Column(Boolean, nullable=True))


def _yes_or_no() -> Any:
    return Field(sa_column=Column(Boolean, nullable=False, server_default=text("false")))


def _count() -> Any:
    return Field(sa_column=Column(Integer, nullable=False, server_default=text("0")))


class Counters(SQLModel):
    """The counters of an account: lifetime, real time."""

    following_count: int | None = _figure()
    followers_count: int | None = _figure()
    total_likes: int | None = _figure()
    videos_count: int | None = _figure()


class AccountProfile(Row, Counters, table=True):
    """A creator's profile and counters as they were read last."""

    __tablename__ = "account_profiles"

    creator_id: str = _creator()
    username: str | None = _text()
    display_name: str | None = _text()
    profile_image: str | None = _text()
    profile_image_ends_at: datetime | None = _instant()
    profile_deep_link: str | None = _text()
    bio_description: str | None = _text()
    is_verified: bool | None = _flag()
    is_business_account: bool | None = _flag()
    first_read_at: datetime = _instant(null=False)
    read_at: datetime = _instant(null=False)


class AccountCounters(Row, Counters, table=True):
    """The counters at one instant; one row for each reading."""

    __tablename__ = "account_counters"

    creator_id: str = _creator()
    read_at: datetime = Field(sa_column=Column(Instant, primary_key=True))


class AccountDay(Row, table=True):
    """The figures of one UTC day; provisional until `settled`."""

    __tablename__ = "account_days"
    __table_args__ = (
        Index(
            "ix_account_days_unsettled",
            "creator_id",
            "day",
            sqlite_where=text("NOT settled"),
            postgresql_where=text("NOT settled"),
        ),
    )

    creator_id: str = _creator()
    day: date = _key_day()
    video_views: int | None = _figure()
    unique_video_views: int | None = _figure()
    profile_views: int | None = _figure()
    likes: int | None = _figure()
    comments: int | None = _figure()
    shares: int | None = _figure()
    engaged_audience: int | None = _figure()
    followers_count: int | None = _figure()
    daily_total_followers: int | None = _figure()
    daily_new_followers: int | None = _figure()
    daily_lost_followers: int | None = _figure()
    phone_number_clicks: int | None = _figure()
    lead_submissions: int | None = _figure()
    app_download_clicks: int | None = _figure()
    bio_link_clicks: int | None = _figure()
    email_clicks: int | None = _figure()
    address_clicks: int | None = _figure()
    engagement_rate: float | None = _number()
    completion_rate: float | None = _number()
    average_views: float | None = _number()
    average_likes: float | None = _number()
    average_comments: float | None = _number()
    average_shares: float | None = _number()
    followers_growth_rate: float | None = _number()
    settled: bool = _yes_or_no()
    first_read_at: datetime = _instant(null=False)
    read_at: datetime = _instant(null=False)


class AccountCorrection(Row, table=True):
    """A figure of a day that a later reading changed."""

    __tablename__ = "account_corrections"

    creator_id: str = _creator()
    day: date = _key_day()
    field: str = _key(WORD)
    read_at: datetime = Field(sa_column=Column(Instant, primary_key=True))
    old: float | None = _number()
    new: float | None = _number()
    was_settled: bool = _yes_or_no()


class AccountHour(Row, table=True):
    """How many followers were active in one UTC hour."""

    __tablename__ = "account_hours"

    creator_id: str = _creator()
    day: date = _key_day()
    hour: int = Field(sa_column=Column(SmallInteger, primary_key=True, autoincrement=False))
    active: int | None = _figure()


class AudienceShare(Row, table=True):
    """The part of the audience with one label, as of the day of the pull; TikTok gives these shares no date."""

    __tablename__ = "audience_shares"

    creator_id: str = _creator()
    pull_day: date = _key_day()
    kind: str = _key(WORD)
    label: str = _key(LABEL)
    share: float | None = _number()


class VideoFigures(SQLModel):
    """The figures of a video: sums over its life."""

    video_views: int | None = _figure()
    reach: int | None = _figure()
    likes: int | None = _figure()
    comments: int | None = _figure()
    shares: int | None = _figure()
    favorites: int | None = _figure()
    total_time_watched: float | None = _number()
    average_time_watched: float | None = _number()
    full_video_watched_rate: float | None = _number()
    new_followers: int | None = _figure()
    profile_views: int | None = _figure()
    website_clicks: int | None = _figure()
    phone_number_clicks: int | None = _figure()
    lead_submissions: int | None = _figure()
    app_download_clicks: int | None = _figure()
    email_clicks: int | None = _figure()
    address_clicks: int | None = _figure()


class Video(Row, VideoFigures, table=True):
    """A video with the figures that are known: one that TikTok no longer sends keeps its last value.

    `digests` holds a short hash of each list of shares or points, so that an unchanged list is not written again.
    """

    __tablename__ = "videos"
    __table_args__ = (
        Index("ix_videos_item_id", "item_id"),
        Index("ix_videos_creator_id_created_at", "creator_id", "created_at"),
    )

    creator_id: str = _creator()
    item_id: str = _key(ID)
    created_at: datetime | None = _instant()
    media_type: str | None = _text()
    is_ad: bool | None = _flag()
    caption: str | None = _text()
    share_url: str | None = _text()
    embed_url: str | None = _text()
    thumbnail_url: str | None = _text()
    thumbnail_url_ends_at: datetime | None = _instant()
    video_duration: float | None = _number()
    digests: str | None = _text()
    comments_read: int | None = _figure()
    comments_read_at: datetime | None = _instant()
    first_seen_at: datetime = _instant(null=False)
    last_seen_at: datetime = _instant(null=False)
    vanished_at: datetime | None = _instant()


class VideoReading(Row, VideoFigures, table=True):
    """A video's figures on one day; there is a row only for days on which one of them had changed."""

    __tablename__ = "video_readings"

    creator_id: str = _creator()
    item_id: str = _key(ID)
    pull_day: date = _key_day()
    read_at: datetime = _instant(null=False)


class VideoShare(Row, table=True):
    """The part of a video's viewers with one label; rows only for days on which the list had changed."""

    __tablename__ = "video_shares"

    creator_id: str = _creator()
    item_id: str = _key(ID)
    pull_day: date = _key_day()
    kind: str = _key(WORD)
    label: str = _key(LABEL)
    share: float | None = _number()


class VideoCurve(Row, table=True):
    """A curve over a video's seconds as it was read last: `points` is a JSON list of [second, share]."""

    __tablename__ = "video_curves"

    creator_id: str = _creator()
    item_id: str = _key(ID)
    kind: str = _key(WORD)
    pull_day: date | None = _day()
    points: str | None = _text()


class VideoComment(Row, table=True):
    """A comment or a reply (with `parent_comment_id`). Who wrote it is another person: these rows end by age."""

    __tablename__ = "video_comments"
    __table_args__ = (
        Index("ix_video_comments_creator_id_item_id", "creator_id", "item_id"),
        Index("ix_video_comments_last_seen_at", "last_seen_at"),
    )

    creator_id: str = _creator()
    comment_id: str = _key(ID)
    item_id: str | None = _text()
    parent_comment_id: str | None = _text()
    user_id: str | None = _text()
    unique_identifier: str | None = _text()
    created_at: datetime | None = _instant()
    text: str | None = _text()
    image_url: str | None = _text()
    username: str | None = _text()
    display_name: str | None = _text()
    profile_image: str | None = _text()
    profile_image_ends_at: datetime | None = _instant()
    likes: int | None = _figure()
    replies: int | None = _figure()
    replies_read: int | None = _figure()
    liked: bool | None = _flag()
    pinned: bool | None = _flag()
    owner: bool | None = _flag()
    status: str | None = _text()
    first_seen_at: datetime = _instant(null=False)
    last_seen_at: datetime = _instant(null=False)


class Mention(Row, table=True):
    """A video of somebody else that mentions the creator's brand; these rows end by age."""

    __tablename__ = "mentions"
    __table_args__ = (Index("ix_mentions_last_seen_at", "last_seen_at"),)

    creator_id: str = _creator()
    item_id: str = _key(ID)
    created_at: datetime | None = _instant()
    video_link: str | None = _text()
    caption: str | None = _text()
    creator_handle_name: str | None = _text()
    thumbnail_url: str | None = _text()
    thumbnail_url_ends_at: datetime | None = _instant()
    likes: int | None = _figure()
    comments: int | None = _figure()
    shares: int | None = _figure()
    views: int | None = _figure()
    reach: int | None = _figure()
    first_seen_at: datetime = _instant(null=False)
    last_seen_at: datetime = _instant(null=False)


class Benchmark(Row, table=True):
    """The averages of a category of business accounts over 30 days; the same for every creator."""

    __tablename__ = "benchmarks"

    business_category: str = _key(WORD)
    pull_day: date = _key_day()
    average_likes: float | None = _number()
    average_comments: float | None = _number()
    average_shares: float | None = _number()
    average_video_count: float | None = _number()
    average_follower_count: float | None = _number()
    average_follower_growth: float | None = _number()
    average_engagement_rate: float | None = _number()
    average_video_views: float | None = _number()


class RawAnswer(Row, table=True):
    """An answer as it came, compressed with zlib; a part that repeated a secret was replaced before.

    Attributes:
        doubtful: True if something in it is in quarantine; such answers are kept longer.
    """

    __tablename__ = "raw_answers"
    __table_args__ = (
        Index("ix_raw_answers_received_at", "doubtful", "received_at"),
        Index("ix_raw_answers_creator_id", "creator_id"),
    )

    id: int = Field(sa_column=Column(ROW_ID, primary_key=True, autoincrement=True))
    creator_id: str = Field(sa_column=Column(String(LONGEST), nullable=False))
    call: str = Field(sa_column=Column(String(WORD), nullable=False))
    request_id: str | None = _text()
    received_at: datetime = _instant(null=False)
    partial: bool = _yes_or_no()
    doubtful: bool = _yes_or_no()
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False), repr=False)


class Quarantined(Row, table=True):
    """A kind of value that could not be taken over: where it stood, why, how often, and the newest example."""

    __tablename__ = "account_quarantine"

    creator_id: str = _creator()
    call: str = _key(WORD)
    path: str = _key(PATH)
    reason: str = _key(WORD)
    example: str | None = _text()
    times: int = _count()
    first_at: datetime = _instant(null=False)
    last_at: datetime = _instant(null=False)
    raw_answer_id: int | None = _figure()


class AccountProgress(Row, table=True):
    """How far a creator's pull of one resource has come, so that a pull that was cut off goes on where it was.

    Attributes:
        started_at: when the pass began that is under way or was the last.
        whole: True if that pass is to reach the end of the list.
        clean: False if something in that pass could not be read, so that what is missing proves nothing.
        target: the video or comment that is being read.
        cursor: TikTok's cursor of the next page; None if no pass is under way.
        finished_at: when a pass was finished last.
        whole_at: when the last pass began that reached the end of the list.
        failures: tries in a row that failed, or that are made again soon because something could not be read.
    """

    __tablename__ = "account_progress"
    __table_args__ = (Index("ix_account_progress_next_at", "next_at"),)

    creator_id: str = _creator()
    resource: str = _key(WORD)
    started_at: datetime | None = _instant()
    whole: bool = _yes_or_no()
    clean: bool = _yes_or_no()
    target: str | None = _text()
    cursor: str | None = _text()
    pages: int = _count()
    finished_at: datetime | None = _instant()
    whole_at: datetime | None = _instant()
    next_at: datetime | None = _instant()
    failures: int = _count()
    problem: str | None = _text()


class AccountNarrowing(Row, table=True):
    """A field that TikTok refuses for a creator: it is left out until `again_at`."""

    __tablename__ = "account_narrowings"

    creator_id: str = _creator()
    resource: str = _key(WORD)
    field: str = _key(WORD)
    scope: str | None = _text()
    code: int | None = _figure()
    since: datetime = _instant(null=False)
    again_at: datetime = _instant(null=False)


class AccountRequests(Row, table=True):
    """How many requests a creator's pulls sent on one UTC day, by resource."""

    __tablename__ = "account_requests"

    creator_id: str = _creator()
    day: date = _key_day()
    resource: str = _key(WORD)
    requests: int = _count()


def _table(name: str) -> Table:
    return METADATA.tables[name]


PROFILES: Final = _table("account_profiles")
COUNTERS: Final = _table("account_counters")
DAYS: Final = _table("account_days")
CORRECTIONS: Final = _table("account_corrections")
HOURS: Final = _table("account_hours")
AUDIENCE: Final = _table("audience_shares")
VIDEOS: Final = _table("videos")
READINGS: Final = _table("video_readings")
VIDEO_SHARES: Final = _table("video_shares")
CURVES: Final = _table("video_curves")
COMMENTS: Final = _table("video_comments")
MENTIONS: Final = _table("mentions")
BENCHMARKS: Final = _table("benchmarks")
RAW_ANSWERS: Final = _table("raw_answers")
QUARANTINE: Final = _table("account_quarantine")
PROGRESS: Final = _table("account_progress")
NARROWINGS: Final = _table("account_narrowings")
REQUESTS: Final = _table("account_requests")

DATA: Final[tuple[Table, ...]] = (
    PROFILES, COUNTERS, DAYS, CORRECTIONS, HOURS, AUDIENCE, VIDEOS, READINGS, VIDEO_SHARES, CURVES, COMMENTS,
    MENTIONS, BENCHMARKS,
)  # fmt: skip
"""The tables that hold what TikTok said, which an export can name."""
VIEWS: Final[tuple[str, ...]] = (
    "account_daily", "account_hourly", "account_overview", "audience_over_time", "comment_threads", "video_audience",
    "video_curve_points", "video_over_time", "video_overview",
)  # fmt: skip
"""The views for dashboards, which the migrations make."""
FIGURES: Final[tuple[str, ...]] = tuple(VideoFigures.model_fields)
"""The names of a video's figures."""
DAY_FIGURES: Final[tuple[str, ...]] = tuple(
    column.name for column in DAYS.c if column.name not in {"creator_id", "day", "settled", "first_read_at", "read_at"}
)
"""The names of a day's figures."""
