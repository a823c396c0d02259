"""Answers that hold something else than they should, and what the ledger says of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.process import RunningSandbox

Start = Callable[..., RunningSandbox]
Struck = Callable[..., tuple[SimpleNamespace, LedgerEntry]]
Ask = Callable[..., SimpleNamespace]


@pytest.mark.parametrize(
    ("kind", "how", "status", "body"),
    [
        ("html", {}, 200, b"<!DOCTYPE"),
        ("empty", {}, 200, b""),
        ("no_content", {}, 204, b""),
        ("status", {"status": 502, "rotates": True}, 502, b"upstream"),
        ("status", {"status": 503}, 503, b"upstream"),
    ],
)
def test_another_answer_in_place_of_the_pair(  # one table
    struck: Struck, kind: str, how: dict[str, Any], status: int, body: bytes
) -> None:
    """HTML, nothing or a server error comes in place of the pair, after the rotation or without one."""
    answer, entry = struck(kind, **how)

    rotated = how.get("rotates", kind != "status")
    assert (answer.status, answer.json) == (status, None)
    assert answer.body.startswith(body)
    assert (entry.fp_new_refresh is not None, entry.answer, entry.http_status) == (rotated, "replaced", status)


def test_429_with_retry_after(struck: Struck) -> None:
    """The header is given as asked, however absurd."""
    answer, _ = struck("status", status=429, retry_after="1000000000")

    assert (answer.status, answer.headers["retry-after"]) == (429, "1000000000")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_goes_to_the_given_address(struck: Struck, status: int) -> None:
    """A redirect names the address given and does not rotate."""
    answer, entry = struck("redirect", status=status, location="http://127.0.0.1:9/elsewhere")

    assert (answer.status, answer.headers["location"]) == (status, "http://127.0.0.1:9/elsewhere")
    assert entry.fp_new_refresh is None


def test_forced_code(struck: Struck) -> None:
    """Any code can be forced, 40100 too, with HTTP 200 and no data."""
    answer, entry = struck("code", code=40100, message="slow down")

    assert (answer.status, answer.json["code"], answer.json["message"]) == (200, 40100, "slow down")
    assert (entry.code, entry.fp_new_refresh) == (40100, None)


@pytest.mark.parametrize("value", [0, -5, 10**18, 86400.5, True, "86400", None])
def test_expires_of_odd_kinds(struck: Struck, value: object) -> None:
    """The lifetime in the answer is what was asked for, while the ledger keeps the real one."""
    answer, entry = struck("expires", value=value)

    assert json.dumps(answer.json["data"]["expires_in"]) == json.dumps(value)
    assert (entry.expires_in, entry.answer) == (86_400, "sent")


@pytest.mark.parametrize(
    ("kind", "how", "field", "value", "way"),
    [
        ("expires", {}, "expires_in", "absent", "sent"),
        ("expires", {"field": "refresh_token_expires_in", "value": "x"}, "refresh_token_expires_in", "x", "sent"),
        ("refresh_token", {}, "refresh_token", "absent", "altered"),
        ("refresh_token", {"value": ""}, "refresh_token", "", "altered"),
        ("wrong_creator", {"creator_id": "eve"}, "open_id", "eve", "altered"),
        ("scope", {"value": "user.info.basic"}, "scope", "user.info.basic", "sent"),
        ("extra", {"fields": {"new_thing": [1]}}, "new_thing", [1], "sent"),
    ],
)
def test_edited_answers(  # noqa: PLR0917  # one table
    struck: Struck, kind: str, how: dict[str, Any], field: str, value: object, way: str
) -> None:
    """One field is missing or odd; if the pair itself is changed the ledger calls the answer altered."""
    answer, entry = struck(kind, **how)

    assert answer.json["data"].get(field, "absent") == value
    assert entry.answer == way


def test_huge_and_packed_bodies(struck: Struck) -> None:
    """A body can be huge, gzipped unasked, or a bomb that opens to far more than it weighs."""
    huge, _ = struck("huge", bytes=1_000_000)
    packed, _ = struck("gzip")
    bomb, _ = struck("gzip_bomb", bytes=20_000_000)

    assert len(huge.body) > 1_000_000
    assert packed.headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body))["code"] == 0
    assert len(bomb.body) < 100_000
    assert len(gzip.decompress(bomb.body)) > 20_000_000
