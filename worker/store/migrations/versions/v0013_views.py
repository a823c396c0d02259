"""Views of account data for dashboards: one for each question, with the same columns and units on both databases.

A view is what people's own queries may rely on: the tables below it may change with a version, and the view does not.
Instants are milliseconds since 1970 in the tables, and timestamps in the views (ISO 8601 texts on SQLite).
"""

from alembic import op

revision = "0013"
down_revision = "0012"
compatible_from = "0001"

INSTANT = {
    "postgresql": "to_timestamp({0} / 1000.0)",
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', {0} / 1000.0, 'unixepoch')",
}
"""An instant as the database shows it: a timestamp with time zone, or ISO 8601 text in UTC."""
POINTS = {
    "postgresql": (
        "SELECT c.creator_id, c.item_id, c.kind, c.pull_day, CAST(p.value ->> 0 AS integer) AS second,"
        " CAST(p.value ->> 1 AS double precision) AS share"
        " FROM video_curves c CROSS JOIN LATERAL json_array_elements(CAST(c.points AS json)) AS p(value)"
    ),
    "sqlite": (
        "SELECT c.creator_id, c.item_id, c.kind, c.pull_day, CAST(json_extract(p.value, '$[0]') AS INTEGER) AS second,"
        " CAST(json_extract(p.value, '$[1]') AS REAL) AS share"
        " FROM video_curves c, json_each(c.points) p"
    ),
}
"""The points of the curves, one row each."""
DAY_OF = {
    "postgresql": "CAST(to_timestamp({0} / 1000.0) AT TIME ZONE 'UTC' AS date)",
    "sqlite": "date({0} / 1000, 'unixepoch')",
}
VIEWS = {
    "account_overview": """
        SELECT p.creator_id, p.username, p.display_name, p.is_verified, p.is_business_account, p.followers_count,
            p.following_count, p.total_likes, p.videos_count, {read_at} AS read_at,
            (SELECT max(d.day) FROM account_days d WHERE d.creator_id = p.creator_id) AS newest_day,
            (SELECT max(d.day) FROM account_days d WHERE d.creator_id = p.creator_id AND d.settled) AS settled_until,
            (SELECT count(*) FROM videos v WHERE v.creator_id = p.creator_id AND v.vanished_at IS NULL) AS listed_videos
        FROM account_profiles p
    """,
    "account_daily": """
        SELECT d.creator_id, d.day, d.video_views, d.unique_video_views, d.profile_views, d.likes, d.comments, d.shares,
            d.engaged_audience, d.daily_new_followers AS new_followers, d.daily_lost_followers AS lost_followers,
            d.daily_new_followers - d.daily_lost_followers AS net_followers,
            d.daily_total_followers AS contested_total_followers, d.followers_count AS contested_followers_count,
            (SELECT c.followers_count FROM account_counters c WHERE c.creator_id = d.creator_id
                AND c.followers_count IS NOT NULL AND {counter_day} = d.day
                ORDER BY c.read_at DESC LIMIT 1) AS followers_read_that_day,
            d.bio_link_clicks, d.email_clicks, d.phone_number_clicks, d.address_clicks, d.app_download_clicks,
            d.lead_submissions, d.settled, {day_read_at} AS read_at
        FROM account_days d
    """,
    "account_hourly": """
        SELECT h.creator_id, h.day, h.hour, h.active AS active_followers FROM account_hours h
    """,
    "audience_over_time": """
        SELECT a.creator_id, a.pull_day, a.kind, a.label, a.share FROM audience_shares a
    """,
    "video_overview": """
        SELECT v.creator_id, v.item_id, {created_at} AS created_at, v.media_type, v.is_ad, v.caption, v.share_url,
            v.video_duration, v.video_views, v.reach, v.likes, v.comments, v.shares, v.favorites, v.new_followers,
            v.profile_views, v.total_time_watched, v.average_time_watched, v.full_video_watched_rate,
            v.website_clicks, v.phone_number_clicks, v.lead_submissions, v.app_download_clicks, v.email_clicks,
            v.address_clicks, CASE WHEN v.video_views > 0 THEN
                (coalesce(v.likes, 0) + coalesce(v.comments, 0) + coalesce(v.shares, 0)) * 1.0 / v.video_views
                END AS engagement_per_view, {vanished_at} AS vanished_at, {seen_at} AS last_seen_at
        FROM videos v
    """,
    "video_over_time": """
        SELECT r.creator_id, r.item_id, r.pull_day, r.video_views, r.reach, r.likes, r.comments, r.shares, r.favorites,
            r.new_followers, r.total_time_watched, r.average_time_watched, r.full_video_watched_rate,
            r.video_views - lag(r.video_views) OVER (PARTITION BY r.creator_id, r.item_id ORDER BY r.pull_day)
                AS more_video_views
        FROM video_readings r
    """,
    "video_audience": """
        SELECT s.creator_id, s.item_id, s.pull_day, s.kind, s.label, s.share FROM video_shares s
        WHERE s.pull_day = (SELECT max(t.pull_day) FROM video_shares t
            WHERE t.creator_id = s.creator_id AND t.item_id = s.item_id AND t.kind = s.kind)
    """,
    "video_curve_points": "{points}",
    "comment_threads": """
        SELECT c.creator_id, c.item_id, c.comment_id, c.parent_comment_id, {commented_at} AS created_at, c.username,
            c.text, c.likes, c.replies, c.pinned, c.owner, c.status
        FROM video_comments c
    """,
}
"""Each view's name and its query, with what differs between the databases in braces."""


def view_query(name: str, dialect: str) -> str:
    """Return a view's query for `postgresql` or `sqlite`."""
    instant = INSTANT[dialect]
    return " ".join(
        VIEWS[name]
        .format(
            read_at=instant.format("p.read_at"),
            day_read_at=instant.format("d.read_at"),
            created_at=instant.format("v.created_at"),
            vanished_at=instant.format("v.vanished_at"),
            seen_at=instant.format("v.last_seen_at"),
            commented_at=instant.format("c.created_at"),
            counter_day=DAY_OF[dialect].format("c.read_at"),
            points=POINTS[dialect],
        )
        .split()
    )


def upgrade() -> None:
    """Create the views; no version before knows them, and a later one replaces them."""
    for name in VIEWS:
        op.execute(f"CREATE VIEW {name} AS {view_query(name, op.get_context().dialect.name)}")
