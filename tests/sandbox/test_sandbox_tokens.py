"""Token calls: rotation, lifetimes, consents and the shapes of answers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from worker.sandbox.ledger import fingerprint
from worker.sandbox.process import RunningSandbox

Start = Callable[..., RunningSandbox]
Ask = Callable[..., SimpleNamespace]


def _code(sandbox: RunningSandbox, creator: str = "ada", scope: str | None = None) -> str:
    return str(sandbox.control("codes", {"creator": creator, "scope": scope})["code"])


def test_exchange_brings_the_token_object(start: Start, ask: Ask) -> None:
    """A code becomes a pair, with TikTok's names, types and full lifetimes."""
    sandbox = start()

    answer = ask(sandbox, "token", auth_code=_code(sandbox, scope="user.info.basic,video.list"))

    data = answer.json["data"]
    assert (answer.status, answer.json["code"], answer.json["message"]) == (200, 0, "OK")
    assert answer.json["request_id"][:14].isdecimal()
    assert answer.headers["x-tt-logid"]
    assert data.keys() == {
        "access_token",
        "expires_in",
        "refresh_token",
        "refresh_token_expires_in",
        "open_id",
        "scope",
        "token_type",
    }
    assert (data["expires_in"], data["refresh_token_expires_in"]) == (86_400, 31_536_000)
    assert (data["open_id"], data["token_type"]) == ("ada", "Bearer")
    assert set(data["scope"].split(",")) == {"user.info.basic", "video.list"}
    assert data["access_token"].startswith("act.")
    assert data["refresh_token"].startswith("rft.")


def test_strict_rotation_kills_the_old_refresh_token(start: Start, ask: Ask) -> None:
    """After a refresh the old refresh token is dead at once, the new one works and the old access token lives on."""
    sandbox = start()
    old = sandbox.grants()[0]

    new = ask(sandbox, "refresh", refresh_token=old["refresh_token"]).json["data"]

    assert new["refresh_token"] != old["refresh_token"]
    assert ask(sandbox, "refresh", refresh_token=old["refresh_token"]).json["code"] == 40107
    assert ask(sandbox, "refresh", refresh_token=new["refresh_token"]).json["code"] == 0
    assert ask(sandbox, "token_info", access_token=old["access_token"]).json["code"] == 0


def test_same_rotation_keeps_the_refresh_token(start: Start, ask: Ask) -> None:
    """If nothing rotates, the refresh token stays and works again and again."""
    sandbox = start(rotation="same")
    old = sandbox.grants()[0]

    answers = [ask(sandbox, "refresh", refresh_token=old["refresh_token"]).json["data"] for _ in range(20)]

    assert {answer["refresh_token"] for answer in answers} == {old["refresh_token"]}
    assert len({answer["access_token"] for answer in answers}) == 20
    assert not any(entry.overlap for entry in sandbox.entries())


@pytest.mark.parametrize(("grace_answer", "equal"), [("same", True), ("another", False)])
def test_grace_answers_a_used_token_until_it_ends(start: Start, ask: Ask, grace_answer: str, equal: bool) -> None:
    """Within the grace a used token brings the same new pair or yet another, after it nothing."""
    sandbox = start(rotation="grace", grace_seconds=30.0, grace_answer=grace_answer)
    old = sandbox.grants()[0]["refresh_token"]

    first = ask(sandbox, "refresh", refresh_token=old).json["data"]
    second = ask(sandbox, "refresh", refresh_token=old).json["data"]
    sandbox.control("clock", {"advance": 31})

    assert (first["refresh_token"] == second["refresh_token"]) is equal
    assert ask(sandbox, "refresh", refresh_token=old).json["code"] == 40107
    assert ask(sandbox, "refresh", refresh_token=second["refresh_token"]).json["code"] == 0
    assert [entry.again for entry in sandbox.entries()[1:3]] == [False, equal]


def test_year_of_the_refresh_token_is_absolute(start: Start, ask: Ask) -> None:
    """A refresh does not extend the refresh clock; past it the answer is 40103."""
    sandbox = start(refresh_expires_in=1000)
    token = sandbox.grants()[0]["refresh_token"]
    sandbox.control("clock", {"advance": 600})

    data = ask(sandbox, "refresh", refresh_token=token).json["data"]
    sandbox.control("clock", {"advance": 401})

    assert data["refresh_token_expires_in"] in {399, 400}
    assert ask(sandbox, "refresh", refresh_token=data["refresh_token"]).json["code"] == 40103


@pytest.mark.parametrize(("reconsent", "code"), [("kills", 40107), ("keeps", 0)])
def test_new_consent_decides_over_the_old_pair(start: Start, ask: Ask, reconsent: str, code: int) -> None:
    """A second consent ends the first or leaves it, as the option says, and has the next number."""
    sandbox = start(reconsent=reconsent)
    old = sandbox.grants(creators=["ada"])[0]["refresh_token"]

    assert ask(sandbox, "token", auth_code=_code(sandbox)).json["code"] == 0

    assert ask(sandbox, "refresh", refresh_token=old).json["code"] == code
    assert [entry.consent for entry in sandbox.entries()[:2]] == [1, 2]


def test_replay_of_a_used_token_can_kill_the_family(start: Start, ask: Ask) -> None:
    """With reuse detection on, a used refresh token that comes again ends the whole consent."""
    sandbox = start(reuse_revokes=True)
    old = sandbox.grants()[0]["refresh_token"]
    new = ask(sandbox, "refresh", refresh_token=old).json["data"]["refresh_token"]

    assert ask(sandbox, "refresh", refresh_token=old).json["code"] == 40107
    assert ask(sandbox, "refresh", refresh_token=new).json["code"] == 40107


def test_old_access_token_can_die_with_the_refresh(start: Start, ask: Ask) -> None:
    """If the option says so, the old access token ends with the refresh."""
    sandbox = start(old_access="dies")
    old = sandbox.grants()[0]

    new = ask(sandbox, "refresh", refresh_token=old["refresh_token"]).json["data"]

    assert ask(sandbox, "token_info", access_token=old["access_token"]).json["code"] == 40105
    assert ask(sandbox, "token_info", access_token=new["access_token"]).json["code"] == 0


@pytest.mark.parametrize("style", ["early", "v1.2"])
def test_older_answer_styles(start: Start, ask: Ask, style: str) -> None:
    """Older versions name the fields otherwise, and the oldest has them beside the code."""
    sandbox = start(answer_style=style)
    token = sandbox.grants()[0]["refresh_token"]

    answer = ask(sandbox, "refresh", refresh_token=token).json

    data = answer["data"] if style == "early" else answer
    assert (data["creator_id"], data["expires"], data["refresh_expires"]) == ("creator-1", 86_400, 31_536_000)
    assert "open_id" not in data
    assert ("data" in answer) is (style == "early")


def test_canary_is_inside_every_token_and_code(start: Start, ask: Ask) -> None:
    """A leak scan can find every secret the sandbox handed out by one text; the ledger holds none."""
    sandbox = start(canary="CANARY7")
    code = _code(sandbox)

    data = ask(sandbox, "token", auth_code=code).json["data"]

    assert all("CANARY7" in text for text in (code, data["access_token"], data["refresh_token"]))
    assert "CANARY7" not in sandbox.ledger_path.read_text()
    assert sandbox.entries()[-1].fp_new_refresh == fingerprint(data["refresh_token"])
