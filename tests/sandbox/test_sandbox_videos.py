"""The lists: videos with their pages, figures and ends; comments and replies; benchmark and mentions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from worker.sandbox.accounts.traits import CATEGORIES, AccountBook
from worker.sandbox.accounts.videos import (
    CURVES,
    FIELDS,
    HIDDEN_DAYS,
    VANISHING,
    find_video,
    posted_by,
    public_videos,
    shown_video,
    video,
)
from worker.sandbox.process import RunningSandbox

DAY = 86_400
LONG = 10**8
NO_CURVES = json.dumps([name for name in FIELDS if name not in CURVES])
EVERYTHING = [
    "user.info.basic",
    "user.insights",
    "video.list",
    "video.insights",
    "video.publish",
    "comment.list",
    "biz.brand.insights",
]

Get = Callable[..., dict[str, Any]]


@pytest.fixture
def sandbox(start: Callable[..., RunningSandbox]) -> RunningSandbox:
    """A sandbox whose app may read everything, with access tokens that live long."""
    return start(expires_in=LONG, scopes=EVERYTHING)


@pytest.fixture
def get(sandbox: RunningSandbox, send: Callable[..., SimpleNamespace]) -> Get:
    """Read one list of a creator; each creator gets one token."""
    tokens: dict[str, str] = {}

    def _get(path: str, creator: str = "ada", **query: Any) -> dict[str, Any]:
        if creator not in tokens:
            tokens[creator] = sandbox.grants(creators=[creator])[0]["access_token"]
        text = urlencode({"business_id": creator, **query})
        answer = send(
            sandbox, "GET", f"/open_api/v1.3/business/{path}?{text}", headers={"Access-Token": tokens[creator]}
        )
        found: dict[str, Any] = answer.json
        return found

    return _get


def pages(get: Get, path: str, creator: str = "ada", **query: Any) -> Iterator[dict[str, Any]]:
    """Read a list to its end, as a client should: on `has_more` alone."""
    more: dict[str, Any] = {}
    while True:
        data = get(path, creator, **query, **more)["data"]
        yield data
        if not data["has_more"]:
            return
        assert data["cursor"] != more.get("cursor")
        more = {"cursor": data["cursor"]}


def test_videos_come_newest_first_and_each_once(sandbox: RunningSandbox, get: Get) -> None:
    """The pages bring each public post once; the last has a cursor all the same."""
    sandbox.set_account("ada", videos=95, deleted_every=0, hidden_every=0)

    found = list(pages(get, "video/list/", fields='["item_id","create_time"]', max_count=20))

    videos = [one for page in found for one in page["videos"]]
    times = [int(one["create_time"]) for one in videos]
    assert [len(page["videos"]) for page in found][:4] == [20, 20, 20, 20]
    assert times == sorted(times, reverse=True)
    assert len({one["item_id"] for one in videos}) == len(videos) >= 95
    assert found[-1]["cursor"] == times[-1] * 1_000
    assert all(0 <= int(one["create_time"]) - (int(one["item_id"]) >> 32) <= 182 for one in videos)


def test_pages_of_private_posts_are_empty_and_have_more(sandbox: RunningSandbox, get: Get) -> None:
    """A run of private posts leaves pages with nothing in them; the list goes on behind it."""
    sandbox.set_account("ada", videos=120, private_run=45, deleted_every=0, hidden_every=0)

    found = list(pages(get, "video/list/", max_count=20))

    sizes = [len(page["videos"]) for page in found]
    assert 0 in sizes[:-1]
    assert 75 <= sum(sizes) < 80


def test_private_account_has_no_videos(sandbox: RunningSandbox, get: Get) -> None:
    """A private account's list is empty, without an error."""
    sandbox.set_account("ada", private=True)

    answer = get("video/list/")

    assert (answer["code"], answer["data"]["videos"]) == (0, [])


def test_all_fields_have_a_value_while_a_video_is_active(sandbox: RunningSandbox, get: Get) -> None:
    """All 33 fields come with the types of TikTok's page."""
    sandbox.set_account("ada", videos=200, video_seconds=15)

    answer = get("video/list/", fields=json.dumps(FIELDS), max_count=20)

    full = next(one for one in answer["data"]["videos"] if one.keys() == set(FIELDS))
    texts = {"item_id", "media_type", "thumbnail_url", "share_url", "embed_url", "caption", "create_time"}
    floats = {"video_duration", "total_time_watched", "average_time_watched", "full_video_watched_rate"}
    lists = {name for name in FIELDS if isinstance(full[name], list)}
    assert len(FIELDS) == 33
    assert all(isinstance(full[name], str) for name in texts)
    assert all(isinstance(full[name], float) for name in floats)
    assert lists == {name for name in FIELDS if name.startswith("audience_")} | {*CURVES, "impression_sources"}
    assert len(full["video_view_retention"]) == 16
    assert full["video_view_retention"][0] == {"second": "0", "percentage": 1.0}


def test_page_of_long_videos_is_about_a_megabyte(sandbox: RunningSandbox, get: Get) -> None:
    """Twenty videos of ten minutes, with both curves, make an answer near a megabyte, or over it."""
    sandbox.set_account("ada", videos=200, video_seconds=600, deleted_every=0, hidden_every=0)

    data = get("video/list/", fields=json.dumps(FIELDS), max_count=20)["data"]

    assert len(json.dumps(data)) > 950_000


def test_figures_grow_once_a_day_and_then_stand_still() -> None:
    """Within a UTC day nothing moves; from day to day views never fall; after the last activity they stand."""
    account = AccountBook(1, 20_000).find("growing")
    one = video(account, posted_by(account, 20_000 * DAY) - 1)
    begin = one.created // DAY
    wanted = frozenset({"video_views"})

    views = [shown_video(account, one, day * DAY + 1, wanted).get("video_views", 0) for day in range(begin, begin + 60)]
    again = [
        shown_video(account, one, day * DAY + 86_399, wanted).get("video_views", 0) for day in range(begin, begin + 60)
    ]

    assert views == sorted(views) == again
    end = one.last_activity // DAY - begin + 2
    assert len(set(views[end:])) == 1
    assert views[1] < views[-1]


def test_seven_day_fields_vanish_after_the_last_activity() -> None:
    """Six fields are there seven days after the last activity, and then gone, while the others stay."""
    account = AccountBook(1, 20_000).find("vanishing")
    one = next(each for each in (video(account, number) for number in range(20)) if each.seconds)
    quiet = one.last_activity + DAY

    during = shown_video(account, one, quiet + 5 * DAY, frozenset(FIELDS))
    after = shown_video(account, one, quiet + 9 * DAY, frozenset(FIELDS))

    assert set(VANISHING) <= during.keys()
    assert during.keys() - after.keys() == set(VANISHING)
    assert {name: during[name] for name in after if name != "thumbnail_url"} == {
        name: value for name, value in after.items() if name != "thumbnail_url"
    }


def test_deleted_and_hidden_videos_leave_the_list() -> None:
    """A deleted post never comes back, a hidden one after ten days; the count of videos follows."""
    account = AccountBook(7, 20_000).find("leaving")
    moment = 20_000 * DAY
    videos = [video(account, number) for number in range(posted_by(account, moment))]
    deleted = next(one for one in videos if one.deleted < moment)
    hidden = next(one for one in videos if one.hidden[1] < moment)

    assert deleted.is_public(deleted.deleted - 1)
    assert not deleted.is_public(deleted.deleted)
    assert [hidden.is_public(hidden.hidden[0] + day * DAY) for day in (-1, 0, HIDDEN_DAYS)] == [True, False, True]
    for later in range(0, 100, 9):
        at = moment + later * DAY
        everything = (video(account, number) for number in range(posted_by(account, at)))
        assert public_videos(account, at) == sum(one.is_public(at) for one in everything)


def test_every_video_is_found_by_its_id() -> None:
    """Ids lead back to their posts, and ids of no post to nothing."""
    account = AccountBook(2, 20_000).find("ids")
    videos = [video(account, number) for number in range(posted_by(account, 20_000 * DAY))]

    assert all(find_video(account, one.item_id) == one for one in videos)
    for wrong in ("", "1", "x", "-5", "9" * 20, "9" * 5_000, "\u0665"):
        assert find_video(account, wrong) is None


def test_filters_bring_chosen_videos(sandbox: RunningSandbox, get: Get) -> None:
    """Ids in `filters` bring those posts, cursor 0 and no more; `ad_post_only` leaves the others out."""
    ids = [one["item_id"] for one in get("video/list/", max_count=5)["data"]["videos"]]

    chosen = get("video/list/", filters=json.dumps({"video_ids": [ids[2], "12", ids[0]]}))["data"]
    ads = get("video/list/", filters=json.dumps({"video_ids": ids, "ad_post_only": True}), fields='["item_id","is_ad"]')

    assert [one["item_id"] for one in chosen["videos"]] == [ids[2], ids[0]]
    assert (chosen["cursor"], chosen["has_more"]) == (0, False)
    assert all(one["is_ad"] for one in ads["data"]["videos"])


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("video/list/", {"fields": '["likes"]'}, 40002),
        ("video/list/", {"fields": '["item_id","shoe_size"]'}, 40002),
        ("video/list/", {"max_count": 21}, 40002),
        ("video/list/", {"max_count": 0}, 40002),
        ("video/list/", {"cursor": "now"}, 40002),
        ("video/list/", {"cursor": "9" * 5_000}, 40002),
        ("video/list/", {"filters": "[]"}, 40002),
        ("video/list/", {"filters": '{"ad_post_only":true}'}, 40002),
        ("video/list/", {"filters": "[" * 10_000}, 40002),
        ("comment/list/", {}, 40002),
        ("comment/list/", {"video_id": "12"}, 40001),
        ("benchmark/", {"business_category": "SHOES"}, 40002),
        ("mention/video/list/", {"sort_field": "SHOES"}, 40002),
        ("mention/video/get/", {"item_id": "12"}, 40002),
        ("publish/status/", {"publish_id": "x"}, 40002),
        ("property/list/", {"app_id": "another"}, 40101),
    ],
)
def test_wrong_reads_of_lists(get: Get, path: str, query: dict[str, Any], code: int) -> None:
    """A wrong parameter of a list is refused with its code."""
    assert get(path, **query)["code"] == code


def test_scopes_of_lists(sandbox: RunningSandbox, send: Callable[..., SimpleNamespace]) -> None:
    """Each list needs its scope, and the insights of a video one of their own."""
    token = sandbox.grants(creators=["few"], scope="video.list")[0]["access_token"]

    def code(path: str, **query: Any) -> int:
        text = urlencode({"business_id": "few", **query})
        answer = send(sandbox, "GET", f"/open_api/v1.3/business/{path}?{text}", headers={"Access-Token": token})
        return int(answer.json["code"])

    assert code("video/list/", fields='["item_id","likes"]') == 0
    assert code("video/list/", fields='["item_id","new_followers"]') == 40130
    assert code("comment/list/", video_id="1") == 40130
    assert code("mention/video/list/") == 40130
    assert code("video/settings/") == 40130


def _busy_video(get: Get, **query: Any) -> tuple[str, list[dict[str, Any]]]:
    """Return an old post and its comments, in the order of time."""
    video_id = list(pages(get, "video/list/", max_count=20))[-1]["videos"][-1]["item_id"]
    listed = pages(get, "comment/list/", video_id=video_id, sort_field="create_time", sort_order="asc", **query)
    return video_id, [one for page in listed for one in page["comments"]]


def test_comments_come_in_pages_by_offset(sandbox: RunningSandbox, get: Get) -> None:
    """The pages bring each comment once in the order asked for, hidden ones unless only public ones are wanted."""
    sandbox.set_account("ada", comments=90)

    video_id, found = _busy_video(get)
    public = get("comment/list/", video_id=video_id, status="PUBLIC", max_count=30, sort_field="likes")["data"][
        "comments"
    ]
    chosen = get("comment/list/", video_id=video_id, comment_ids=json.dumps([found[3]["comment_id"]]))["data"]

    times = [int(one["create_time"]) for one in found]
    assert len({one["comment_id"] for one in found}) == len(found) > 20
    assert times == sorted(times)
    assert {one["status"] for one in found} == {"PUBLIC", "HIDDEN"}
    assert {one["status"] for one in public} == {"PUBLIC"}
    assert all(earlier["likes"] >= later["likes"] for earlier, later in pairwise(public))
    assert [one["comment_id"] for one in chosen["comments"]] == [found[3]["comment_id"]]


@pytest.mark.slow_suite
def test_beyond_500_comments_some_come_twice(sandbox: RunningSandbox, get: Get) -> None:
    """A long list is sorted by likes whatever was asked for, and repeats comments near its end, but misses none."""
    sandbox.set_account("ada", comments=3_000)

    _, found = _busy_video(get)

    ids = [one["comment_id"] for one in found]
    assert len(found) > len(set(ids)) > 500
    assert len(set(ids[:500])) == 500
    assert all(earlier["likes"] >= later["likes"] for earlier, later in pairwise(found))


@pytest.mark.parametrize("reply_ids", ["text", "numbers"])
def test_replies_beside_comments_and_in_their_own_list(sandbox: RunningSandbox, get: Get, reply_ids: str) -> None:
    """At most three replies stand beside a comment; the list of replies has all, and text ids always."""
    sandbox.change(reply_ids=reply_ids)
    sandbox.set_account("ada", comments=300)

    video_id, found = _busy_video(get, include_replies="true")

    one = max((each for each in found if each["status"] == "PUBLIC"), key=lambda each: each["replies"])
    own = get("comment/reply/list/", video_id=video_id, comment_id=one["comment_id"], sort_field="create_time")["data"]
    assert one["replies"] == len(own["comments"]) > 3 == len(one["reply_list"])
    assert {reply["parent_comment_id"] for reply in own["comments"]} == {one["comment_id"]}
    beside = one["reply_list"][0]
    assert isinstance(beside["comment_id"], int) is (reply_ids == "numbers")
    assert (":" in beside["create_time"]) is (reply_ids == "numbers")
    assert str(beside["comment_id"]) in {reply["comment_id"] for reply in own["comments"]}


def test_benchmark_is_the_same_for_every_creator(sandbox: RunningSandbox, get: Get) -> None:
    """Averages hang on category and day, not on who asks."""
    query = {"business_category": CATEGORIES[3]}

    first, second = get("benchmark/", **query)["data"], get("benchmark/", "eve", **query)["data"]
    other = get("benchmark/", business_category=CATEGORIES[4])["data"]
    sandbox.advance(days=1)

    assert first == second != other
    assert first.keys() == other.keys() == get("benchmark/", **query)["data"].keys()
    assert len(first) == 9
    assert get("benchmark/", **query)["data"] != first


def test_mentions_are_listed_sorted_and_counted(sandbox: RunningSandbox, get: Get) -> None:
    """Mentions come in pages by offset, alone by id, and as words and hashtags."""
    sandbox.set_account("ada", mentions=400)
    query: dict[str, Any] = {"number_of_days": 60, "max_count": 20, "sort_field": "LIKES"}

    found = [one for page in pages(get, "mention/video/list/", **query) for one in page["videos"]]
    comments = [one for page in pages(get, "mention/comment/list/", number_of_days=60) for one in page["comments"]]

    assert len({one["item_id"] for one in found}) == len(found) == len(comments) > 40
    assert all(earlier["likes"] >= later["likes"] for earlier, later in pairwise(found))
    assert get("mention/video/get/", item_id=found[0]["item_id"], number_of_days=60)["data"] == found[0]
    assert get("mention/top_word/list/")["data"]["results"][0]["count"] > 1
    assert get("mention/top_hashtag/list/")["data"]["results"][0]["hashtag"].startswith("fan")
