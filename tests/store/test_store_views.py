"""The views that dashboards read: they hold for any text, count nothing twice, and say the same on both databases."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.store.conftest import Fleet
from tests.store.test_store_account_data import Desk
from worker.store import LabelledList
from worker.store.migrations.versions.v0013_views import VIEWS

pytestmark = pytest.mark.as_owner
POISON = "'; DROP TABLE videos; --\u202e\ufffd\"\\%s{0}$[0]"


def columns_of(desk: Desk, view: str) -> list[str]:
    """Return the names of a view's columns."""
    query = f"SELECT * FROM {view}"  # noqa: S608 - our own names
    return desk.store.transact(lambda connection: list(connection.exec_driver_sql(query).keys()), writes=False)


@pytest.fixture
def desk(fleet: Fleet) -> Desk:
    """One creator's pull on both databases."""
    return Desk(fleet)


def look(desk: Desk, view: str) -> list[dict[str, Any]]:
    """Return the rows of a view."""
    return [dict(row._mapping) for row in desk.fleet.sql(f"SELECT * FROM {view}")]  # noqa: S608 - our own names


def test_a_creators_odd_texts_break_no_view(desk: Desk) -> None:
    """Every view is read with another creator's poisonous texts in every text, and both creators are in it."""
    for each in (desk, Desk(desk.fleet, "bob")):
        text = POISON if each is desk else "fine"
        number = "1" if each is desk else "2"
        each.save(
            {
                "account_profiles": [{"display_name": text, "username": text, "followers_count": 3}],
                "account_counters": [{"followers_count": 3}],
                "account_days": [{"day": each.back(9), "likes": 1}],
                "account_hours": [{"day": each.back(9), "hour": 3, "active": 7}],
                "video_comments": [{"comment_id": number, "text": text, "username": text}],
            },
            lists=[LabelledList(None, "city", ((text[:20], 1.0),))],
        )
        each.videos(
            {"item_id": number, "caption": text, "video_views": 10, "likes": 1},
            lists=[
                LabelledList(number, "retention", ((0, 1.0), (7, 0.25)), curve=True),
                LabelledList(number, "source", ((text[:20], 0.5),)),
            ],
        )

    for view in VIEWS:
        rows = look(desk, view)
        assert {row["creator_id"] for row in rows} == {"ada", "bob"}, view
    assert look(desk, "account_overview")[0]["display_name"] in {POISON, "fine"}
    points = [(row["second"], row["share"]) for row in look(desk, "video_curve_points") if row["item_id"] == "1"]
    assert points == [(0, 1.0), (7, 0.25)]


def test_the_net_is_new_minus_lost_and_missing_stays_missing(desk: Desk) -> None:
    """A figure that is not known is NULL in a view too, and no sum turns it into a number."""
    desk.day(9, daily_new_followers=5, daily_lost_followers=7)
    desk.day(8, daily_new_followers=5)
    desk.videos({"item_id": "1", "likes": 3}, {"item_id": "2", "likes": 3, "shares": 1, "video_views": 8})

    nets = [row["net_followers"] for row in look(desk, "account_daily")]
    assert sorted(nets, key=str) == [-2, None]
    engagement = {row["item_id"]: row["engagement_per_view"] for row in look(desk, "video_overview")}
    assert engagement == {"1": None, "2": 0.5}


def test_readings_over_time_show_what_came_between(desk: Desk) -> None:
    """The difference to the reading before is of the same video."""
    for age, views in ((3, 10), (1, 25)):
        desk.videos({"item_id": "1", "video_views": views}, {"item_id": "2", "video_views": 100 + views})
        move = "UPDATE video_readings SET pull_day = :day WHERE pull_day = :today"
        desk.fleet.sql(move, day=desk.back(age).isoformat(), today=desk.today.isoformat())

    found = [(row["item_id"], row["more_video_views"]) for row in look(desk, "video_over_time")]
    assert sorted(found, key=str) == sorted([("1", None), ("1", 15), ("2", None), ("2", 15)], key=str)


def test_the_audience_of_a_video_is_the_newest_list(desk: Desk) -> None:
    """A label that is gone from the newest list is not shown beside it."""
    desk.videos({"item_id": "1"}, lists=[LabelledList("1", "source", (("FYP", 0.9), ("OTHER", 0.1)))])
    desk.fleet.sql("UPDATE video_shares SET pull_day = :day", day=(desk.today - timedelta(days=3)).isoformat())
    desk.videos({"item_id": "1"}, lists=[LabelledList("1", "source", (("FYP", 1.0),))])

    assert [(row["label"], row["share"]) for row in look(desk, "video_audience")] == [("FYP", 1.0)]


def test_every_view_and_column_is_explained(desk: Desk) -> None:
    """docs/data.md names each view and each of its columns, and no view that is not there."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    told = page.partition("## Views")[2].partition("\n## ")[0]
    words = set(re.findall(r"`(\w+)`", told))

    for view in VIEWS:
        result = columns_of(desk, view)
        missing = [name for name in result if name not in words]
        assert view in words
        assert missing == [], view
    assert set(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == set(VIEWS)
