"""What TikTok tells about others than the account: averages of a category, mentions, hashtags and places."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from typing import Any, Final

from worker.sandbox.accounts.days import media_url
from worker.sandbox.accounts.traits import DAY_SECONDS, Account, draw
from worker.sandbox.accounts.videos import ID_SHIFT

MENTIONS_LEAST_AGE: Final = 3 * 3_600
"""A mention is listed this many seconds after it was made."""
_WORDS: Final = ("great", "fresh", "morning", "launch", "behind", "scenes")


def benchmark(seed: int, category: str, day: int) -> dict[str, Any]:
    """Return the averages of a business category on a day; they are the same for every creator."""
    key = blake2b(f"{seed} {category}".encode(), digest_size=32).digest()
    u, moved = draw(key, "benchmark"), draw(key, "benchmark", day)
    views = round(2_000 * (1 + 9 * u[0]) * (0.98 + 0.04 * moved[0]), 2)
    followers = round(5_000 * (1 + 20 * u[1]) * (0.999 + 0.002 * moved[1]), 2)
    return {
        "business_category": category,
        "average_likes": round(views * 0.05, 2),
        "average_comments": round(views * 0.003, 2),
        "average_shares": round(views * 0.002, 2),
        "average_video_count": round(4 + 20 * u[2], 2),
        "average_follower_count": followers,
        "average_follower_growth": round(followers * 0.01 * moved[2], 2),
        "average_engagement_rate": round(0.055 * (0.9 + 0.2 * moved[3]), 4),
        "average_video_views": views,
    }


def mentions_at(account: Account, moment: float, days: int) -> list[dict[str, Any]]:
    """Return the posts of others that mention the account, newest first.

    Args:
        account: the account.
        moment: seconds since 1970.
        days: how far back, in days.
    """
    if not account.traits.mentions:
        return []
    every = 365 * DAY_SECONDS / account.traits.mentions
    start, found = account.opened * DAY_SECONDS, []
    for number in range(int((moment - start) // every), -1, -1):
        a, b, c, d, *_ = draw(account.key, "mention", number)
        created = start + int((number + 0.9 * a) * every)
        if created + MENTIONS_LEAST_AGE > moment:
            continue
        if created < moment - days * DAY_SECONDS:
            break
        item_id = str(created << ID_SHIFT | int(b * 2**ID_SHIFT))
        views = int(100 * 10 ** (c * 3))
        found.append(
            {
                "item_id": item_id,
                "create_time": str(created),
                "video_link": f"https://www.tiktok.example/@fan{number}/video/{item_id}",
                "caption": f"{_WORDS[number % len(_WORDS)]} #fan{number % 5}",
                "likes": int(views * 0.05),
                "comments": int(views * 0.004),
                "shares": int(views * 0.003),
                "views": views,
                "reach": int(views * 0.8),
                "thumbnail_url": media_url(f"{item_id}.webp", moment),
                "creator_handle_name": f"fan{int(d * 10**6)}",
            }
        )
    return found


def mention_comments_at(account: Account, moment: float, days: int) -> list[dict[str, Any]]:
    """Return comments that mention the account, one for each post that does, newest first."""
    found = []
    for post in mentions_at(account, moment, days):
        number = int(post["item_id"])
        found.append(
            {
                "item_id": post["item_id"],
                "video_link": post["video_link"],
                "caption": post["caption"],
                "video_likes": post["likes"],
                "thumbnail_url": post["thumbnail_url"],
                "commenter_display_name": f"Viewer {number % 1_000}",
                "comment_id": str(number + 1),
                "comment_type": "REPLY" if number % 3 == 0 else "COMMENT",
                "comment_text": "Look at this!",
                "comment_create_time": str(int(post["create_time"]) + 60),
                "comment_likes": number % 50,
            }
        )
    return found


def top_of(mentions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Count the words or hashtags of captions, the most frequent first.

    Args:
        mentions: posts that mention the account.
        kind: `word` or `hashtag`.
    """
    parts = [part for post in mentions for part in post["caption"].split()]
    named = [part.removeprefix("#") for part in parts if part.startswith("#") is (kind == "hashtag")]
    return [{kind: name, "count": count} for name, count in sorted(Counter(named).items(), key=lambda one: -one[1])]


def hashtags(keyword: str) -> list[dict[str, Any]]:
    """Suggest ten hashtags for a keyword."""
    word = "".join(letter for letter in keyword.lower() if letter.isalnum())
    return [
        {"name": f"{word}{ending}", "view_count": 10**9 // (place + 1)}
        for place, ending in enumerate(
            ("", "tok", "life", "love", "daily", "tips", "fun", "time", "world", "challenge")
        )
    ]


def places(query: str) -> list[dict[str, Any]]:
    """Find three places for a query."""
    return [
        {
            "location_id": str(blake2b(f"{query} {number}".encode("utf-8", "replace"), digest_size=7).hexdigest()),
            "location_name": f"{query} {kind}",
            "location_address": f"{number} High Street, {query}",
        }
        for number, kind in enumerate(("Station", "Market", "Museum"), 1)
    ]
