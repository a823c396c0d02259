"""Faults of the way an answer travels, whom faults strike, and what the ledger says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.process import RunningSandbox, SandboxError

Start = Callable[..., RunningSandbox]
Struck = Callable[..., tuple[SimpleNamespace, LedgerEntry]]
Ask = Callable[..., SimpleNamespace]


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_lost_answer_comes_after_the_rotation(struck: Struck, how: str) -> None:
    """Not a byte arrives, the connection ends as asked, and the ledger has the new pair as lost."""
    answer, entry = struck("lost", how=how)

    assert (answer.received, answer.ended) == (b"", how)
    assert (entry.answer, entry.code, entry.faults) == ("lost", 0, ("lost",))
    assert entry.fp_new_refresh is not None


def test_lost_without_rotation_leaves_the_pair_alone(start: Start, ask: Ask) -> None:
    """If the call is not carried out, the old token still works afterwards."""
    sandbox = start()
    token = sandbox.grants()[0]["refresh_token"]
    sandbox.fault("lost", times=1, rotates=False)

    assert ask(sandbox, "refresh", refresh_token=token).received == b""
    assert ask(sandbox, "refresh", refresh_token=token).json["code"] == 0
    assert [entry.code for entry in sandbox.entries()[1:]] == [-1, 0]
    assert sandbox.entries()[-1].reused_after is None


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_answer_ends_at_the_offset(struck: Struck, framing: str, how: str) -> None:
    """So many bytes of the body arrive and no more, under each framing."""
    answer, entry = struck("cut", at=150, framing=framing, how=how)

    body = answer.body.partition(b"\r\n")[2] if framing == "chunked" else answer.body
    assert (len(body), answer.ended) == (150, how)
    assert ("content-length" in answer.headers) is (framing == "length")
    assert (entry.answer, entry.salvageable) == ("cut", False)


@pytest.mark.parametrize(("at", "salvageable"), [(-2, True), (-300, False), (0, False)])
def test_ledger_says_whether_a_cut_answer_could_be_salvaged(struck: Struck, at: int, salvageable: bool) -> None:
    """A cut after both tokens and the creator id is one from which the pair can still be saved."""
    answer, entry = struck("cut", at=at)

    assert answer.json is None
    assert entry.salvageable is salvageable


def test_cut_can_fall_into_the_head(struck: Struck) -> None:
    """With part `all` the offset counts from the status line."""
    answer, _ = struck("cut", at=10, part="all")

    assert answer.received == b"HTTP/1.1 2"


@pytest.mark.parametrize(("first", "code"), [("work", 40107), ("wait", 0)])
def test_slow_answer_works_before_or_after_the_wait(start: Start, ask: Ask, first: str, code: int) -> None:
    """While one answer waits, another refresh shows whether the first had rotated, and counts as an overlap."""
    sandbox = start()
    token = sandbox.grants()[0]["refresh_token"]
    sandbox.fault("slow", seconds=0.5, first=first, times=1)
    began = time.monotonic()
    slow = Thread(target=ask, args=(sandbox, "refresh"), kwargs={"refresh_token": token})
    slow.start()
    while not sandbox.creator("creator-1")["under_way"]:
        assert time.monotonic() < began + 10

    answer = ask(sandbox, "refresh", refresh_token=token)
    slow.join()

    assert answer.json["code"] == code
    assert time.monotonic() - began >= 0.5
    assert sum(entry.under_way and entry.overlap for entry in sandbox.entries()) == 1
    assert sandbox.creator("creator-1")["under_way"] == 0


@pytest.mark.parametrize("part", ["head", "body", "all"])
def test_dripping_answer_is_whole_in_the_end(struck: Struck, part: str) -> None:
    """Drops arrive with pauses between them, and together they are the answer."""
    began = time.monotonic()
    answer, entry = struck("drip", part=part, bytes=20, seconds_per_byte=0.001)

    assert answer.json["code"] == 0
    assert time.monotonic() - began >= 0.1
    assert entry.answer == "sent"


def test_whole_answer_in_another_framing(struck: Struck) -> None:
    """Chunked and close framing carry the whole answer."""
    chunked, _ = struck("framing", framing="chunked")
    closed, _ = struck("framing", framing="close")

    assert chunked.headers["transfer-encoding"] == "chunked"
    assert chunked.body.endswith(b"}}\r\n0\r\n\r\n")
    assert closed.json["code"] == 0
    assert "content-length" not in closed.headers


def test_faults_strike_whom_and_as_often_as_they_should(start: Start, ask: Ask) -> None:
    """A fault may be for one creator, one call and a number of times; healing ends all."""
    sandbox = start(rotation="same")
    ada, eve = sandbox.grants(creators=["ada", "eve"])
    sandbox.fault("code", creator="ada", call="refresh", times=2, code=50000)

    def code(pair: dict[str, Any], call: str = "refresh") -> int:
        name = "refresh_token" if call == "refresh" else "access_token"
        return int(ask(sandbox, call, **{name: pair[name]}).json["code"])

    assert (code(eve), code(ada, "token_info")) == (0, 0)
    assert [code(ada) for _ in range(3)] == [50000, 50000, 0]
    sandbox.fault("code", code=50002)
    assert (code(eve), code(ada)) == (50002, 50002)
    sandbox.heal()
    assert code(eve) == 0
    assert sandbox.control("faults") == {"faults": []}


def test_probability_is_drawn_from_the_seed(start: Start, ask: Ask) -> None:
    """A fault with a probability strikes some calls, the same ones for the same seed."""

    def struck(seed: int) -> list[int]:
        sandbox = start(rotation="same", seed=seed)
        token = sandbox.grants()[0]["refresh_token"]
        sandbox.fault("code", probability=0.5, code=50000)
        return [ask(sandbox, "refresh", refresh_token=token).json["code"] for _ in range(24)]

    assert struck(3) == struck(3) != struck(4)
    assert set(struck(3)) == {0, 50000}


def test_several_faults_may_hit_one_call(start: Start, ask: Ask) -> None:
    """A slow answer can also be lost; the ledger names both faults."""
    sandbox = start()
    token = sandbox.grants()[0]["refresh_token"]
    sandbox.control("faults", [{"kind": "slow", "seconds": 0.1}, {"kind": "lost", "how": "rst"}])

    answer = ask(sandbox, "refresh", refresh_token=token)

    assert (answer.received, answer.ended) == (b"", "rst")
    assert sandbox.entries()[-1].faults == ("slow", "lost")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "mood"}, "kind: there are"),
        ({"kind": "lost", "how": "softly"}, "'softly' is none of rst, fin"),
        ({"kind": "cut"}, "cut:"),
        ({"kind": "lost", "call": "cal"}, "call: there are"),
        ({"kind": "lost", "times": 0}, "times: a whole number from 1"),
        ({"kind": "lost", "probability": 2}, "probability: a number from 0 to 1"),
    ],
)
def test_wrong_faults_are_refused_with_a_sentence(start: Start, fault: dict[str, Any], words: str) -> None:
    """A fault that is described wrongly is not taken half."""
    sandbox = start()

    with pytest.raises(SandboxError, match=words):
        sandbox.control("faults", fault)
    assert sandbox.control("faults") == {"faults": []}


def test_client_that_leaves_before_the_answer_is_undelivered(start: Start, wait_until: Callable[..., None]) -> None:
    """A pair whose client has gone while the answer waited is marked as undelivered, and its retry as doubtful."""
    import http.client  # noqa: PLC0415  # only this test needs a client that leaves

    sandbox = start(latency=0.3)
    token = sandbox.grants()[0]["refresh_token"]
    body = {"client_id": "sandbox-app", "client_secret": "sandbox-secret", "grant_type": "refresh_token"}
    client = http.client.HTTPConnection("127.0.0.1", sandbox.port)
    headers = {"Content-Type": "application/json"}
    path = "/open_api/v1.3/tt_user/oauth2/refresh_token/"
    client.request("POST", path, json.dumps({**body, "refresh_token": token}), headers)
    wait_until(lambda: len(sandbox.entries()) == 2)
    client.close()

    wait_until(lambda: sandbox.entries()[-1].answer == "undelivered")

    client.request("POST", path, json.dumps({**body, "refresh_token": token}), headers)
    assert json.loads(client.getresponse().read())["code"] == 40107
    client.close()
    assert sandbox.entries()[-1].reused_after == "undelivered"
