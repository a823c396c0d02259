"""The account read: fields, scopes and dates."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from worker.sandbox.accounts.days import METRICS, followers_at_end, followers_now
from worker.sandbox.accounts.traits import AccountBook
from worker.sandbox.process import RunningSandbox, SandboxError

Send = Callable[..., SimpleNamespace]


def _read(sandbox: RunningSandbox, send: Send, token: str | None, **query: Any) -> dict[str, Any]:
    headers = {"Access-Token": token} if token is not None else {}
    answer = send(sandbox, "GET", f"/open_api/v1.3/business/get/?{urlencode(query)}", headers=headers)
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


def _day(ago: int) -> str:
    return str(datetime.now(UTC).date() - timedelta(days=ago))


def _token(sandbox: RunningSandbox, creator: str = "reader", **how: Any) -> str:
    return str(sandbox.grants(creators=[creator], **how)[0]["access_token"])


def test_default_fields(shared: RunningSandbox, send: Send) -> None:
    """Without `fields` two fields come."""
    data = _read(shared, send, _token(shared), business_id="reader")["data"]

    assert data.keys() == {"display_name", "profile_image"}


def test_metrics_are_asked_flat_and_answered_by_day(shared: RunningSandbox, send: Send) -> None:
    """Metric names stand in `metrics`, one object a day; the newest days are not computed yet and absent."""
    today = datetime.now(UTC).date()
    fields = json.dumps(["followers_count", "video_views", "audience_activity"])
    shared.set_account("reader", missing=0, late=0)

    first = _read(shared, send, _token(shared), business_id="reader", fields=fields)
    second = _read(shared, send, _token(shared), business_id="reader", fields=fields)

    data = first["data"]
    assert data["metrics"] == second["data"]["metrics"]
    assert data.keys() == {"followers_count", "metrics"}
    assert [day["date"] for day in data["metrics"]] == [str(today - timedelta(days=ago)) for ago in range(7, 1, -1)]
    assert data["metrics"][0].keys() == {"date", "followers_count", "video_views", "audience_activity"}
    assert data["metrics"][0]["audience_activity"][0]["hour"] == "0"


def test_one_field_without_scope_fails_the_call(shared: RunningSandbox, send: Send) -> None:
    """A field whose scope is not granted answers 40130 for all."""
    token = _token(shared, scope="user.info.basic")

    answer = _read(shared, send, token, business_id="reader", fields='["display_name","username"]')

    assert (answer["code"], answer["data"]) == (40130, {})
    assert _read(shared, send, token, business_id="reader", fields='["display_name"]')["code"] == 0


def test_unknown_field_is_answered_with_the_valid_names(shared: RunningSandbox, send: Send) -> None:
    """An unknown field answers 40002 with a message that lists the fields there are."""
    answer = _read(shared, send, _token(shared), business_id="reader", fields='["shoe_size"]')

    assert answer["code"] == 40002
    assert "followers_count" in answer["message"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param({"business_id": ""}, 40002, id="no account"),
        pytest.param({"business_id": "someone"}, 40001, id="another account"),
        pytest.param({"fields": "username"}, 40002, id="fields not JSON"),
        pytest.param({"fields": "[]"}, 40002, id="no fields"),
        pytest.param({"start_date": "yesterday"}, 40002, id="no date"),
        pytest.param({"start_date": "2020-01-01"}, 40002, id="too far back"),
        pytest.param({"start_date": _day(61)}, 40002, id="61 days back"),
        pytest.param({"start_date": _day(60)}, 0, id="60 days back"),
        pytest.param({"end_date": _day(0)}, 40002, id="end today"),
        pytest.param({"end_date": _day(-400)}, 40002, id="end next year"),
        pytest.param({"end_date": _day(1)}, 0, id="end yesterday"),
        pytest.param({"end_date": _day(30)}, 40002, id="end before start"),
    ],
)
def test_wrong_reads(shared: RunningSandbox, send: Send, query: dict[str, str], code: int) -> None:
    """A wrong parameter is refused with its code."""
    assert _read(shared, send, _token(shared), **{"business_id": "reader", **query})["code"] == code


def test_tokens_of_reads(shared: RunningSandbox, send: Send) -> None:
    """No token answers 40104, a wrong one 40105; a bearer header is not read."""
    path = "/open_api/v1.3/business/get/?business_id=reader"

    bearer = send(shared, "GET", path, headers={"Authorization": f"Bearer {_token(shared)}"})

    assert _read(shared, send, None, business_id="reader")["code"] == 40104
    assert _read(shared, send, "act.wrong", business_id="reader")["code"] == 40105
    assert bearer.json["code"] == 40104


LONG = 10**8
ALL_DAYS = json.dumps(["followers_count", *METRICS])


def test_daily_nets_add_up_to_the_change_of_the_counter(start: Callable[..., RunningSandbox], send: Send) -> None:
    """New minus lost is the net of each settled day, and the totals move by the nets, on which the counter stands."""
    sandbox = start(seed=5, expires_in=LONG)
    sandbox.set_account("sums", missing=0, late=0)
    token = _token(sandbox, "sums")

    data = _read(sandbox, send, token, business_id="sums", fields=ALL_DAYS, start_date=_day(60))["data"]

    days = [day for day in data["metrics"] if day["date"] <= _day(3)]
    assert len(days) == 58
    assert all(day["daily_new_followers"] - day["daily_lost_followers"] == day["daily_total_followers"] for day in days)
    moved = [later["followers_count"] - earlier["followers_count"] for earlier, later in pairwise(days)]
    assert moved == [day["daily_total_followers"] for day in days[1:]]


def test_counter_passes_through_the_totals_of_the_days() -> None:
    """At midnight the counter is the total of the day that ends, and between it stays between the two."""
    account = AccountBook(3, 20_000).find("midnight")

    for day in range(19_700, 20_300):
        ends = sorted((followers_at_end(account, day - 1), followers_at_end(account, day)))
        assert followers_now(account, day * 86_400) == followers_at_end(account, day - 1)
        assert ends[0] <= followers_now(account, day * 86_400 + 50_000) <= ends[1]
    assert followers_at_end(account, account.opened - 1) == 0


def test_contested_figures_change_places(start: Callable[..., RunningSandbox], send: Send) -> None:
    """By the samples the daily `followers_count` is the net, and `daily_total_followers` the total."""
    sandbox = start()
    token = _token(sandbox, "contested")
    query = {"business_id": "contested", "fields": ALL_DAYS}

    by_text = _read(sandbox, send, token, **query)["data"]["metrics"][0]
    sandbox.change(contested="samples")
    by_samples = _read(sandbox, send, token, **query)["data"]["metrics"][0]

    assert by_text["followers_count"] == by_samples["daily_total_followers"] > 1_000 / 2
    assert by_samples["followers_count"] == by_text["daily_total_followers"]


def test_figures_are_corrected_until_they_stand(start: Callable[..., RunningSandbox], send: Send) -> None:
    """The views of a day grow with each correction and no longer move once they are settled."""
    sandbox = start(settle_days=4, expires_in=LONG)
    sandbox.set_account("late", missing=0, late=0)
    token = _token(sandbox, "late")
    day, seen = _day(1), []
    for _ in range(10):
        rows = _read(sandbox, send, token, business_id="late", fields=ALL_DAYS, start_date=day, end_date=day)["data"]
        seen.append(rows["metrics"][0]["video_views"] if rows["metrics"] else None)
        sandbox.advance(days=0.5)

    views = [value for value in seen if value is not None]
    assert seen[0] is None
    assert views == sorted(views)
    assert len(set(views)) == 5
    assert views[-1] == views[-2] == views[-3]


def test_missing_and_late_days(start: Callable[..., RunningSandbox], send: Send) -> None:
    """Days that never come stay absent, days before Analytics was turned on too, and a late one comes in the end."""
    sandbox = start(expires_in=LONG)
    sandbox.set_account("gaps", missing=0.4, late=1, age_days=50, videos=10, analytics_days=10)
    token = _token(sandbox, "gaps")
    query = {"business_id": "gaps", "fields": ALL_DAYS, "start_date": _day(60)}

    now = [day["date"] for day in _read(sandbox, send, token, **query)["data"]["metrics"]]
    sandbox.advance(days=1)
    query["start_date"] = _day(59)
    later = [day["date"] for day in _read(sandbox, send, token, **query)["data"]["metrics"]]

    assert min(now) >= _day(40)
    assert 10 < len(now) < 34
    assert set(now) <= set(later)


@pytest.mark.parametrize("style", ["absent", "empty", "zero"])
def test_days_that_are_not_computed_yet(start: Callable[..., RunningSandbox], send: Send, style: str) -> None:
    """Yesterday is absent, a date alone, or zeros, as the account's trait says."""
    sandbox = start()
    sandbox.set_account("new", missing=0, late=0, uncomputed=style)
    query = {"business_id": "new", "fields": ALL_DAYS, "start_date": _day(2)}

    days = _read(sandbox, send, _token(sandbox, "new"), **query)["data"]["metrics"]

    newest = [day for day in days if day["date"] == _day(1)]
    assert {"absent": newest == [], "empty": newest == [{"date": _day(1)}], "zero": bool(newest)}[style]
    if style == "zero":
        assert (newest[0]["video_views"], newest[0]["audience_activity"]) == (0, [])


@pytest.mark.parametrize(
    ("traits", "lacks"),
    [
        pytest.param({"business": False}, {"daily_new_followers", "audience_activity", "email_clicks"}, id="personal"),
        pytest.param({"registered": False}, {"email_clicks", "lead_submissions"}, id="not registered"),
        pytest.param({"followers": 90}, {"audience_activity"}, id="small"),
    ],
)
def test_kinds_of_accounts_lack_figures(
    start: Callable[..., RunningSandbox], send: Send, traits: dict[str, Any], lacks: set[str]
) -> None:
    """A personal, an unregistered and a small account lack the figures that only others have."""
    sandbox = start()
    sandbox.set_account("kind", missing=0, **traits)
    fields = json.dumps([*json.loads(ALL_DAYS), "audience_ages", "is_business_account"])

    data = _read(sandbox, send, _token(sandbox, "kind"), business_id="kind", fields=fields)["data"]

    assert not lacks & set().union(*data["metrics"])
    assert {"video_views", "followers_count"} <= set(data["metrics"][0])
    assert (data["audience_ages"] == []) is ("followers" in traits)
    assert data["is_business_account"] is traits.get("business", True)


def test_followers_count_alone_brings_the_daily_one_too(shared: RunningSandbox, send: Send) -> None:
    """Both figures have one name; without user.insights only the counter comes."""
    fields = '["followers_count"]'
    shared.grants(creators=["stats"], scope="user.info.stats")
    stats_only = _token(shared, "stats", scope="user.info.stats")

    both = _read(shared, send, _token(shared), business_id="reader", fields=fields)["data"]
    one = _read(shared, send, stats_only, business_id="stats", fields=fields)["data"]

    assert both["metrics"][0].keys() == {"date", "followers_count"}
    assert one.keys() == {"followers_count"}


def test_long_spans_are_refused_by_an_option(start: Callable[..., RunningSandbox], send: Send) -> None:
    """A read over more days than permitted at once answers 40002, one of just as many succeeds."""
    sandbox = start(longest_span_days=30)
    token = _token(sandbox, "span")

    assert _read(sandbox, send, token, business_id="span", start_date=_day(31), end_date=_day(1))["code"] == 40002
    assert _read(sandbox, send, token, business_id="span", start_date=_day(30), end_date=_day(1))["code"] == 0


def test_same_seed_gives_the_same_accounts(start: Callable[..., RunningSandbox], send: Send) -> None:
    """Two sandboxes with one seed answer alike, also after traits of others were set; another seed differs."""

    def days(seed: int) -> Any:
        sandbox = start(seed=seed, accounts="mixed")
        sandbox.set_account("other", followers=5)
        query = {"business_id": "same", "fields": ALL_DAYS, "start_date": _day(60), "end_date": _day(4)}
        return _read(sandbox, send, _token(sandbox, "same"), **query)["data"]["metrics"]

    assert days(1) == days(1) != days(2)


def test_mixed_accounts_are_of_all_kinds() -> None:
    """Among many accounts there are personal, small, private and young ones, and those that show zeros."""
    book = AccountBook(1, 20_000)
    traits = [book.find(f"one {number}", mixed=True).traits for number in range(400)]

    assert 40 < sum(not each.business for each in traits) < 160
    assert any(each.followers < 100 for each in traits)
    assert any(each.private for each in traits)
    assert any(each.age_days < 100 for each in traits)
    assert {each.uncomputed for each in traits} == {"absent", "empty", "zero"}


def test_narrowed_scopes_refuse_their_fields(start: Callable[..., RunningSandbox], send: Send) -> None:
    """A creator who takes a scope back is answered 40130 with the token that worked before."""
    sandbox = start()
    token = _token(sandbox, "narrow")
    query = {"business_id": "narrow", "fields": ALL_DAYS}

    before = _read(sandbox, send, token, **query)["code"]
    sandbox.control("scopes", {"creator": "narrow", "scope": "user.info.basic,user.info.stats"})

    assert (before, _read(sandbox, send, token, **query)["code"]) == (0, 40130)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"shoe_size": 4}, "shoe_size: no such trait"),
        ({"followers": -1}, "followers: must be at least 0"),
        ({"business": 1}, "business: bool is wanted"),
        ({"uncomputed": "odd"}, "uncomputed: must be one of"),
        ({"category": "SHOES"}, "category: must be one of"),
        ({"missing": 2}, "missing, late: a share"),
        ({"videos": 10**9}, "age_days:"),
        ({"creator": 4}, "creator: a text is wanted"),
    ],
)
def test_wrong_traits_are_refused_with_a_sentence(shared: RunningSandbox, body: dict[str, Any], words: str) -> None:
    """A trait that is set wrongly changes nothing."""
    with pytest.raises(SandboxError, match=words):
        shared.control("account", {"creator": "wrong", **body})
    assert shared.set_account("wrong")["videos"] < 10**9


def test_a_read_costs_little(start: Callable[..., RunningSandbox], send: Send) -> None:
    """Reading an account takes under two milliseconds of processor time, and memory does not grow with accounts."""
    sandbox = start(scopes=["user.info.basic", "user.info.stats", "user.insights"])
    fields = json.dumps(["display_name", "videos_count", "followers_count", *METRICS, "audience_ages"])
    tokens = {each["open_id"]: each["access_token"] for each in sandbox.grants(200)}
    before = sandbox.stats()

    for creator_id, token in tokens.items():
        assert _read(sandbox, send, token, business_id=creator_id, fields=fields)["code"] == 0
    after = sandbox.stats()

    # The bound is wider than the promise: the machine may be busy, and each read opens a connection of its own.
    assert (after["cpu_seconds"] - before["cpu_seconds"]) / 200 < 0.006
    assert after["rss_kib"] - before["rss_kib"] < 8_000
