"""From answers to rows: what is good is taken over, what is not becomes a doubt, and nothing is lost in silence."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from worker.accounts.cleaning import Cleaned, Cleaner, without_odd
from worker.accounts.resources import (
    ACCOUNT,
    BENCHMARK,
    COMMENTS,
    MENTIONS,
    REPLIES,
    RESOURCES,
    VIDEOS,
    Resource,
)
from worker.store import LabelledList
from worker.store.account_models import DATA
from worker.tiktok import OddNumber, ReadAnswer

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SPAN = (date(2026, 9, 28), date(2026, 11, 26))


def cleaned(resource: Resource, data: dict[str, Any], *, repeated: frozenset[str] = frozenset(), **how: Any) -> Cleaned:
    """Clean an answer for the creator ada."""
    if resource is ACCOUNT:
        how.setdefault("days", SPAN)
    return Cleaner(resource, ReadAnswer(data, "r", repeated=repeated), creator_id="ada", now=NOW, **how).clean()


def reasons(found: Cleaned) -> list[tuple[str, str]]:
    """Return place and reason of each doubt."""
    return [(doubt.path, doubt.reason) for doubt in found.doubts]


def test_every_declared_field_has_a_column_or_a_list() -> None:
    """A declaration that names no column of its table would fail at the first pull."""
    tables = {table.name: table for table in DATA}
    for resource in RESOURCES:
        for part in resource.parts:
            for each in part.fields:
                if each.listed is None and each.name != "audience_activity":
                    assert each.stored_as in tables[part.table].c, (resource.name, each.name)
                else:
                    assert each.kind in {"list", "hours"}
            assert set(part.key) <= {column.name for column in tables[part.table].c}


DOCUMENTED = {
    ACCOUNT: (
        "display_name profile_image username profile_deep_link bio_description is_verified following_count "
        "followers_count total_likes videos_count is_business_account audience_ages audience_genders "
        "audience_countries audience_cities date video_views profile_views likes comments shares unique_video_views "
        "engaged_audience daily_new_followers daily_lost_followers daily_total_followers phone_number_clicks "
        "lead_submissions app_download_clicks bio_link_clicks email_clicks address_clicks audience_activity "
        "engagement_rate completion_rate average_views average_likes average_comments average_shares "
        "followers_growth_rate"
    ),
    VIDEOS: (
        "item_id media_type is_ad thumbnail_url share_url embed_url caption create_time video_duration likes comments "
        "shares favorites reach video_views total_time_watched average_time_watched full_video_watched_rate "
        "new_followers profile_views website_clicks phone_number_clicks lead_submissions app_download_clicks "
        "email_clicks address_clicks video_view_retention engagement_likes impression_sources audience_genders "
        "audience_countries audience_cities audience_types"
    ),
    COMMENTS: (
        "comment_id video_id parent_comment_id user_id unique_identifier create_time text image_url username "
        "display_name profile_image likes replies liked pinned owner status"
    ),
    REPLIES: "comment_id video_id parent_comment_id create_time text",
    BENCHMARK: (
        "business_category average_likes average_comments average_shares average_video_count average_follower_count "
        "average_follower_growth average_engagement_rate average_video_views"
    ),
    MENTIONS: (
        "item_id create_time video_link caption likes comments shares views reach thumbnail_url creator_handle_name"
    ),
}


def test_every_documented_field_has_a_place() -> None:
    """The list is TikTok's, copied here by hand: 33 fields of a video, and all of the others."""
    assert len(DOCUMENTED[VIDEOS].split()) == 33
    for resource, names in DOCUMENTED.items():
        declared = {each.name for part in resource.parts for each in part.fields}
        assert set(names.split()) <= declared, resource.name


def test_an_account_becomes_profile_counters_days_hours_and_shares() -> None:
    """One answer fills five tables; absent and null stay absent; the address keeps its end."""
    found = cleaned(
        ACCOUNT,
        {
            "display_name": "Ada",
            "bio_description": "",
            "profile_image": "https://p.example/a?x-expires=1795867200",
            "followers_count": 1124,
            "is_verified": None,
            "audience_genders": [{"gender": "Female", "percentage": 0.6}, {"gender": "Male", "percentage": 0.4}],
            "metrics": [
                {
                    "date": "2026-11-20",
                    "likes": 26,
                    "shares": 0,
                    "comments": None,
                    "followers_count": 4,
                    "audience_activity": [{"hour": "0", "count": 3}, {"hour": "23", "count": 5}],
                }
            ],
        },
    )

    assert found.doubts == []
    assert found.rows["account_profiles"] == [
        {
            "display_name": "Ada",
            "bio_description": "",
            "profile_image": "https://p.example/a?x-expires=1795867200",
            "profile_image_ends_at": datetime.fromtimestamp(1795867200, UTC),
            "followers_count": 1124,
        }
    ]
    assert found.rows["account_counters"] == [{"followers_count": 1124}]
    day = date(2026, 11, 20)
    assert found.rows["account_days"] == [{"day": day, "likes": 26, "shares": 0, "followers_count": 4}]
    assert found.rows["account_hours"] == [
        {"day": day, "hour": 0, "active": 3}, {"day": day, "hour": 23, "active": 5}
    ]  # fmt: skip
    assert found.lists == [LabelledList(None, "gender", (("Female", 0.6), ("Male", 0.4)))]


def deep(levels: int) -> Any:
    """Return nested lists."""
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(OddNumber("9" * 60), "an absurd number", id="60 digits"),
        pytest.param(OddNumber("NaN"), "an absurd number", id="NaN"),
        pytest.param(OddNumber("-Infinity"), "an absurd number", id="Infinity"),
        pytest.param(10**18, "an absurd number", id="more than any account has"),
        pytest.param(True, "not a whole number", id="a flag"),
        pytest.param(1.5, "not a whole number", id="a fraction"),
        pytest.param("many", "not a whole number", id="a word"),
        pytest.param([1], "not a whole number", id="a list"),
        pytest.param({"value": 1}, "not a whole number", id="an object"),
        pytest.param(deep(900), "not a whole number", id="900 nested lists"),
    ],
)
def test_a_figure_that_is_none_is_kept_apart_and_the_rest_goes_on(value: Any, reason: str) -> None:
    """The day keeps its other figures, and the doubt says where it was and what it was."""
    found = cleaned(ACCOUNT, {"display_name": "Ada", "metrics": [{"date": "2026-11-20", "likes": value, "shares": 2}]})

    assert found.rows["account_days"] == [{"day": date(2026, 11, 20), "shares": 2}]
    assert reasons(found) == [("data.metrics[].likes", reason)]
    assert found.doubts[0].example
    assert len(found.doubts[0].example) <= 300


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("likes", "26", 26),
        ("likes", 26.0, 26),
        ("likes", "26.0", 26),
        ("likes", -3, -3),
        ("engagement_rate", "0.25", 0.25),
        ("engagement_rate", 1, 1.0),
    ],
)
def test_another_type_with_the_same_meaning_is_taken(name: str, value: Any, stored: Any) -> None:
    """TikTok writes some numbers as text."""
    found = cleaned(ACCOUNT, {"display_name": "Ada", "metrics": [{"date": "2026-11-20", name: value}]})

    assert found.rows["account_days"][0][name] == stored
    assert found.doubts == []


def test_what_nobody_knows_is_reported_with_its_place() -> None:
    """A field that TikTok adds is seen the day it comes, at the top, in a day and in a video."""
    account = cleaned(ACCOUNT, {"display_name": "A", "aura": 7, "metrics": [{"date": "2026-11-20", "joy": 1}]})
    videos = cleaned(VIDEOS, {"videos": [{"item_id": "1", "echo": {"a": 1}}], "has_more": False, "log": 1})

    assert reasons(account) == [("data.metrics[].joy", "an unknown field"), ("data.aura", "an unknown field")]
    assert reasons(videos) == [("data.videos[].echo", "an unknown field"), ("data.log", "an unknown field")]


def test_a_name_twice_with_two_values_means_neither() -> None:
    """The last one does not win: nobody knows which is right."""
    found = cleaned(
        ACCOUNT,
        {"display_name": "Ada", "followers_count": 2, "metrics": [{"date": "2026-11-20", "likes": 2}]},
        repeated=frozenset({"likes", "followers_count"}),
    )

    assert found.rows["account_profiles"] == [{"display_name": "Ada"}]
    assert "account_days" in found.rows
    assert found.rows["account_days"] == [{"day": date(2026, 11, 20)}]
    assert ("data.followers_count", "twice with two values") in reasons(found)
    assert len(reasons(found)) == 2


@pytest.mark.parametrize("name", ["open_id", "business_id", "creator_id"])
@pytest.mark.parametrize("place", ["data", "item"])
def test_an_answer_for_another_account_brings_no_row(name: str, place: str) -> None:
    """Nothing of it is stored under the creator who was asked for."""
    item = {"item_id": "1", "likes": 3}
    data: dict[str, Any] = {"videos": [item], "has_more": False}
    (data if place == "data" else item)[name] = "bob"

    found = cleaned(VIDEOS, data)

    assert (found.rows, found.lists, found.missing) == ({}, [], True)
    assert reasons(found) == [("data", "of another account")]


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        ({}, True),
        ({"videos": None}, True),
        ({"videos": {"item_id": "1"}}, True),
        ({"videos": []}, False),
        ({"videos": [], "has_more": True, "cursor": 5}, False),
    ],
)
def test_an_empty_list_is_not_a_missing_one(data: dict[str, Any], missing: bool) -> None:
    """A private account has no videos; an answer without the list says nothing."""
    assert cleaned(VIDEOS, data).missing is missing
    assert cleaned(ACCOUNT, {}).missing
    assert not cleaned(ACCOUNT, {"metrics": [{"date": "2026-11-20", "likes": 1}]}).missing


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("text", "not an object"),
        (None, "not an object"),
        ([], "not an object"),
        ({"likes": 3}, "no key"),
        ({"item_id": ""}, "not an id"),
        ({"item_id": 1.5}, "not an id"),
        ({"item_id": "x" * 65}, "not an id"),
        ({"item_id": ["1"]}, "not an id"),
    ],
)
def test_an_object_without_its_key_is_kept_apart(item: Any, reason: str) -> None:
    """The video before and the video after it are stored."""
    found = cleaned(VIDEOS, {"videos": [{"item_id": "1"}, item, {"item_id": 7012345678901234567}], "has_more": False})

    assert [row["item_id"] for row in found.rows["videos"]] == ["1", "7012345678901234567"]
    assert reason in {why for _, why in reasons(found)}
    assert found.items == 3


def test_two_rows_of_one_key_keep_the_first() -> None:
    """The same object twice is no doubt; two that differ are one."""
    day = {"date": "2026-11-20", "likes": 1}
    found = cleaned(ACCOUNT, {"display_name": "A", "metrics": [day, dict(day), day | {"likes": 2}]})

    assert found.rows["account_days"] == [{"day": date(2026, 11, 20), "likes": 1}]
    assert reasons(found) == [("data.metrics[]", "twice with two values")]


@pytest.mark.parametrize("day", ["2026-09-27", "2026-11-27", "2030-01-01"])
def test_a_day_that_was_not_asked_for_is_kept_apart(day: str) -> None:
    """Today is not over, and older days are not TikTok's to give."""
    found = cleaned(ACCOUNT, {"display_name": "A", "metrics": [{"date": day, "likes": 1}]})

    assert "account_days" not in found.rows
    assert reasons(found) == [("data.metrics[].date", "a day that was not asked for")]


def test_lists_keep_their_good_points() -> None:
    """A curve is ordered by second; a share outside of 0 to 1, and a label that is none, are kept apart."""
    found = cleaned(
        VIDEOS,
        {
            "videos": [
                {
                    "item_id": "1",
                    "video_view_retention": [
                        {"second": "10", "percentage": 0.2}, {"second": "2", "percentage": 1.4},
                        {"second": "x", "percentage": 0.1}, {"second": "3", "percentage": 99},
                    ],
                    "audience_types": [
                        {"type": "NEW_VIEWER", "percentage": 0.9}, {"type": 7, "percentage": 0.1},
                        {"type": "RETURN_VIEWER", "percentage": -0.1}, "odd",
                    ],
                    "impression_sources": "none",
                    "audience_cities": [],
                }
            ],
            "has_more": False,
        },
    )  # fmt: skip

    assert found.lists == [
        LabelledList("1", "retention", ((2, 1.4), (10, 0.2)), curve=True, whole=False),
        LabelledList("1", "type", (("NEW_VIEWER", 0.9),), whole=False),
    ]
    assert len(found.doubts) == 6


def test_the_rows_of_which_a_value_is_lost_are_named() -> None:
    """A spoilt figure, name or hour, and two values for one day; what is new or in a list spoils no row."""
    spoilt, hour, twice, fine = (
        {"date": f"2026-11-{day}", "likes": 1, "audience_activity": [{"hour": "1", "count": 2}]}
        for day in (20, 21, 22, 23)
    )
    spoilt["shares"] = OddNumber("NaN")
    hour["audience_activity"] = [{"hour": "25", "count": 2}]
    fine |= {"new": 1, "audience_ages": [{"age": "18-24", "percentage": 7}]}
    found = cleaned(
        ACCOUNT,
        {
            "display_name": 7,
            "username": "ada",
            "audience_cities": "?",
            "metrics": [spoilt, hour, twice, twice | {"likes": 2}, fine],
        },
    )

    days = [("account_days", (date(2026, 11, day),)) for day in (20, 21, 22)]
    assert found.unsure == {("account_profiles", ()), *days}
    assert [row["day"].day for row in found.rows["account_days"]] == [20, 21, 22, 23]


def test_a_name_twice_in_an_object_spoils_its_row() -> None:
    """Neither value counts, so the row was not read in full."""
    found = cleaned(VIDEOS, {"videos": [{"item_id": "1", "likes": 2}]}, repeated=frozenset({"likes"}))

    assert found.unsure == {("videos", ("1",))}


def test_replies_may_write_ids_as_numbers_and_times_as_dates() -> None:
    """Both ways of TikTok's are one: ids are text, and instants are aware UTC."""
    target = "7100000000000000001/7200000000000000002"
    comment = {"comment_id": 7300000000000000003, "video_id": 7100000000000000001, "text": "hi"}
    found = cleaned(
        REPLIES,
        {
            "comments": [
                comment | {"create_time": "2026-11-20 10:00:00", "parent_comment_id": 7200000000000000002},
                comment | {"comment_id": "5", "create_time": "1795867200"},
                comment | {"comment_id": "6", "parent_comment_id": "9"},
            ],
            "has_more": False,
        },
        target=target,
    )

    first, second = found.rows["video_comments"]
    assert (first["comment_id"], first["item_id"]) == ("7300000000000000003", "7100000000000000001")
    assert first["created_at"] == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert second["created_at"] == datetime.fromtimestamp(1795867200, UTC)
    assert second["parent_comment_id"] == "7200000000000000002"
    assert reasons(found) == [("data.comments[].parent_comment_id", "of another comment")]


def test_comments_of_another_video_and_averages_of_another_category_are_kept_apart() -> None:
    """What was not asked for is not stored under what was."""
    comments = cleaned(COMMENTS, {"comments": [{"comment_id": "1", "video_id": "9"}], "has_more": False}, target="8")
    averages = cleaned(BENCHMARK, {"business_category": "PETS", "average_likes": 1.0}, target="BEAUTY")

    assert (comments.rows, averages.rows) == ({}, {})
    assert [why for _, why in reasons(comments) + reasons(averages)] == ["of another video", "of another category"]


@pytest.mark.parametrize("more", ["yes", 1, 0, None, {}, OddNumber("1" * 50)])
def test_has_more_that_is_neither_yes_nor_no_ends_no_list(more: Any) -> None:
    """Nobody knows whether TikTok has more, so the answer counts as a part."""
    found = cleaned(VIDEOS, {"videos": [{"item_id": "1"}], "has_more": more, "cursor": "12"})

    assert (found.has_more, found.in_part, found.cursor) == (None, True, 12)
    assert reasons(found) == [("data.has_more", "not yes or no")]


def test_a_cursor_may_be_text_and_an_absurd_one_is_none() -> None:
    """`has_more` is read all the same."""
    good, absurd = (
        cleaned(VIDEOS, {"videos": [], "has_more": True, "cursor": cursor}) for cursor in ("12", OddNumber("1" * 50))
    )

    assert (good.has_more, good.cursor, good.in_part, reasons(good)) == (True, 12, False, [])
    assert (absurd.has_more, absurd.cursor, reasons(absurd)) == (True, None, [("data.cursor", "an absurd number")])


@pytest.mark.parametrize("name", ["videos", "has_more", "cursor", "data"])
def test_what_holds_a_list_twice_is_read_neither_way(name: str) -> None:
    """The last one does not win, whether it is the list, what says how it goes on, or all of it."""
    found = cleaned(VIDEOS, {"videos": [{"item_id": "1"}], "has_more": False, "cursor": 5}, repeated=frozenset({name}))

    assert found.missing == (name in {"videos", "data"})
    assert found.in_part == (name in {"videos", "has_more"})
    assert found.has_more is (None if name == "has_more" else False)
    assert found.cursor is (5 if name in {"videos", "has_more"} else None)
    assert bool(found.doubts) == (name != "cursor")


def test_days_that_came_twice_are_missing_in_part() -> None:
    """The rest of the account is stored, and the days are asked for again."""
    found = cleaned(ACCOUNT, {"display_name": "Ada", "metrics": []}, repeated=frozenset({"metrics"}))

    assert (found.in_part, found.missing) == (True, False)
    assert reasons(found) == [("data.metrics", "twice with two values")]


@pytest.mark.parametrize(
    ("resource", "data", "place"),
    [
        (ACCOUNT, {"display_name": "Ada", "followers_count": -5}, "data.followers_count"),
        (
            ACCOUNT,
            {"metrics": [{"date": "2026-11-20", "audience_activity": [{"hour": "1", "count": -5}]}]},
            "data.metrics[].audience_activity[]",
        ),
        (VIDEOS, {"videos": [{"item_id": "1", "likes": -5}], "has_more": False}, "data.videos[].likes"),
        (
            VIDEOS,
            {"videos": [{"item_id": "1", "video_duration": -5}], "has_more": False},
            "data.videos[].video_duration",
        ),
    ],
)  # fmt: skip
def test_a_count_below_zero_is_kept_apart(resource: Resource, data: dict[str, Any], place: str) -> None:
    """What is counted from the beginning cannot be negative; the difference of a day can."""
    assert reasons(cleaned(resource, data)) == [(place, "below zero")]
    assert reasons(cleaned(ACCOUNT, {"display_name": "A", "metrics": [{"date": "2026-11-20", "shares": -5}]})) == []


@pytest.mark.parametrize("value", ["1_0", "٣", "infinity", "0x10", " 1", ""])
def test_a_number_as_text_is_written_as_tiktok_would(value: str) -> None:
    """What Python reads as a number beyond that is no figure."""
    found = cleaned(VIDEOS, {"videos": [{"item_id": "1", "video_duration": value}], "has_more": False})

    assert reasons(found) == [("data.videos[].video_duration", "not a number")]


def test_a_snapshot_holds_no_number_that_json_lacks() -> None:
    """What cannot be represented is null there, as it always was."""
    assert without_odd({"a": [OddNumber("NaN"), 1], "b": {"c": OddNumber("1")}}) == {"a": [None, 1], "b": {"c": None}}
