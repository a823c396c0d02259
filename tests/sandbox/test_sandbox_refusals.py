"""What token calls refuse, and with which code."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.process import RunningSandbox

Start = Callable[..., RunningSandbox]
Ask = Callable[..., SimpleNamespace]


def _code(sandbox: RunningSandbox, creator: str = "ada", scope: str | None = None) -> str:
    return str(sandbox.control("codes", {"creator": creator, "scope": scope})["code"])


def test_an_expired_access_token_is_distinguished_from_a_wrong_one(start: Start, ask: Ask) -> None:
    """An expired access token answers 40102, an unknown one 40105."""
    sandbox = start(expires_in=60)
    token = sandbox.grants()[0]["access_token"]
    sandbox.control("clock", {"advance": 61})

    assert ask(sandbox, "token_info", access_token=token).json["code"] == 40102
    assert ask(sandbox, "token_info", access_token="act.unknown").json["code"] == 40105


def test_code_works_once_and_not_for_long(start: Start, ask: Ask) -> None:
    """A used, expired or unknown code answers 40110."""
    sandbox = start(code_life=60)
    used, late = _code(sandbox), _code(sandbox)
    assert ask(sandbox, "token", auth_code=used).json["code"] == 0
    assert ask(sandbox, "token", auth_code=used).json["code"] == 40110
    sandbox.control("clock", {"advance": 61})

    assert ask(sandbox, "token", auth_code=late).json["code"] == 40110
    assert ask(sandbox, "token", auth_code=_code(sandbox).replace("*", "%2A")).json["code"] == 40110


@pytest.mark.parametrize(
    ("call", "fields", "code"),
    [
        pytest.param("refresh", {"client_secret": "wrong"}, 40101, id="wrong secret"),
        pytest.param("refresh", {"client_id": "wrong"}, 40101, id="wrong app"),
        pytest.param("refresh", {"grant_type": "authorization_code"}, 40108, id="wrong grant type"),
        pytest.param("refresh", {"refresh_token": None}, 40002, id="no refresh token"),
        pytest.param("refresh", {"refresh_token": ""}, 40002, id="empty refresh token"),
        pytest.param("refresh", {"refresh_token": 5}, 40002, id="a number for a text"),
        pytest.param("refresh", {"refresh_token": "rft.unknown"}, 40107, id="unknown refresh token"),
        pytest.param("token", {"auth_code": "x", "redirect_uri": None}, 40002, id="no redirect address"),
        pytest.param("token_info", {"access_token": "act.unknown"}, 40105, id="unknown access token"),
        pytest.param("revoke", {"access_token": "act.unknown"}, 40105, id="revoke of an unknown token"),
    ],
)
def test_wrong_calls_are_refused_with_http_200(
    start: Start, ask: Ask, call: str, fields: dict[str, Any], code: int
) -> None:
    """Application errors come with HTTP 200 and their code, and bring no data."""
    sandbox = start()
    token = sandbox.grants()[0]["refresh_token"]

    answer = ask(sandbox, call, **({"refresh_token": token} | fields if call == "refresh" else fields))

    assert (answer.status, answer.json["code"], answer.json["data"]) == (200, code, {})
    assert ask(sandbox, "refresh", refresh_token=token).json["code"] == 0


def test_revoke_kills_access_and_refresh_token(start: Start, ask: Ask) -> None:
    """After our own revoke neither token works, and revoking again is an error."""
    sandbox = start()
    pair = sandbox.grants()[0]

    assert ask(sandbox, "revoke", access_token=pair["access_token"]).json["code"] == 0
    assert ask(sandbox, "revoke", access_token=pair["access_token"]).json["code"] == 40105
    assert ask(sandbox, "refresh", refresh_token=pair["refresh_token"]).json["code"] == 40107


def test_creator_who_removes_the_app_cuts_both_tokens(start: Start, ask: Ask) -> None:
    """A revocation by the creator shows as 40105 on reads and 40107 on refreshes."""
    sandbox = start()
    pair = sandbox.grants()[0]

    sandbox.revoke("creator-1")

    assert ask(sandbox, "token_info", access_token=pair["access_token"]).json["code"] == 40105
    assert ask(sandbox, "refresh", refresh_token=pair["refresh_token"]).json["code"] == 40107


def test_blocked_app_and_new_secret(start: Start, ask: Ask) -> None:
    """A blocked app gets 40113; a rotated secret is accepted beside the old one until it replaces it."""
    sandbox = start(rotation="same")
    token = sandbox.grants()[0]["refresh_token"]

    def code(secret: str = "sandbox-secret") -> int:
        return int(ask(sandbox, "refresh", refresh_token=token, client_secret=secret).json["code"])

    sandbox.control("app", {"next_secret": "newer"})
    assert (code(), code("newer")) == (0, 0)
    sandbox.control("app", {"secret": "newer"})
    assert (code(), code("newer")) == (40101, 0)
    sandbox.control("app", {"blocked": True})
    assert code("newer") == 40113


def test_paths_and_methods_are_exact(start: Start, send: Callable[..., SimpleNamespace]) -> None:
    """Without the last slash TikTok answers a plain 404, with the wrong method a plain 405."""
    sandbox = start()
    path = "/open_api/v1.3/tt_user/oauth2/refresh_token"

    missing = send(sandbox, "POST", path, body={})
    wrong = send(sandbox, "GET", f"{path}/")

    assert (missing.status, missing.json) == (404, None)
    assert missing.headers["content-type"].startswith("text/plain")
    assert (wrong.status, wrong.json) == (405, None)
    assert send(sandbox, "POST", "/open_api/v1.2/oauth2/token/", body={}).status == 404


def test_requests_may_come_in_pieces_and_form_bodies_are_refused(
    start: Start, send: Callable[..., SimpleNamespace]
) -> None:
    """A request cut into many packets is understood; one that is not JSON is a bad parameter."""
    sandbox = start()
    path = "/open_api/v1.3/tt_user/token_info/get/"

    cut = send(sandbox, "POST", path, body={"app_id": "sandbox-app", "access_token": "x"}, pieces=40)
    form = send(sandbox, "POST", path, body={}, headers={"Content-Type": "application/x-www-form-urlencoded"})

    assert cut.json["code"] == 40105
    assert form.json["code"] == 40002
