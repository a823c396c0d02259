"""The authorization page: what a browser is sent back with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from worker.sandbox.process import RunningSandbox

Send = Callable[..., SimpleNamespace]
RIGHT = {
    "client_key": "sandbox-app",
    "scope": "user.info.basic,video.list",
    "response_type": "code",
    "redirect_uri": "https://localhost/callback/",
    "state": "s/1 &2",
}


def _visit(sandbox: RunningSandbox, send: Send, **changes: str) -> SimpleNamespace:
    return send(sandbox, "GET", f"/v2/auth/authorize/?{urlencode({**RIGHT, **changes})}")


def _sent_back(answer: SimpleNamespace) -> dict[str, str]:
    assert answer.status == 302
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


def test_consent_brings_code_scopes_and_state_encoded(shared: RunningSandbox, send: Send) -> None:
    """The raw query holds %2A, %21 and %2C, as TikTok's does, and the state comes back unchanged."""
    answer = _visit(shared, send, sandbox_creator="ada")

    raw = answer.headers["location"].removeprefix("https://localhost/callback/?")
    assert raw.startswith("code=")
    assert all(text in raw for text in ("%2A", "%21", "&scopes=user.info.basic%2Cvideo.list", "&state="))
    assert not set("*!,") & set(raw)
    assert _sent_back(answer)["state"] == "s/1 &2"


def test_code_of_the_page_belongs_to_the_creator_named(shared: RunningSandbox, send: Send, ask: Send) -> None:
    """The decoded code becomes a pair of the creator who consented, with the scopes that were left ticked."""
    answer = _visit(shared, send, sandbox_creator="partial", sandbox_scope="video.list")

    data = ask(shared, "token", auth_code=_sent_back(answer)["code"]).json["data"]

    assert (data["open_id"], data["scope"]) == ("partial", "video.list")


def test_each_visit_is_a_new_creator_unless_named(shared: RunningSandbox, send: Send, ask: Send) -> None:
    """Without a name every consent is another account's."""
    codes = [_sent_back(_visit(shared, send))["code"] for _ in range(2)]

    assert len({ask(shared, "token", auth_code=code).json["data"]["open_id"] for code in codes}) == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sandbox_decision": "deny"}, "access_denied"),
        ({"scope": "user.info.basic,biz.unknown"}, "invalid_scope"),
        ({"scope": ""}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
def test_refusals_go_back_to_the_app(shared: RunningSandbox, send: Send, changes: dict[str, str], error: str) -> None:
    """A refusal reaches the redirect address with error, type, description, log id and state, and no code."""
    fields = _sent_back(_visit(shared, send, **changes))

    assert fields["error"] == error
    assert fields.keys() == {"error", "error_type", "error_description", "log_id", "state"}


@pytest.mark.parametrize(
    "changes",
    [
        {"client_key": "other"},
        {"redirect_uri": "https://localhost/callback"},
        {"redirect_uri": "https://evil.example/"},
    ],
)
def test_wrong_app_or_address_never_redirects(shared: RunningSandbox, send: Send, changes: dict[str, str]) -> None:
    """If app or redirect address is wrong, the owner sees an error page and is not redirected."""
    answer = _visit(shared, send, **changes)

    assert (answer.status, "location" in answer.headers) == (400, False)


def test_disable_auto_auth_shows_the_screen_whose_links_decide(shared: RunningSandbox, send: Send) -> None:
    """The consent screen comes first; its links accept or deny, and nothing sent breaks out of its HTML."""
    answer = _visit(shared, send, disable_auto_auth="1", state='"><script>')

    page = answer.body.decode()
    links = [part.split('"')[0].replace("&amp;", "&") for part in page.split('href="')[1:]]
    decided = [_sent_back(send(shared, "GET", f"/v2/auth/authorize/{link}")) for link in links]
    assert answer.status == 200
    assert "<script>" not in page
    assert ["code" in fields for fields in decided] == [True, False]
    assert decided[1]["error"] == "access_denied"
    assert decided[0]["state"] == '"><script>'
