"""Account data in typed tables; the snapshots of the version before stay and go on."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
compatible_from = "0001"


def upgrade() -> None:
    """Create tables that the version before does not know and does not touch."""
    _account()
    _videos()
    _others()
    _bookkeeping()


def _account() -> None:
    """Create profile, counters, days, corrections, hours and audience."""
    op.create_table(
        "account_profiles",
        sa.Column("following_count", sa.BigInteger),
        sa.Column("followers_count", sa.BigInteger),
        sa.Column("total_likes", sa.BigInteger),
        sa.Column("videos_count", sa.BigInteger),
        sa.Column("creator_id", sa.String(255)),
        sa.Column("username", sa.Text),
        sa.Column("display_name", sa.Text),
        sa.Column("profile_image", sa.Text),
        sa.Column("profile_image_ends_at", sa.BigInteger),
        sa.Column("profile_deep_link", sa.Text),
        sa.Column("bio_description", sa.Text),
        sa.Column("is_verified", sa.Boolean),
        sa.Column("is_business_account", sa.Boolean),
        sa.Column("first_read_at", sa.BigInteger, nullable=False),
        sa.Column("read_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", name="pk_account_profiles"),
    )
    op.create_table(
        "account_counters",
        sa.Column("following_count", sa.BigInteger),
        sa.Column("followers_count", sa.BigInteger),
        sa.Column("total_likes", sa.BigInteger),
        sa.Column("videos_count", sa.BigInteger),
        sa.Column("creator_id", sa.String(255)),
        sa.Column("read_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("creator_id", "read_at", name="pk_account_counters"),
    )
    op.create_table(
        "account_days",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("day", sa.Date),
        sa.Column("video_views", sa.BigInteger),
        sa.Column("unique_video_views", sa.BigInteger),
        sa.Column("profile_views", sa.BigInteger),
        sa.Column("likes", sa.BigInteger),
        sa.Column("comments", sa.BigInteger),
        sa.Column("shares", sa.BigInteger),
        sa.Column("engaged_audience", sa.BigInteger),
        sa.Column("followers_count", sa.BigInteger),
        sa.Column("daily_total_followers", sa.BigInteger),
        sa.Column("daily_new_followers", sa.BigInteger),
        sa.Column("daily_lost_followers", sa.BigInteger),
        sa.Column("phone_number_clicks", sa.BigInteger),
        sa.Column("lead_submissions", sa.BigInteger),
        sa.Column("app_download_clicks", sa.BigInteger),
        sa.Column("bio_link_clicks", sa.BigInteger),
        sa.Column("email_clicks", sa.BigInteger),
        sa.Column("address_clicks", sa.BigInteger),
        sa.Column("engagement_rate", sa.Double),
        sa.Column("completion_rate", sa.Double),
        sa.Column("average_views", sa.Double),
        sa.Column("average_likes", sa.Double),
        sa.Column("average_comments", sa.Double),
        sa.Column("average_shares", sa.Double),
        sa.Column("followers_growth_rate", sa.Double),
        sa.Column("settled", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("first_read_at", sa.BigInteger, nullable=False),
        sa.Column("read_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "day", name="pk_account_days"),
    )
    where = sa.text("NOT settled")
    op.create_index(
        "ix_account_days_unsettled", "account_days", ["creator_id", "day"], sqlite_where=where, postgresql_where=where
    )
    op.create_table(
        "account_corrections",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("day", sa.Date),
        sa.Column("field", sa.String(40)),
        sa.Column("read_at", sa.BigInteger),
        sa.Column("old", sa.Double),
        sa.Column("new", sa.Double),
        sa.Column("was_settled", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "day", "field", "read_at", name="pk_account_corrections"),
    )
    op.create_table(
        "account_hours",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("day", sa.Date),
        sa.Column("hour", sa.SmallInteger, autoincrement=False),
        sa.Column("active", sa.BigInteger),
        sa.PrimaryKeyConstraint("creator_id", "day", "hour", name="pk_account_hours"),
    )
    op.create_table(
        "audience_shares",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("pull_day", sa.Date),
        sa.Column("kind", sa.String(40)),
        sa.Column("label", sa.String(200)),
        sa.Column("share", sa.Double),
        sa.PrimaryKeyConstraint("creator_id", "pull_day", "kind", "label", name="pk_audience_shares"),
    )


def _videos() -> None:
    """Create videos, their readings, shares and curves."""
    op.create_table(
        "videos",
        sa.Column("video_views", sa.BigInteger),
        sa.Column("reach", sa.BigInteger),
        sa.Column("likes", sa.BigInteger),
        sa.Column("comments", sa.BigInteger),
        sa.Column("shares", sa.BigInteger),
        sa.Column("favorites", sa.BigInteger),
        sa.Column("total_time_watched", sa.Double),
        sa.Column("average_time_watched", sa.Double),
        sa.Column("full_video_watched_rate", sa.Double),
        sa.Column("new_followers", sa.BigInteger),
        sa.Column("profile_views", sa.BigInteger),
        sa.Column("website_clicks", sa.BigInteger),
        sa.Column("phone_number_clicks", sa.BigInteger),
        sa.Column("lead_submissions", sa.BigInteger),
        sa.Column("app_download_clicks", sa.BigInteger),
        sa.Column("email_clicks", sa.BigInteger),
        sa.Column("address_clicks", sa.BigInteger),
        sa.Column("creator_id", sa.String(255)),
        sa.Column("item_id", sa.String(64)),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("media_type", sa.Text),
        sa.Column("is_ad", sa.Boolean),
        sa.Column("caption", sa.Text),
        sa.Column("share_url", sa.Text),
        sa.Column("embed_url", sa.Text),
        sa.Column("thumbnail_url", sa.Text),
        sa.Column("thumbnail_url_ends_at", sa.BigInteger),
        sa.Column("video_duration", sa.Double),
        sa.Column("digests", sa.Text),
        sa.Column("comments_read", sa.BigInteger),
        sa.Column("comments_read_at", sa.BigInteger),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.Column("vanished_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("creator_id", "item_id", name="pk_videos"),
    )
    op.create_index("ix_videos_creator_id_created_at", "videos", ["creator_id", "created_at"])
    op.create_index("ix_videos_item_id", "videos", ["item_id"])
    op.create_table(
        "video_readings",
        sa.Column("video_views", sa.BigInteger),
        sa.Column("reach", sa.BigInteger),
        sa.Column("likes", sa.BigInteger),
        sa.Column("comments", sa.BigInteger),
        sa.Column("shares", sa.BigInteger),
        sa.Column("favorites", sa.BigInteger),
        sa.Column("total_time_watched", sa.Double),
        sa.Column("average_time_watched", sa.Double),
        sa.Column("full_video_watched_rate", sa.Double),
        sa.Column("new_followers", sa.BigInteger),
        sa.Column("profile_views", sa.BigInteger),
        sa.Column("website_clicks", sa.BigInteger),
        sa.Column("phone_number_clicks", sa.BigInteger),
        sa.Column("lead_submissions", sa.BigInteger),
        sa.Column("app_download_clicks", sa.BigInteger),
        sa.Column("email_clicks", sa.BigInteger),
        sa.Column("address_clicks", sa.BigInteger),
        sa.Column("creator_id", sa.String(255)),
        sa.Column("item_id", sa.String(64)),
        sa.Column("pull_day", sa.Date),
        sa.Column("read_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "item_id", "pull_day", name="pk_video_readings"),
    )
    op.create_table(
        "video_shares",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("item_id", sa.String(64)),
        sa.Column("pull_day", sa.Date),
        sa.Column("kind", sa.String(40)),
        sa.Column("label", sa.String(200)),
        sa.Column("share", sa.Double),
        sa.PrimaryKeyConstraint("creator_id", "item_id", "pull_day", "kind", "label", name="pk_video_shares"),
    )
    op.create_table(
        "video_curves",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("item_id", sa.String(64)),
        sa.Column("kind", sa.String(40)),
        sa.Column("pull_day", sa.Date),
        sa.Column("points", sa.Text),
        sa.PrimaryKeyConstraint("creator_id", "item_id", "kind", name="pk_video_curves"),
    )


def _others() -> None:
    """Create comments, mentions and benchmarks."""
    op.create_table(
        "video_comments",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("comment_id", sa.String(64)),
        sa.Column("item_id", sa.Text),
        sa.Column("parent_comment_id", sa.Text),
        sa.Column("user_id", sa.Text),
        sa.Column("unique_identifier", sa.Text),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("text", sa.Text),
        sa.Column("image_url", sa.Text),
        sa.Column("username", sa.Text),
        sa.Column("display_name", sa.Text),
        sa.Column("profile_image", sa.Text),
        sa.Column("profile_image_ends_at", sa.BigInteger),
        sa.Column("likes", sa.BigInteger),
        sa.Column("replies", sa.BigInteger),
        sa.Column("replies_read", sa.BigInteger),
        sa.Column("liked", sa.Boolean),
        sa.Column("pinned", sa.Boolean),
        sa.Column("owner", sa.Boolean),
        sa.Column("status", sa.Text),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "comment_id", name="pk_video_comments"),
    )
    op.create_index("ix_video_comments_creator_id_item_id", "video_comments", ["creator_id", "item_id"])
    op.create_index("ix_video_comments_last_seen_at", "video_comments", ["last_seen_at"])
    op.create_table(
        "mentions",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("item_id", sa.String(64)),
        sa.Column("created_at", sa.BigInteger),
        sa.Column("video_link", sa.Text),
        sa.Column("caption", sa.Text),
        sa.Column("creator_handle_name", sa.Text),
        sa.Column("thumbnail_url", sa.Text),
        sa.Column("thumbnail_url_ends_at", sa.BigInteger),
        sa.Column("likes", sa.BigInteger),
        sa.Column("comments", sa.BigInteger),
        sa.Column("shares", sa.BigInteger),
        sa.Column("views", sa.BigInteger),
        sa.Column("reach", sa.BigInteger),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "item_id", name="pk_mentions"),
    )
    op.create_index("ix_mentions_last_seen_at", "mentions", ["last_seen_at"])
    op.create_table(
        "benchmarks",
        sa.Column("business_category", sa.String(40)),
        sa.Column("pull_day", sa.Date),
        sa.Column("average_likes", sa.Double),
        sa.Column("average_comments", sa.Double),
        sa.Column("average_shares", sa.Double),
        sa.Column("average_video_count", sa.Double),
        sa.Column("average_follower_count", sa.Double),
        sa.Column("average_follower_growth", sa.Double),
        sa.Column("average_engagement_rate", sa.Double),
        sa.Column("average_video_views", sa.Double),
        sa.PrimaryKeyConstraint("business_category", "pull_day", name="pk_benchmarks"),
    )


def _bookkeeping() -> None:
    """Create raw answers, quarantine, progress, narrowings and requests."""
    op.create_table(
        "raw_answers",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("creator_id", sa.String(255), nullable=False),
        sa.Column("call", sa.String(40), nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("partial", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("doubtful", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_raw_answers_creator_id", "raw_answers", ["creator_id"])
    op.create_index("ix_raw_answers_received_at", "raw_answers", ["doubtful", "received_at"])
    op.create_table(
        "account_quarantine",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("call", sa.String(40)),
        sa.Column("path", sa.String(160)),
        sa.Column("reason", sa.String(40)),
        sa.Column("example", sa.Text),
        sa.Column("times", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("raw_answer_id", sa.BigInteger),
        sa.PrimaryKeyConstraint("creator_id", "call", "path", "reason", name="pk_account_quarantine"),
    )
    op.create_table(
        "account_progress",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("resource", sa.String(40)),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("whole", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("clean", sa.Boolean, server_default=sa.text("false"), nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("cursor", sa.Text),
        sa.Column("pages", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("whole_at", sa.BigInteger),
        sa.Column("next_at", sa.BigInteger),
        sa.Column("failures", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.Column("problem", sa.Text),
        sa.PrimaryKeyConstraint("creator_id", "resource", name="pk_account_progress"),
    )
    op.create_index("ix_account_progress_next_at", "account_progress", ["next_at"])
    op.create_table(
        "account_narrowings",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("resource", sa.String(40)),
        sa.Column("field", sa.String(40)),
        sa.Column("scope", sa.Text),
        sa.Column("code", sa.BigInteger),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("again_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "resource", "field", name="pk_account_narrowings"),
    )
    op.create_table(
        "account_requests",
        sa.Column("creator_id", sa.String(255)),
        sa.Column("day", sa.Date),
        sa.Column("resource", sa.String(40)),
        sa.Column("requests", sa.Integer, server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("creator_id", "day", "resource", name="pk_account_requests"),
    )
