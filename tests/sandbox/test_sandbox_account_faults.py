"""Faults of account reads: fields that are taken back, parts, other data, cursors that stand still, and wrong JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest

from worker.sandbox.faults import CALLS
from worker.sandbox.process import RunningSandbox, SandboxError

FIELDS = ["display_name", "followers_count", "likes", "video_views"]

Answer = Callable[..., SimpleNamespace]


@pytest.fixture
def read(shared: RunningSandbox, send: Callable[..., SimpleNamespace]) -> Answer:
    """Read one creator's account, or another call by its short name."""
    token = shared.grants(creators=["faulty"])[0]["access_token"]

    def _read(call: str = "account", **query: Any) -> SimpleNamespace:
        if call == "account":
            query = {"fields": json.dumps(FIELDS), **query}
        text = urlencode({"business_id": "faulty", **query})
        return send(shared, "GET", f"/open_api/v1.3/{CALLS[call]}?{text}", headers={"Access-Token": token})

    return _read


@pytest.fixture
def fault(shared: RunningSandbox) -> Callable[..., None]:
    """Let a fault strike the next read of the creator."""

    def _fault(kind: str, call: str = "account", **how: Any) -> None:
        shared.fault(kind, creator="faulty", call=call, times=1, **how)

    return _fault


@pytest.mark.parametrize("code", [41002, 40002])
def test_retired_field_fails_the_reads_that_ask_for_it(read: Answer, fault: Callable[..., None], code: int) -> None:
    """A field that is no longer offered fails the whole read; 40002 names those that are left, and others work."""
    fault("retired", field="likes", code=code)
    refused = read().json
    fault("retired", field="likes", code=code)
    without = read(fields='["video_views"]').json

    assert (refused["code"], refused["data"], without["code"]) == (code, {}, 0)
    assert ("'likes' must be one of" in refused["message"]) is (code == 40002)
    assert "video_views, profile_views, comments" in refused["message"] or code == 41002
    assert read().json["code"] == 0


def test_partial_answer_lacks_fields(read: Answer, fault: Callable[..., None]) -> None:
    """A partial answer has code 20001 and the rest of the fields, at the top and in rows."""
    fault("partial", without=["display_name", "likes"])

    answer = read().json

    assert answer["code"] == 20001
    assert answer["data"].keys() == {"followers_count", "metrics"}
    assert answer["data"]["metrics"][0].keys() == {"date", "followers_count", "video_views"}


@pytest.mark.parametrize("value", [{}, [], None, "text"])
def test_other_data(read: Answer, fault: Callable[..., None], value: object) -> None:
    """The data may be empty or of another kind, with code 0."""
    fault("data", value=value)

    answer = read().json

    assert (answer["code"], answer["data"]) == (0, value)


def test_data_may_be_missing(read: Answer, fault: Callable[..., None]) -> None:
    """Without a value the answer has no data at all."""
    fault("data")

    assert read().json.keys() == {"code", "message", "request_id"}


def test_answer_for_another_account(read: Answer, fault: Callable[..., None]) -> None:
    """The answer has another creator's profile, and nothing in the envelope says so."""
    own = read().json["data"]
    fault("other_account", creator_id="stranger")

    other = read().json

    assert other["code"] == 0
    assert other["data"]["display_name"] != own["display_name"]


@pytest.mark.parametrize("call", ["videos", "comments"])
def test_stuck_cursor(read: Answer, fault: Callable[..., None], call: str) -> None:
    """The page comes with the cursor that was sent, and says that there is more."""
    video = read("videos", max_count=20).json["data"]
    old = video["videos"][-1]["item_id"]
    cursor = video["cursor"] if call == "videos" else 1
    query = {} if call == "videos" else {"video_id": old}
    fault("stuck_cursor", call=call)

    data = read(call, cursor=cursor, **query).json["data"]

    assert (data["cursor"], data["has_more"]) == (cursor, True)
    assert data["videos" if call == "videos" else "comments"]


@pytest.mark.parametrize(
    ("find", "put", "shown"),
    [
        pytest.param('"video_views":', '"video_views":NaN,"was":', b'"video_views":NaN', id="not a number"),
        pytest.param('"likes":', '"likes":' + "9" * 60 + ',"was":', b"9" * 60, id="sixty digits"),
        pytest.param('"likes":', '"likes":"many","likes":', b'"likes":"many","likes":', id="duplicate key"),
        pytest.param('"metrics":[', '"metrics":[' + "[" * 900 + "]" * 900 + ",", b"[" * 900, id="deep lists"),
        pytest.param('"display_name":"', '"display_name":"\\u0000\\ud800', b"\\u0000\\ud800", id="NUL and surrogate"),
    ],
)
def test_rewritten_text(read: Answer, fault: Callable[..., None], find: str, put: str, shown: bytes) -> None:
    """Any text of the body can be replaced, so that it is no longer what JSON should be."""
    fault("rewrite", find=find, put=put)

    assert shown in read().body
    assert shown not in read().body


@pytest.mark.parametrize("call", [name for name in CALLS if name not in {"token", "refresh", "revoke", "token_info"}])
def test_faults_strike_each_call_by_its_name(read: Answer, fault: Callable[..., None], call: str) -> None:
    """A fault that is set for a call strikes it, whatever else is wrong with it, and no other call."""
    fault("status", call=call, status=503)

    other = "account" if call != "account" else "videos"
    assert read(other).status == 200
    assert read(call).status == 503


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "partial", "without": []}, "without: a list of names"),
        ({"kind": "partial", "without": "likes"}, "without: a list of names"),
        ({"kind": "rewrite", "find": "", "put": "x"}, "find: a text"),
        ({"kind": "retired", "field": "likes", "code": "x"}, "code: a whole number"),
        ({"kind": "retired"}, "retired:"),
    ],
)
def test_wrong_faults_of_reads_are_refused(shared: RunningSandbox, fault: dict[str, Any], words: str) -> None:
    """A fault that is described wrongly is refused with a sentence."""
    with pytest.raises(SandboxError, match=words):
        shared.control("faults", fault)
