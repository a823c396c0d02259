"""The calls that read, revoke and point creators to TikTok."""

from __future__ import annotations

import gzip
import json
import logging
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from worker.accounts.resources import ACCOUNT
from worker.errors import (
    BackOffError,
    GiveUpError,
    InDoubtError,
    RefreshFirstError,
    StopEveryoneError,
    TikTokError,
    UsageError,
    WaitError,
)
from worker.tiktok import ACCOUNT_CALL, OddNumber, TokenInfo
from worker.vault import Token

if TYPE_CHECKING:
    from tests.tiktok.conftest import Canaries, Client, Hostile


VIDEO_CALL = "business/video/list/"


def _reply(hostile: Hostile, **envelope: Any) -> None:
    hostile.answer(hostile.framed(json.dumps(envelope).encode()))


def test_authorization_link_holds_what_tiktok_asks_for(client: Client) -> None:
    """The redirect address stays byte for byte what was registered, and the scopes are one list."""
    link = client("https://a.b/open_api").authorization_url(state="s&t=1", scopes=["user.info.basic", "video.list"])

    assert link.startswith(
        "https://www.tiktok.com/v2/auth/authorize/?client_key=7123&scope=user.info.basic%2Cvideo.list&"
    )
    assert parse_qs(urlsplit(link).query, strict_parsing=True) == {
        "client_key": ["7123"],
        "scope": ["user.info.basic,video.list"],
        "response_type": ["code"],
        "redirect_uri": ["https://example.com/back/"],
        "state": ["s&t=1"],
    }


@pytest.mark.parametrize(("state", "scopes"), [("", ["a"]), ("s", [])])
def test_authorization_link_without_state_or_scopes_is_refused(state: str, scopes: list[str], client: Client) -> None:
    """Without a state anybody's code could be slipped in."""
    with pytest.raises(UsageError):
        client("https://a.b/open_api").authorization_url(state=state, scopes=scopes)


def test_account_data_asks_with_json_in_the_query_and_the_token_in_its_header(
    hostile: Hostile, client: Client, canaries: Canaries, caplog: pytest.LogCaptureFixture
) -> None:
    """No secret stands in the address, where every log would show it."""
    caplog.set_level(logging.DEBUG)
    _reply(hostile, code=0, request_id="20261122101530AB", data={"username": "u", "metrics": []})

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c1", {"fields": ["username", "likes"]})

    line, _, rest = hostile.requests[0].partition(b"\r\n")
    path = urlsplit(line.split(b" ")[1].decode())
    assert line.startswith(b"GET /open_api/v1.3/business/get/?")
    assert parse_qs(path.query) == {
        "business_id": ["c1"],
        "fields": ['["username","likes"]'],
    }
    assert f"\r\nAccess-Token: {canaries.access}\r\n".encode() in b"\r\n" + rest
    assert (found.data, found.request_id) == ({"username": "u", "metrics": []}, "20261122101530AB")
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (40102, RefreshFirstError),
        (40105, RefreshFirstError),
        (40130, GiveUpError),
        (40007, GiveUpError),
        (40100, WaitError),
        (51010, BackOffError),
        (40113, StopEveryoneError),
    ],
)
def test_refused_read_is_typed_and_shows_nothing(
    code: int, error: type[TikTokError], hostile: Hostile, client: Client, canaries: Canaries
) -> None:
    """The code travels with the error; query, header and echoes do not."""
    _reply(hostile, code=code, message=f"no: {canaries.access}", request_id="20261122101530AB")

    with pytest.raises(error) as caught:
        client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "creator-1", {"fields": ["username"]})

    assert caught.value.code == code
    shown = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in shown
    assert "business_id" not in shown
    assert caught.value.__context__ is None


def test_long_account_data_is_read_whole(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Sixty days of metrics are longer than any token answer may be."""
    metrics = [
        {"date": f"2026-11-{day:02}", "audience_activity": [{"hour": "1", "count": 1}] * 90} for day in range(60)
    ]
    _reply(hostile, code=0, data={"metrics": metrics})

    assert client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["likes"]}).data == {
        "metrics": metrics
    }


def test_number_that_no_database_takes_is_marked(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Infinity, its kin and endless digits are kept as what they are, so that somebody can see them."""
    long = "1" * 60
    hostile.answer(
        hostile.framed(b'{"code":0,"data":{"likes":1e999,"shares":NaN,"views":' + long.encode() + b',"comments":2}}')
    )

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["likes"]})

    assert found.data == {
        "likes": OddNumber("1e999"), "shares": OddNumber("NaN"), "views": OddNumber(long), "comments": 2
    }  # fmt: skip


def test_a_page_of_long_videos_comes_compressed(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Twenty videos of ten minutes with their curves are more than a megabyte, and a fraction of it on the way."""
    curve = [{"second": str(second), "percentage": round(1 - second / 700, 4)} for second in range(600)]
    videos = [{"item_id": str(number), "video_view_retention": curve} for number in range(60)]
    body = json.dumps({"code": 0, "data": {"videos": videos}}).encode()
    assert len(body) > 1 << 20
    hostile.answer(hostile.framed(gzip.compress(body), headers="Content-Encoding: gzip\r\n"))

    found = client(hostile.url).read(Token(canaries.access), VIDEO_CALL, "c", {"fields": ["item_id"]})

    assert found.data == {"videos": videos}
    assert found.raw == body
    assert b"\r\nAccept-Encoding: gzip\r\n" in hostile.requests[0]


def test_a_bomb_is_in_doubt(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """What inflates to more than the bound is not read, however small it is on the way."""
    body = b'{"code":0,"data":{"videos":[]}}' + b" " * (9 << 20)
    hostile.answer(hostile.framed(gzip.compress(body), headers="Content-Encoding: gzip\r\n"))

    with pytest.raises(InDoubtError):
        client(hostile.url).read(Token(canaries.access), VIDEO_CALL, "c", {"fields": ["item_id"]})


@pytest.mark.parametrize("echo", ["{}", "before {} after", "\\u0061{}"])
def test_a_raw_answer_holds_no_echo(echo: str, hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """The bytes are kept as they came only if nothing in them repeats a secret, in full or in part."""
    text = echo.format(canaries.access[2:] if echo.startswith("\\u") else canaries.access)
    hostile.answer(
        hostile.framed(b'{"code":0,"message":"%s","data":{"display_name":"%s"}}' % (text.encode(), text.encode()))
    )

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["username"]})

    assert canaries.access[4:].encode() not in found.raw
    assert "CANARY" not in str(found.data)
    assert json.loads(found.raw)["data"] == found.data


def test_an_answer_without_an_echo_is_kept_as_it_came(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """NUL and half characters too: they are replaced in what is read, and stay in what is kept."""
    body = rb'{"code":20001,"data":{"display_name":"a\u0000b","likes":1,"likes":2}}'
    hostile.answer(hostile.framed(body))

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["username"]})

    assert (found.raw, found.partial, found.repeated) == (body, True, frozenset({"likes"}))
    assert found.data["display_name"] == "a\ufffdb"


def test_no_echo_of_a_secret_is_kept(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """In a value, a name, a list or an address, whole or in part: what is stored holds no stretch of it."""
    strange = "rft." + "0123456789" * 4
    data = {
        "display_name": f"hello {canaries.access} there",
        "bio": [canaries.secret, {"deep": strange}],
        canaries.access: 1,
        "url": f"https://cdn.example/a?x={canaries.access[:24]}&y=1",
        "username": "react.js and act.two fans", "likes": 7, "none": None, "yes": True,
    }  # fmt: skip
    _reply(hostile, code=0, data=data)

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["likes"]}).data

    assert found == {
        "display_name": "hello <redacted> there",
        "bio": ["<redacted>", {"deep": "<redacted>"}],
        "<redacted>": 1,
        "url": "https://cdn.example/a?x=<redacted>&y=1",
        "username": "react.js and act.two fans", "likes": 7, "none": None, "yes": True,
    }  # fmt: skip


def test_text_that_no_database_takes_is_replaced(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """NUL and half characters become the sign for what is unknown, in names too; whole characters stay."""
    body = rb'{"code":0,"data":{"display_name":"a\u0000b\ud800c","\udc00":["\u0000"],"emoji":"\ud83c\udf89"}}'
    hostile.answer(hostile.framed(body))

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["likes"]}).data

    assert found == {"display_name": "a\ufffdb\ufffdc", "\ufffd": ["\ufffd"], "emoji": "🎉"}


def test_deep_account_data_is_cut_off(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Nesting without end costs neither the call nor the rest of the account."""
    hostile.answer(hostile.framed(b'{"code":0,"data":{"likes":1,"deep":' + b"[" * 300 + b"]" * 300 + b"}}"))

    found = client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["likes"]}).data

    assert found["likes"] == 1
    assert str(found["deep"]).count("[") <= 64


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data":{}}', b'{"code":0}', b'{"code":0,"data":[]}'])
def test_unreadable_read_is_in_doubt(body: bytes, hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """It says nothing, so nothing is stored; reading again harms nobody."""
    hostile.answer(hostile.framed(body))

    with pytest.raises(InDoubtError):
        client(hostile.url).read(Token(canaries.access), ACCOUNT_CALL, "c", {"fields": ["username"]})


@pytest.mark.parametrize(
    ("token", "fields"),
    [("act.x", []), ("act.CANARY\r\nX: y", ["likes"]), ("act.CANARY\u00e9", ["likes"]), (" CANARY", ["likes"])],
)
def test_read_that_cannot_be_asked_sends_nothing(
    token: str, fields: list[str], hostile: Hostile, client: Client
) -> None:
    """No field allowed means no call, and a token that no header holds is not tried."""
    with pytest.raises(GiveUpError) as caught:
        client(hostile.url).read(Token(token), ACCOUNT_CALL, "c", {"fields": fields})

    assert hostile.connections == 0
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_token_info_is_a_post_without_secret_and_header(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """TikTok orders the scopes differently here; they are a set."""
    _reply(hostile, code=0, data={"app_id": 7123, "creator_id": "c1", "scope": "b,a"})

    found = client(hostile.url).token_info(Token(canaries.access))

    head, _, body = hostile.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /open_api/v1.3/tt_user/token_info/get/ ")
    assert json.loads(body) == {"app_id": "7123", "access_token": canaries.access}
    assert found == TokenInfo(app_id="7123", creator_id="c1", scope=("a", "b"))


def test_revoke_sends_the_secret_and_the_access_token(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """An empty data object is all a success brings."""
    _reply(hostile, code=0, message="OK", data={})

    client(hostile.url).revoke(Token(canaries.access))

    assert hostile.requests[0].startswith(b"POST /open_api/v1.3/tt_user/oauth2/revoke/ ")
    assert json.loads(hostile.requests[0].partition(b"\r\n\r\n")[2]) == {
        "client_id": "7123",
        "client_secret": canaries.secret,
        "access_token": canaries.access,
    }


@pytest.mark.parametrize("code", [40102, 40105, 40106, 40107, 40120, 40131])
def test_revoking_a_dead_token_is_done(code: int, hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """What it answers the second time is documented nowhere."""
    _reply(hostile, code=code)

    client(hostile.url).revoke(Token(canaries.access))


@pytest.mark.parametrize(
    ("code", "error"),
    [(40101, StopEveryoneError), (50000, BackOffError), (40999, BackOffError), (40100, WaitError)],
)
def test_revoke_that_may_not_have_worked_is_an_error(
    code: int, error: type[TikTokError], hostile: Hostile, client: Client
) -> None:
    """Only a code that speaks of a dead token counts as done."""
    _reply(hostile, code=code)

    with pytest.raises(error):
        client(hostile.url).revoke(Token("act.x"))


def test_revoke_without_an_answer_is_in_doubt(hostile: Hostile, client: Client, canaries: Canaries) -> None:
    """Nothing came, so nothing is known."""
    with pytest.raises(InDoubtError):
        client(hostile.url).revoke(Token(canaries.access))


@pytest.mark.parametrize(
    ("scope", "fields"),
    [
        ([], ()),
        (["video.list"], ()),
        (["user.info.basic"], ("display_name", "profile_image")),
        (["user.info.username", "user.info.basic"], ("display_name", "profile_image", "username")),
    ],
)
def test_fields_are_only_those_that_the_scopes_allow(scope: list[str], fields: tuple[str, ...]) -> None:
    """One field too many fails the whole read."""
    assert ACCOUNT.fields_for(scope) == fields


def test_follower_count_is_not_asked_for_by_the_scope_of_insights() -> None:
    """Its name also means the total, which another scope guards."""
    assert "followers_count" not in ACCOUNT.fields_for(["user.insights"])
    assert len(set(every := ACCOUNT.fields_for(["user.insights", "user.info.stats"]))) == len(every)
