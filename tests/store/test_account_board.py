"""Grafana's board of accounts: each query, as Grafana sends it, by the role that reads the views alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import DASHBOARD_ROLE, WORKER_ROLE
from tests.store.conftest import Fleet
from tests.store.test_store_account_data import Desk
from worker.store import LabelledList, Store

BOARD: Final = json.loads((Path(__file__).parents[2] / "deploy/grafana/accounts.json").read_text(encoding="utf-8"))
QUERIES: Final = {panel["title"]: target["rawSql"] for panel in BOARD["panels"] for target in panel["targets"]}
OF_ALL: Final = {"Accounts that were read longest ago"}
"""Panels that show more than the chosen creator."""
POISON: Final = (
    "'OR(1=1)--", "x';DROP/**/TABLE/**/videos;--", "\\'OR(1=1)--", "''OR''=''", "$$||'a", "${creator:raw}", "%s{0}",
    "$__timeFrom()OR(1=1)--", "a'$__timeFilter(b)'OR(1=1)--",
)  # fmt: skip
MACRO: Final = re.compile(r"\$([_a-zA-Z0-9]+)\(([^)]*)\)")
NOW: Final = datetime.now(UTC)


def sent(query: str, creator: str) -> str:
    """Return what Grafana sends: first the variable as an SQL string, then the macros of PostgreSQL."""
    times = [f"'{each.isoformat(timespec='seconds')}'" for each in (NOW - timedelta(days=60), NOW + timedelta(days=1))]

    def macro(found: re.Match[str]) -> str:
        return {
            "__timeFilter": f"{found[2]} BETWEEN {times[0]} AND {times[1]}",
            "__timeFrom": times[0],
            "__timeTo": times[1],
        }[found[1]]

    quoted = "'" + creator.replace("'", "''") + "'"
    return MACRO.sub(macro, query.replace("${creator:sqlstring}", quoted))


@pytest.fixture
def database_kind() -> str:
    """The board asks PostgreSQL."""
    return "postgresql"


@pytest.fixture
def role(store_url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection of the dashboards' role."""
    address = store_url.replace(f"//{WORKER_ROLE}@", f"//{DASHBOARD_ROLE}@")
    with psycopg.connect(address, autocommit=True, row_factory=dict_row) as connection:
        yield connection


@pytest.fixture
def fleet(store: Store) -> Fleet:
    """Two creators whose accounts were pulled; figures of one are a thousand times those of the other."""
    fleet = Fleet(store)
    for name, times, newest in (("ada", 1, 2), ("bob", 1000, 3)):
        desk = Desk(fleet, name)
        days = [
            {"day": desk.back(age), "video_views": age * times, "likes": times, "comments": times, "shares": times,
             "daily_new_followers": 5 * times, "daily_lost_followers": 2 * times}
            for age in range(newest, 9)
        ]  # fmt: skip
        ages = (("18-24", 0.75), ("25-34", 0.25))
        desk.save(
            {
                "account_profiles": [{"username": name, "followers_count": 70 * times}],
                "account_counters": [{"followers_count": 70 * times}],
                "account_days": days,
            },
            lists=[LabelledList(None, "age", ages), LabelledList(None, "city", ((f"city of {name}", 1.0),))],
        )
        desk.videos(
            {"item_id": f"{name}1", "video_views": 9 * times, "likes": times, "caption": "<b>'first'</b>"},
            {"item_id": f"{name}2", "video_views": 8 * times},
        )
    fleet.sql("UPDATE account_days SET settled = true WHERE day < :day", day=Desk.back(desk, 4).isoformat())
    return fleet


def test_every_panel_shows_the_chosen_creator(fleet: Fleet, role: psycopg.Connection[dict[str, Any]]) -> None:
    """Each query runs by the dashboards' role, has rows, and has only those of the creator that was chosen."""
    for title, query in QUERIES.items():
        found = {name: role.execute(sent(query, name).encode()).fetchall() for name in ("ada", "bob")}

        assert all(found.values()), title
        assert title in OF_ALL or found["ada"] != found["bob"], title
        assert role.execute(sent(query, "nobody").encode()).fetchall() == (found["ada"] if title in OF_ALL else [])
    views = role.execute(sent(QUERIES["Video views, settled or provisional"], "ada").encode()).fetchall()
    assert [(row["settled"], row["provisional"]) for row in views] == [
        (8, None), (7, None), (6, None), (5, None), (None, 4), (None, 3), (None, 2)
    ]  # fmt: skip
    assert {row["time"].hour for row in views} == {0}
    assert {row["net"] for row in role.execute(sent(QUERIES["Net followers"], "bob").encode())} == {3000}
    assert [row["followers"] for row in role.execute(sent(QUERIES["Followers"], "ada").encode())][-1] == 70
    shares = role.execute(sent(QUERIES["Audience"], "bob").encode()).fetchall()
    assert [(row["kind"], row["label"], row["share"]) for row in shares] == [
        ("age", "18-24", 0.75), ("age", "25-34", 0.25), ("city", "city of bob", 1.0)
    ]  # fmt: skip
    assert [row["views"] for row in role.execute(sent(QUERIES["Most viewed videos"], "ada").encode())] == [9, 8]
    (age,) = role.execute(sent(QUERIES["Since the last whole reading"], "ada").encode()).fetchall()
    assert 0 <= age["seconds"] < 600


@pytest.mark.parametrize("poison", POISON)
def test_no_id_of_a_creator_gets_out_of_its_quotes(
    fleet: Fleet, role: psycopg.Connection[dict[str, Any]], poison: str
) -> None:
    """A query with an id that is SQL finds nobody or fails; it shows no other creator, and changes nothing."""
    for title, query in QUERIES.items():
        if title in OF_ALL:
            continue
        try:
            found = role.execute(sent(query, poison).encode()).fetchall()
        except (psycopg.errors.SyntaxError, psycopg.errors.UndefinedFunction):
            assert "$__" in poison, title
            continue
        assert found == [], title
    assert len(fleet.sql("SELECT item_id FROM videos")) == 4


def test_each_panel_asks_for_the_variables_and_reads_views_alone(role: psycopg.Connection[dict[str, Any]]) -> None:
    """The creator comes as an SQL string and in no other way, and the choice of creators runs as well."""
    for title, query in QUERIES.items():
        assert (query.count("${creator:sqlstring}") > 0) is (title not in OF_ALL), title
        assert query.count("creator}") == query.count("$creator") == query.count("[[") == 0, title
    datasource, creator = BOARD["templating"]["list"]
    assert (datasource["name"], datasource["query"]) == ("datasource", "grafana-postgresql-datasource")
    assert (creator["multi"], creator["includeAll"]) == (False, False)
    sources = {target["datasource"]["uid"] for panel in BOARD["panels"] for target in (panel, *panel["targets"])}
    assert sources == {creator["datasource"]["uid"]} == {"${datasource}"}
    assert role.execute(creator["query"].encode()).fetchall() == []


def test_the_choice_names_each_creator(fleet: Fleet, role: psycopg.Connection[dict[str, Any]]) -> None:
    """One without a username is there by the id."""
    fleet.sql("UPDATE account_profiles SET username = NULL WHERE creator_id = 'bob'")
    found = role.execute(BOARD["templating"]["list"][1]["query"].encode()).fetchall()

    assert found == [{"__value": "ada", "__text": "ada (ada)"}, {"__value": "bob", "__text": "bob"}]


def test_a_day_without_a_figure_is_no_line_between_its_neighbours() -> None:
    """Each chart over time breaks its line where more than a day is missing, and at NULL."""
    over_time = [panel for panel in BOARD["panels"] if panel["type"] == "timeseries"]

    assert len(over_time) == 4
    for panel in over_time:
        custom = panel["fieldConfig"]["defaults"]["custom"]
        assert (custom["spanNulls"], custom["insertNulls"]) == (False, 36 * 3_600_000), panel["title"]
