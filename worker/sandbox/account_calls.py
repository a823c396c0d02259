"""The calls that read account data: scopes, pages and their errors; the figures come from `accounts`.

Parameters, fields, scopes and defaults follow TikTok's pages on these calls (official docs 1762228399168514,
1762228421622786, 1822388944791617 and those on comments and mentions).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Final
from urllib.parse import parse_qs

from worker.sandbox import token_calls
from worker.sandbox.accounts import comments, days, surroundings, videos
from worker.sandbox.accounts.traits import CATEGORIES, draw
from worker.sandbox.fault_kinds import Plan
from worker.sandbox.parameters import Read, read_json
from worker.sandbox.token_calls import BAD_PARAMETER, Outcome, RefusedError, check_not_blocked, live_pair
from worker.sandbox.world import World

FURTHEST_BACK_DAYS: Final = 60
DEFAULT_DAYS: Final = 7
DEFAULT_FIELDS: Final = ("display_name", "profile_image")
PARTIAL: Final = 20_001
FIELD_SCOPES: Final = {
    **dict.fromkeys(("profile_image", "display_name"), "user.info.basic"),
    "username": "user.info.username",
    **dict.fromkeys(("profile_deep_link", "bio_description", "is_verified"), "user.info.profile"),
    **dict.fromkeys(("following_count", "followers_count", "total_likes", "videos_count"), "user.info.stats"),
    "is_business_account": "user.account.type",
    **dict.fromkeys((*days.AUDIENCES, *days.METRICS), "user.insights"),
}
"""Every field of an account and the scope it needs."""
VIDEO_SCOPES: Final = {
    **dict.fromkeys((*videos.REAL_TIME, *videos.LISTED), "video.list"),
    **dict.fromkeys(videos.INSIGHTS, "video.insights"),
}
"""Every field of a video and the scope it needs."""
MOST_VIDEOS: Final = 20
USUAL_VIDEOS: Final = 10
MOST_COMMENTS: Final = 30
USUAL_COMMENTS: Final = 20
SORTED_COMMENTS: Final = 500
"""Beyond this many comments a list is sorted by likes, and every tenth place of the rest brings one again."""
REPEATED_EVERY: Final = 10
MOST_MENTIONS: Final = 100
MENTIONS_LISTED: Final = 1_000
MENTION_DAYS: Final = 30
PUBLISHED: Final = "v_pub~"
MILLISECONDS: Final = 1_000


def read(world: World, call: str, access_token: str, query: str, plan: Plan | None) -> Outcome:
    """Answer one of the reads.

    Args:
        world: the sandbox.
        call: its path below the base.
        access_token: text of the Access-Token header, or an empty text.
        query: the raw query.
        plan: the faults that strike.

    Raises:
        RefusedError: the answer is an application error.
    """
    if not access_token:
        raise RefusedError(token_calls.ACCESS_MISSING, "Access token is missing.")
    check_not_blocked(world)
    consent = live_pair(world, access_token).consent
    sent = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    plan = plan or Plan()
    creator_id = consent.creator.creator_id
    if call != PROPERTIES:
        if not sent.get("business_id"):
            raise RefusedError(BAD_PARAMETER, "business_id: Missing data for required field.")
        if sent["business_id"] != creator_id:
            raise RefusedError(token_calls.NO_PERMISSION, "No permission to operate this business_id.")
    data = READS[call](Read(world, consent, world.account(plan.other or creator_id), world.clock.now(), sent, plan))
    if plan.partial:
        kept = {name: _less(value, plan.partial) for name, value in data.items() if name not in plan.partial}
        return Outcome(PARTIAL, "Partial success.", data=kept)
    return Outcome(data=data)


def _less(value: Any, names: frozenset[str]) -> Any:
    """Leave fields out of the rows of a list."""
    if not isinstance(value, list):
        return value
    return [{n: v for n, v in row.items() if n not in names} if isinstance(row, dict) else row for row in value]


def _account(asked: Read) -> dict[str, Any]:
    wanted = asked.fields(DEFAULT_FIELDS, FIELD_SCOPES)
    first, last = _dates(asked)
    account, now = asked.account, asked.now
    count = videos.public_videos(account, now) if "videos_count" in wanted else 0
    profile = days.profile_now(account, now, videos=count)
    data = {name: value for name, value in profile.items() if name in wanted}
    if not wanted.isdisjoint(days.AUDIENCES):
        data |= {name: value for name, value in days.shown_audience(account, now).items() if name in wanted}
    daily = wanted.intersection(days.METRICS)
    if "followers_count" in wanted and "user.insights" in asked.consent.scope:
        daily |= {"followers_count"}
    if daily:
        calendar = asked.world.calendar()
        rows = (days.shown_day(account, day, now, calendar) for day in range(first, last + 1))
        daily |= {"date"}
        data["metrics"] = [{n: v for n, v in row.items() if n in daily} for row in rows if row is not None]
    return data


def _dates(asked: Read) -> tuple[int, int]:
    """Return the first and the last day asked for, in days since 1970."""
    today = days.day_of(asked.now)
    found = []
    for name, default in (("start_date", today - DEFAULT_DAYS), ("end_date", today - 1)):
        text = asked.sent.get(name)
        try:
            found.append(days.number_of(date.fromisoformat(text)) if text is not None else default)
        except ValueError:
            raise RefusedError(BAD_PARAMETER, f"{name}: Not a date as YYYY-MM-DD.") from None
    first, last = found
    longest = asked.world.options.longest_span_days
    if last >= today:
        raise RefusedError(BAD_PARAMETER, "end_date: Must be before the current UTC date.")
    if first < today - FURTHEST_BACK_DAYS:
        raise RefusedError(BAD_PARAMETER, f"start_date: At most {FURTHEST_BACK_DAYS} days back.")
    if first > last:
        raise RefusedError(BAD_PARAMETER, "start_date: After end_date.")
    if last - first >= longest:
        raise RefusedError(BAD_PARAMETER, f"start_date, end_date: The range is longer than {longest} days.")
    return first, last


def _videos(asked: Read) -> dict[str, Any]:
    wanted = asked.fields(("item_id",), VIDEO_SCOPES)
    if "item_id" not in wanted:
        raise RefusedError(BAD_PARAMETER, "fields: Must contain item_id.")
    most = asked.number("max_count", USUAL_VIDEOS, 1, MOST_VIDEOS)
    account, now = asked.account, asked.now
    if "filters" in asked.sent:
        chosen = [one for one in _chosen(asked) if one.is_public(now)]
        page = [videos.shown_video(account, one, now, wanted) for one in chosen]
        return {"videos": page, "cursor": 0, "has_more": False}
    cursor = asked.number("cursor", int(now * MILLISECONDS) + 1, 0, 2**53)
    looked_at: list[videos.Video] = []
    has_more = False
    # A page is cut before posts that are not public are taken out of it, so it may be short, or empty.
    for one in videos.videos_before(account, min(cursor / MILLISECONDS, now)):
        if len(looked_at) == most:
            has_more = True
            break
        looked_at.append(one)
    page = [videos.shown_video(account, one, now, wanted) for one in looked_at if one.is_public(now)]
    if asked.plan.stuck and page:
        return {"videos": page, "cursor": cursor, "has_more": True}
    last = looked_at[-1].created * MILLISECONDS if looked_at else 0
    return {"videos": page, "cursor": last, "has_more": has_more}


def _chosen(asked: Read) -> list[videos.Video]:
    filters = read_json(asked.sent["filters"], "filters")
    if not isinstance(filters, dict) or filters.keys() - {"video_ids", "ad_post_only"}:
        raise RefusedError(BAD_PARAMETER, "filters: Not an object with video_ids and ad_post_only.")
    ids = filters.get("video_ids")
    if not isinstance(ids, list) or not ids or len(ids) > MOST_VIDEOS or not all(isinstance(one, str) for one in ids):
        raise RefusedError(BAD_PARAMETER, f"filters: video_ids must be a list of at most {MOST_VIDEOS} ids.")
    found = [one for one in (videos.find_video(asked.account, text) for text in ids) if one is not None]
    shown = ((one, videos.shown_video(asked.account, one, asked.now, frozenset({"is_ad"}))) for one in found)
    return [one for one, fields in shown if fields["is_ad"] or not filters.get("ad_post_only")]


def _video(asked: Read) -> videos.Video:
    found = videos.find_video(asked.account, asked.needed("video_id"))
    if found is None or not found.is_public(asked.now):
        raise RefusedError(token_calls.NO_PERMISSION, "No permission to operate this video_id.")
    return found


def _comments(asked: Read) -> dict[str, Any]:
    asked.need_scope("comment.list", "comments")
    video = _video(asked)
    found = comments.comments_at(asked.account, video, asked.now)
    ids = asked.texts("comment_ids", MOST_COMMENTS)
    if ids is not None:
        found = [one for one in found if one.comment_id in ids]
    inline = asked.sent.get("include_replies", "").lower() == "true"
    page = _page_of_comments(asked, found)
    if inline:
        parents = {one.comment_id: one for one in found}
        for row in page["comments"]:
            replies = comments.replies_at(asked.account, parents[row["comment_id"]], asked.now)
            row["reply_list"] = [_reply(asked, one) for one in replies[: comments.INLINE_REPLIES]]
    return page


def _replies(asked: Read) -> dict[str, Any]:
    asked.need_scope("comment.list", "comments")
    video, comment_id = _video(asked), asked.needed("comment_id")
    parents = [one for one in comments.comments_at(asked.account, video, asked.now) if one.comment_id == comment_id]
    if not parents or parents[0].hidden:
        raise RefusedError(token_calls.NO_PERMISSION, "No permission to operate this comment_id.")
    return _page_of_comments(asked, comments.replies_at(asked.account, parents[0], asked.now))


def _page_of_comments(asked: Read, found: list[comments.Comment]) -> dict[str, Any]:
    if asked.choice("status", "ALL", "PUBLIC", "ALL") == "PUBLIC":
        found = [one for one in found if not one.hidden]
    field = asked.choice("sort_field", "", "", "likes", "replies", "create_time")
    order = asked.choice("sort_order", "desc", "asc", "desc", "smart")
    keys: dict[str, Callable[[comments.Comment], float]] = {
        "likes": lambda one: one.likes,
        "replies": lambda one: one.replies,
        "create_time": lambda one: one.created,
        "": lambda one: draw(asked.account.key, one.comment_id, int(asked.now * MILLISECONDS))[0],
    }
    long = len(found) > SORTED_COMMENTS
    found = sorted(found, key=keys["likes" if long else field], reverse=long or order != "asc")
    if long:
        rest = found[SORTED_COMMENTS:]
        found = found[:SORTED_COMMENTS]
        for place, one in enumerate(rest):
            found += [one, one] if place % REPEATED_EVERY == 0 else [one]
    cursor = asked.number("cursor", 0, 0, 2**53)
    most = asked.number("max_count", USUAL_COMMENTS, 1, MOST_COMMENTS)
    page = [comments.shown_comment(one, asked.account, asked.now) for one in found[cursor : cursor + most]]
    has_more = cursor + most < len(found)
    if asked.plan.stuck and page:
        return {"comments": page, "cursor": cursor, "has_more": True}
    return {"comments": page, "cursor": min(cursor + most, len(found)), "has_more": has_more}


def _reply(asked: Read, one: comments.Comment) -> dict[str, Any]:
    found = comments.shown_comment(one, asked.account, asked.now)
    if asked.world.options.reply_ids == "numbers":
        found |= {name: int(found[name]) for name in ("comment_id", "video_id", "parent_comment_id")}
        found["create_time"] = days.text_of_moment(one.created).removesuffix("+00:00").replace("T", " ")
    return found


def _benchmark(asked: Read) -> dict[str, Any]:
    category = asked.choice("business_category", "", *CATEGORIES)
    return surroundings.benchmark(asked.account.seed, category, days.day_of(asked.now))


def _mentions(asked: Read) -> list[dict[str, Any]]:
    asked.need_scope("biz.brand.insights", "mentions")
    back = asked.number("number_of_days", MENTION_DAYS, 1, 365)
    return surroundings.mentions_at(asked.account, asked.now, back)[:MENTIONS_LISTED]


def _mention_list(asked: Read) -> dict[str, Any]:
    sorts = {"CREATE_TIME": "create_time", "LIKES": "likes", "COMMENTS": "comments", "SHARES": "shares"}
    return _page_of_mentions(asked, "videos", _mentions(asked), sorts)


def _mention_comments(asked: Read) -> dict[str, Any]:
    asked.need_scope("biz.brand.insights", "mentions")
    back = asked.number("number_of_days", MENTION_DAYS, 1, 365)
    found = surroundings.mention_comments_at(asked.account, asked.now, back)[:MENTIONS_LISTED]
    sorts = {
        "COMMENT_CREATE_TIME": "comment_create_time",
        "VIDEO_LIKES": "video_likes",
        "COMMENT_LIKES": "comment_likes",
    }
    return _page_of_mentions(asked, "comments", found, sorts)


def _page_of_mentions(asked: Read, name: str, found: list[dict[str, Any]], sorts: dict[str, str]) -> dict[str, Any]:
    field = sorts[asked.choice("sort_field", next(iter(sorts)), *sorts)]
    ascending = asked.choice("sort_type", "DESC", "ASC", "DESC") == "ASC"
    found = sorted(found, key=lambda one: int(one[field]), reverse=not ascending)
    cursor = asked.number("cursor", 0, 0, MENTIONS_LISTED)
    most = asked.number("max_count", USUAL_COMMENTS, 1, MOST_MENTIONS)
    end = min(cursor + most, len(found))
    return {name: found[cursor:end], "cursor": end, "has_more": end < len(found)}


def _mention(asked: Read) -> dict[str, Any]:
    item_id = asked.needed("item_id")
    found = next((one for one in _mentions(asked) if one["item_id"] == item_id), None)
    if found is None:
        raise RefusedError(BAD_PARAMETER, "item_id: No such mention.")
    return found


def _mention_words(asked: Read) -> dict[str, Any]:
    return {"results": surroundings.top_of(_mentions(asked), "word")}


def _mention_hashtags(asked: Read) -> dict[str, Any]:
    return {"results": surroundings.top_of(_mentions(asked), "hashtag")}


def _settings(asked: Read) -> dict[str, Any]:
    asked.need_scope("video.publish", "post settings")
    a, b, c, *_ = draw(asked.account.key, "settings")
    levels = ["MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
    return {
        "privacy_level_options": levels if asked.account.traits.private else ["PUBLIC_TO_EVERYONE", *levels],
        "comment_disabled": a < 0.1,  # noqa: PLR2004  # one in ten
        "duet_disabled": b < 0.5,  # noqa: PLR2004  # one in two
        "stitch_disabled": c < 0.5,  # noqa: PLR2004  # one in two
        "max_video_post_duration_sec": 600,
    }


def _publish_status(asked: Read) -> dict[str, Any]:
    asked.need_scope("video.publish", "publishing")
    found = videos.find_video(asked.account, asked.needed("publish_id").removeprefix(PUBLISHED))
    if found is None:
        raise RefusedError(BAD_PARAMETER, "publish_id: No such publishing task.")
    if found.is_public(asked.now):
        return {"status": "PUBLISH_COMPLETE", "post_ids": [found.item_id]}
    return {"status": "FAILED", "reason": "video_removed"}


def _hashtags(asked: Read) -> dict[str, Any]:
    asked.need_scope("video.publish", "hashtags")
    return {"suggestions": surroundings.hashtags(asked.needed("keyword"))}


def _locations(asked: Read) -> dict[str, Any]:
    asked.need_scope("video.publish", "locations")
    return {"locations": surroundings.places(asked.needed("search_query"))}


def _properties(asked: Read) -> dict[str, Any]:
    asked.need_scope("video.publish", "URL properties")
    app = asked.world.app
    if asked.needed("app_id") != app.app_id or asked.sent.get("secret", next(iter(app.secrets))) not in app.secrets:
        raise RefusedError(token_calls.WRONG_APP, "app_id and secret do not match.")
    own = {"property_type": 1, "url": "media.example", "property_status": 1, "signature": "", "file_name": ""}
    return {"url_property_info_list": [own]}


PROPERTIES: Final = "business/property/list/"
READS: Final[dict[str, Callable[[Read], dict[str, Any]]]] = {
    "business/get/": _account,
    "business/video/list/": _videos,
    "business/comment/list/": _comments,
    "business/comment/reply/list/": _replies,
    "business/benchmark/": _benchmark,
    "business/mention/video/list/": _mention_list,
    "business/mention/video/get/": _mention,
    "business/mention/comment/list/": _mention_comments,
    "business/mention/top_word/list/": _mention_words,
    "business/mention/top_hashtag/list/": _mention_hashtags,
    "business/video/settings/": _settings,
    "business/publish/status/": _publish_status,
    "business/hashtag/suggestion/": _hashtags,
    "business/publish/location/": _locations,
    PROPERTIES: _properties,
}
"""What answers each read, by its path."""
