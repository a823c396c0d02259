"""An account's days: the counter of followers, daily figures in each of their versions, and shares of the audience."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import ceil, pi, sin
from typing import Any, Final

from worker.sandbox.accounts.traits import AUDIENCE_LEAST_FOLLOWERS, DAY_SECONDS, Account, draw

EVERYONE: Final = ("video_views", "profile_views", "likes", "comments", "shares")
BUSINESS: Final = (
    "unique_video_views",
    "daily_total_followers",
    "daily_new_followers",
    "daily_lost_followers",
    "engaged_audience",
)
REGISTERED: Final = (
    "phone_number_clicks",
    "lead_submissions",
    "app_download_clicks",
    "bio_link_clicks",
    "email_clicks",
    "address_clicks",
)
RATES: Final = (
    "engagement_rate",
    "completion_rate",
    "average_views",
    "average_likes",
    "average_comments",
    "average_shares",
    "followers_growth_rate",
)
"""Accepted by the live API, though on no page of TikTok's."""
ACTIVITY: Final = "audience_activity"
METRICS: Final = (*EVERYONE, *BUSINESS, *REGISTERED, *RATES, ACTIVITY)
AUDIENCES: Final = ("audience_ages", "audience_genders", "audience_countries", "audience_cities")
LABELS: Final = {
    "audience_ages": "age",
    "audience_genders": "gender",
    "audience_countries": "country",
    "audience_cities": "city_name",
    "audience_types": "type",
    "impression_sources": "impression_source",
}
"""The name of the label beside each percentage."""
STEP_SECONDS: Final = DAY_SECONDS // 2
"""Figures are corrected so often until they stand."""
FIRST_FIGURES_DAYS: Final = 2
"""The figures of a day come this many days after its beginning, or up to a day later."""
READINGS: Final = ("text", "samples")

_AGES: Final = ("18-24", "25-34", "35-44", "45-54", "55+")
_GENDERS: Final = ("Female", "Male", "Other")
_COUNTRIES: Final = ("DE", "FR", "US", "BR", "JP", "MY", "GB", "IT", "ES", "ID", "PL")
_CITIES: Final = ("Berlin", "Paris", "US Cincinnati", "São Paulo", "東京", "Kuala Lumpur", "London")
_HOURS: Final = tuple(round(0.5 + 0.35 * sin((hour - 13) * pi / 12), 3) for hour in range(24))
_HOUR_NAMES: Final = tuple(str(hour) for hour in range(24))


@dataclass(frozen=True, slots=True)
class Calendar:
    """How figures come and what they mean; the same for all accounts.

    Attributes:
        settle_days: days from the beginning of a day to the moment from which its figures stand.
        reading: what the two contested figures mean: by the `text` of TikTok's page, the daily `followers_count` is the
            total of the day and `daily_total_followers` its net change; by its `samples` it is the other way round.
    """

    settle_days: int = 3
    reading: str = "text"


def day_of(moment: float) -> int:
    """Return the UTC day of a moment, in days since 1970."""
    return int(moment // DAY_SECONDS)


def date_of(day: int) -> date:
    """Return a day as a date."""
    return date(1970, 1, 1) + timedelta(days=day)


def number_of(day: date) -> int:
    """Return a date in days since 1970."""
    return (day - date(1970, 1, 1)).days


def text_of_moment(moment: float) -> str:
    """Return a moment as an ISO time in UTC, with whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).isoformat()


def followers_at_end(account: Account, day: int) -> int:
    """Return the total of followers when a day ends."""
    if day < account.opened:
        return 0
    traits = account.traits
    phase_of_week, phase_of_year, *_ = draw(account.key, "season")
    noise = draw(account.key, "followers", day)[0]
    age = (day + 1 - account.opened) / (traits.age_days + 1)
    season = 1 + 0.003 * sin(2 * pi * (day / 7 + phase_of_week)) + 0.02 * sin(2 * pi * (day / 365.25 + phase_of_year))
    return int(0.5 + traits.followers * age**traits.growth * season * (1 + 0.002 * (noise - 0.5)))


def followers_now(account: Account, moment: float) -> int:
    """Return the counter of followers, which moves evenly through each day."""
    day = day_of(moment)
    before = followers_at_end(account, day - 1)
    return before + int((followers_at_end(account, day) - before) * (moment / DAY_SECONDS - day))


def never_comes(account: Account, day: int) -> bool:
    """Return whether a day's figures are never computed."""
    return day < account.analytics_from or draw(account.key, "day", day)[7] < account.traits.missing


def first_figures_at(account: Account, day: int, calendar: Calendar) -> int:
    """Return the moment, in seconds since 1970, at which a day's first figures come."""
    late = draw(account.key, "late", day)
    delay = int(late[1] * DAY_SECONDS) if late[0] < account.traits.late else 0
    return (day + min(FIRST_FIGURES_DAYS, calendar.settle_days)) * DAY_SECONDS + delay


def settled_at(account: Account, day: int, calendar: Calendar) -> int:
    """Return the moment, in seconds since 1970, from which a day's figures stand."""
    return max((day + calendar.settle_days) * DAY_SECONDS, first_figures_at(account, day, calendar))


def corrections_to_come(account: Account, day: int, moment: float, calendar: Calendar) -> int:
    """Return how often a day's figures will still be corrected; 0 once they stand."""
    return max(0, ceil((settled_at(account, day, calendar) - moment) / STEP_SECONDS))


def figures_of(account: Account, day: int, *, to_come: int, calendar: Calendar) -> dict[str, Any]:
    """Return all figures of a day that this kind of account has.

    Args:
        account: the account.
        day: days since 1970.
        to_come: how often they will still be corrected: each correction adds some.
        calendar: what the contested figures mean.
    """
    u = draw(account.key, "day", day)
    total = followers_at_end(account, day)
    part = 1 - 0.03 * to_come if to_come else 1.0
    weekday = 1.2 if (day + 3) % 7 >= 5 else 1.0  # noqa: PLR2004  # Saturday and Sunday; day 0 was a Thursday
    views = int(total * (0.1 + 0.5 * u[0]) * weekday * part)
    likes, comments, shares = int(views * 0.06 * u[1]), int(views * 0.006 * u[2]), int(views * 0.004 * u[3])
    found: dict[str, Any] = {
        "video_views": views,
        "profile_views": int(views * 0.02 * u[5]),
        "likes": likes,
        "comments": comments,
        "shares": shares,
        "engagement_rate": round((likes + comments + shares) / views, 4) if views else 0.0,
        "completion_rate": round(0.1 + 0.4 * u[6], 4),
        "average_views": round(views / 3, 2),
        "average_likes": round(likes / 3, 2),
        "average_comments": round(comments / 3, 2),
        "average_shares": round(shares / 3, 2),
        **_followers_of(account, day, total, share=u[4], part=part, by_text=calendar.reading == "text"),
    }
    if account.traits.business:
        found |= {"unique_video_views": int(views * 0.7), "engaged_audience": int(likes * 0.8)}
        if total >= AUDIENCE_LEAST_FOLLOWERS:
            online = total * 0.3 * part
            found[ACTIVITY] = [
                {"hour": hour, "count": int(online * share)} for hour, share in zip(_HOUR_NAMES, _HOURS, strict=True)
            ]
    if account.traits.registered and account.traits.business:
        found |= {name: int(views * 0.001 * u[place]) for place, name in enumerate(REGISTERED)}
    return found


def _followers_of(
    account: Account, day: int, total: int, *, share: float, part: float, by_text: bool
) -> dict[str, Any]:
    """Return a day's figures about followers: new minus lost is the net, and a settled net leads to the total."""
    before = followers_at_end(account, day - 1)
    usual = round(before * 0.001 * (0.5 + share))
    lost = int((usual + max(0, before - total)) * part)
    new = int((usual + max(0, total - before)) * part)
    net = new - lost
    found: dict[str, Any] = {
        "followers_count": total if by_text else net,
        "followers_growth_rate": round(net / before, 6) if before else 0.0,
    }
    if account.traits.business:
        found |= {
            "daily_total_followers": net if by_text else total,
            "daily_new_followers": new,
            "daily_lost_followers": lost,
        }
    return found


def shown_day(account: Account, day: int, moment: float, calendar: Calendar) -> dict[str, Any] | None:
    """Return a day's row as TikTok shows it at a moment: `date` and its figures; None if it has no row."""
    if never_comes(account, day):
        return None
    row: dict[str, Any] = {"date": date_of(day).isoformat()}
    if moment >= first_figures_at(account, day, calendar):
        to_come = corrections_to_come(account, day, moment, calendar)
        return row | figures_of(account, day, to_come=to_come, calendar=calendar)
    match account.traits.uncomputed:
        case "empty":
            return row
        case "zero":
            found = figures_of(account, day, to_come=0, calendar=calendar)
            return row | {name: [] if name == ACTIVITY else 0 for name in found}
    return None


def shown_audience(account: Account, moment: float) -> dict[str, list[dict[str, Any]]]:
    """Return the shares of the audience as TikTok shows them on the day of a moment; they move once a day."""
    day = day_of(moment)
    if followers_at_end(account, day - FIRST_FIGURES_DAYS) < AUDIENCE_LEAST_FOLLOWERS:
        return {name: [] for name in AUDIENCES}
    return {
        "audience_ages": shares(account, "ages", day, "age", _AGES),
        "audience_genders": shares(account, "genders", day, "gender", _GENDERS),
        "audience_countries": shares(account, "countries", day, "country", _COUNTRIES[:8]),
        "audience_cities": shares(account, "cities", day, "city_name", _CITIES),
    }


def shares(account: Account, about: str, number: int, label: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Draw shares that add up to about 1, the largest first as TikTok gives them."""
    usual, moved = draw(account.key, f"usual {about}"), draw(account.key, about, number)
    weights = [(0.1 + usual[place % 8]) * (0.97 + 0.06 * moved[place % 8]) for place in range(len(names))]
    whole = sum(weights)
    found = [{label: name, "percentage": round(weight / whole, 4)} for name, weight in zip(names, weights, strict=True)]
    return sorted(found, key=lambda share: -float(share["percentage"]))


def video_audience(account: Account, video: int, day: int) -> dict[str, list[dict[str, Any]]]:
    """Return the shares of one video's audience on a day."""
    about = f"video {video}"
    return {
        "impression_sources": shares(
            account, f"{about} from", day, "impression_source", ("For You", "Follow", "Search", "Personal Profile")
        ),
        "audience_genders": shares(account, f"{about} genders", day, "gender", _GENDERS),
        "audience_countries": shares(account, f"{about} countries", day, "country", _COUNTRIES[:10]),
        "audience_cities": shares(account, f"{about} cities", day, "city_name", _CITIES),
        "audience_types": shares(account, f"{about} types", day, "type", ("NEW_VIEWER", "RETURN_VIEWER"))
        + shares(account, f"{about} followers", day, "type", ("FOLLOWER_PERCENT", "NON_FOLLOWER_PERCENT")),
    }


def profile_now(account: Account, moment: float, *, videos: int) -> dict[str, Any]:
    """Return the profile and its counters, which are of this moment.

    Args:
        account: the account.
        moment: seconds since 1970.
        videos: how many posts are public.
    """
    traits = account.traits
    a, b, c, d, *_ = draw(account.key, "profile")
    name = f"creator{int(a * 10**9)}"
    renamed = account.started + int(b * 90)
    followers = followers_now(account, moment)
    return {
        "profile_image": media_url(f"{name}.jpeg", moment),
        "display_name": traits.display_name or name.title(),
        "username": name if day_of(moment) < renamed else f"{name}.new",
        "profile_deep_link": f"https://vm.example/{name}",
        "bio_description": traits.bio,
        "is_verified": c < 0.1,  # noqa: PLR2004  # one in ten
        "following_count": int(d * 1_000),
        "followers_count": followers,
        "total_likes": followers * 7,
        "videos_count": videos,
        "is_business_account": traits.business,
    }


def media_url(name: str, moment: float) -> str:
    """Return the temporary address of an image: it ends at a full hour, 47 to 48 hours later."""
    return f"https://images.example/{name}?x-expires={(int(moment) // 3_600 + 48) * 3_600}"
