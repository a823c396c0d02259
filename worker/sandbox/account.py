"""The account read `business/get/`: fields by scope, dates, and figures that depend only on creator and day.

Fields, scopes and defaults follow TikTok's page on this call (official doc 1762228399168514).
"""

from __future__ import annotations

import json
import random
from datetime import date, timedelta
from typing import Any, Final
from urllib.parse import parse_qs

from worker.sandbox import token_calls
from worker.sandbox.token_calls import Outcome, RefusedError, check_not_blocked, live_pair
from worker.sandbox.world import World

DEFAULT_FIELDS: Final = ("display_name", "profile_image")
FURTHEST_BACK_DAYS: Final = 60
METRICS: Final = (
    "video_views",
    "profile_views",
    "likes",
    "comments",
    "shares",
    "unique_video_views",
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
    "audience_activity",
)
AUDIENCES: Final = ("audience_ages", "audience_genders", "audience_countries", "audience_cities")
FIELD_SCOPES: Final = {
    **dict.fromkeys(("profile_image", "display_name"), "user.info.basic"),
    "username": "user.info.username",
    **dict.fromkeys(("profile_deep_link", "bio_description", "is_verified"), "user.info.profile"),
    **dict.fromkeys(("following_count", "followers_count", "total_likes", "videos_count"), "user.info.stats"),
    "is_business_account": "user.account.type",
    **dict.fromkeys((*AUDIENCES, *METRICS), "user.insights"),
}
"""Every field and the scope it needs."""


def account(world: World, access_token: str, query: str) -> Outcome:
    """Read a creator's account data.

    Args:
        world: the sandbox.
        access_token: text of the Access-Token header, or an empty text.
        query: the raw query.

    Raises:
        RefusedError: the answer is an application error.
    """
    if not access_token:
        raise RefusedError(token_calls.ACCESS_MISSING, "Access token is missing.")
    check_not_blocked(world)
    consent = live_pair(world, access_token).consent
    sent = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    creator_id = sent.get("business_id", "")
    if not creator_id:
        raise RefusedError(token_calls.BAD_PARAMETER, "business_id: Missing data for required field.")
    if creator_id != consent.creator.creator_id:
        raise RefusedError(token_calls.NO_PERMISSION, "No permission to operate this business_id.")
    wanted = _wanted(sent.get("fields"))
    missing = next((name for name in wanted if FIELD_SCOPES[name] not in consent.scope), None)
    if missing is not None:
        raise RefusedError(token_calls.SCOPE_MISSING, f"The scope {FIELD_SCOPES[missing]} of {missing} is not granted.")
    first, last = _dates(sent, world.clock.today().date())
    return Outcome(data=_data(creator_id, wanted, first, min(last, world.clock.today().date() - timedelta(days=2))))


def _wanted(text: str | None) -> tuple[str, ...]:
    if text is None:
        return DEFAULT_FIELDS
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise RefusedError(token_calls.BAD_PARAMETER, "fields: Not a JSON list of names.")
    for name in names:
        if name not in FIELD_SCOPES:
            raise RefusedError(token_calls.BAD_PARAMETER, f"fields: {name!r} must be one of {', '.join(FIELD_SCOPES)}.")
    return tuple(names)


def _dates(sent: dict[str, str], today: date) -> tuple[date, date]:
    found = []
    for name, default in (("start_date", today - timedelta(days=7)), ("end_date", today - timedelta(days=1))):
        try:
            found.append(date.fromisoformat(sent[name]) if name in sent else default)
        except ValueError:
            raise RefusedError(token_calls.BAD_PARAMETER, f"{name}: Not a date as YYYY-MM-DD.") from None
    if found[0] < today - timedelta(days=FURTHEST_BACK_DAYS):
        raise RefusedError(token_calls.BAD_PARAMETER, f"start_date: At most {FURTHEST_BACK_DAYS} days back.")
    if found[0] > found[1]:
        raise RefusedError(token_calls.BAD_PARAMETER, "start_date: After end_date.")
    return found[0], found[1]


def _data(creator_id: str, wanted: tuple[str, ...], first: date, last: date) -> dict[str, Any]:
    """Make the answer; the last days are not computed yet, so they are absent, as at TikTok."""
    profile = _profile(creator_id)
    data = {name: profile[name] for name in wanted if name in profile}
    if any(name in METRICS for name in wanted):
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        data["metrics"] = [_day(creator_id, day, wanted, profile["followers_count"]) for day in days]
    return data


def _profile(creator_id: str) -> dict[str, Any]:
    draw = random.Random(creator_id)  # noqa: S311  # made-up figures, the same at every call
    followers = draw.randrange(100, 2_000_000)
    name = f"creator{draw.randrange(10**6)}"
    half = round(draw.uniform(0.2, 0.8), 4)
    ages = ("18-24", "25-34", "35-44", "45-54", "55+")
    return {
        "profile_image": f"https://images.example/{name}.jpeg?x-expires=1893456000",
        "display_name": name.title(),
        "username": name,
        "profile_deep_link": f"https://vm.example/{name}",
        "bio_description": "",
        "is_verified": draw.random() < 0.1,  # noqa: PLR2004  # one in ten
        "following_count": draw.randrange(1_000),
        "followers_count": followers,
        "total_likes": followers * 7,
        "videos_count": draw.randrange(1, 900),
        "is_business_account": True,
        "audience_ages": [{"age": age, "percentage": 0.2} for age in ages],
        "audience_genders": [
            {"gender": "Female", "percentage": half},
            {"gender": "Male", "percentage": round(1 - half, 4)},
            {"gender": "Other", "percentage": 0.0},
        ],
        "audience_countries": [
            {"country": "DE", "percentage": half},
            {"country": "FR", "percentage": round(1 - half, 4)},
        ],
        "audience_cities": [{"city_name": "Berlin", "percentage": half}],
    }


def _day(creator_id: str, day: date, wanted: tuple[str, ...], followers: int) -> dict[str, Any]:
    draw = random.Random(f"{creator_id} {day}")  # noqa: S311  # made-up figures, the same at every call
    figures: dict[str, Any] = {"date": day.isoformat()}
    for name in METRICS:
        value = draw.randrange(max(2, followers // 50))
        if name in wanted:
            figures[name] = _activity(value) if name == "audience_activity" else value
    if "followers_count" in wanted:
        figures["followers_count"] = followers
    return figures


def _activity(value: int) -> list[dict[str, Any]]:
    return [{"hour": str(hour), "count": value // 24} for hour in range(24)]
