"""The account read: fields, scopes and dates."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from worker.sandbox.process import RunningSandbox

Send = Callable[..., SimpleNamespace]


def _read(sandbox: RunningSandbox, send: Send, token: str | None, **query: Any) -> dict[str, Any]:
    headers = {"Access-Token": token} if token is not None else {}
    answer = send(sandbox, "GET", f"/open_api/v1.3/business/get/?{urlencode(query)}", headers=headers)
    assert answer.status == 200
    found: dict[str, Any] = answer.json
    return found


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

    first = _read(shared, send, _token(shared), business_id="reader", fields=fields)
    second = _read(shared, send, _token(shared), business_id="reader", fields=fields)

    data = first["data"]
    assert data == second["data"]
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
        pytest.param({"end_date": str(datetime.now(UTC).date() - timedelta(days=30))}, 40002, id="end before start"),
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
