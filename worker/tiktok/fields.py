"""Which fields of `business/get/` each granted scope allows (official doc 1762228399168514)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

FIELDS_BY_SCOPE: Final[dict[str, tuple[str, ...]]] = {
    "user.info.basic": ("display_name", "profile_image"),
    "user.info.username": ("username",),
    "user.info.profile": ("profile_deep_link", "bio_description", "is_verified"),
    "user.info.stats": ("following_count", "followers_count", "total_likes", "videos_count"),
    "user.account.type": ("is_business_account",),
    # The daily `followers_count` is asked for by the same name as the total, so it comes with user.info.stats:
    # named without that scope it would fail the whole call.
    "user.insights": (
        "audience_ages",
        "audience_genders",
        "audience_countries",
        "audience_cities",
        "audience_activity",
        "video_views",
        "unique_video_views",
        "profile_views",
        "likes",
        "comments",
        "shares",
        "daily_total_followers",
        "daily_new_followers",
        "daily_lost_followers",
        "engaged_audience",
        "phone_number_clicks",
        "lead_submissions",
        "app_download_clicks",
        "bio_link_clicks",
        "email_clicks",
        "address_clicks",
    ),
}


def fields_for_scope(scope: Collection[str]) -> tuple[str, ...]:
    """Return every field that the granted scopes allow, in the table's order.

    One field whose scope was not granted fails the whole call with 40130, so nothing beyond the scopes is named.

    Args:
        scope: the granted scopes; unknown ones are passed over.

    Returns:
        Field names; empty where no scope allows any, and then the call is not to be made.
    """
    return tuple(name for known, names in FIELDS_BY_SCOPE.items() if known in scope for name in names)
