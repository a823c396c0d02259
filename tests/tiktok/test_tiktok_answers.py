"""A pair is read from every shape TikTok has given its answers, and never thrown away for a bad number."""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import InDoubtError, TikTokError
from worker.tiktok import RawAnswer, read_token_answer, salvage
from worker.tiktok.answers import request_id_of
from worker.vault import Token
from worker.vault.redaction import Echoes

if TYPE_CHECKING:
    from tests.tiktok.conftest import Canaries, Raw

ANSWERS = Path(__file__).parent / "answers"
DATA = {
    "access_token": "act.new",
    "expires_in": 86400,
    "refresh_token": "rft.new",
    "refresh_token_expires_in": 31527314,
    "open_id": "c1",
    "scope": "b,a",
    "token_type": "Bearer",
}


def _with(**changes: Any) -> dict[str, Any]:
    """Return a successful answer whose data is changed; `...` takes a member away."""
    data = {name: value for name, value in {**DATA, **changes}.items() if value is not ...}
    return {"code": 0, "message": "OK", "request_id": "20240304062229A1", "data": data}


@pytest.mark.parametrize(
    ("file", "creator", "refresh_seconds"),
    [
        ("v1_2.json", "c7e1f0a2-5b1d-4b5e-9d3a-000000000001", 31536000),
        ("early_v1_3.json", "c7e1f0a2-5b1d-4b5e-9d3a-000000000002", 31536000),
        ("v1_3.json", "c7e1f0a2-5b1d-4b5e-9d3a-000000000003", 28482211),
    ],
)
def test_answers_of_every_version_are_read(file: str, creator: str, refresh_seconds: int, raw: Raw) -> None:
    """Old field names, numbers as texts, and the flat shape of v1.2 without an envelope."""
    body = (ANSWERS / file).read_bytes()
    written = json.loads(body)
    written = written.get("data", written)

    answer = read_token_answer(raw(body))

    assert answer.creator_id == creator
    assert answer.access_token.reveal() == written["access_token"]
    assert answer.refresh_token is not None
    assert answer.refresh_token.reveal() == written["refresh_token"]
    assert (answer.access_seconds, answer.refresh_seconds) == (86400, refresh_seconds)
    assert answer.scope == tuple(sorted(written["scope"].split(",")))
    assert answer.remarks == ()


@pytest.mark.parametrize("value", [86400, "86400", " 86400 ", 86400.0, "86400.0"])
def test_life_may_come_as_any_kind_of_number(value: object, raw: Raw) -> None:
    """Digits in a text and integral floats are numbers."""
    answer = read_token_answer(raw(_with(expires_in=value)))

    assert (answer.access_seconds, answer.remarks) == (86400, ())


@pytest.mark.parametrize(
    "value", [0, -1, True, False, 86400.5, 10**18, 401 * 86400, "1e5", "soon", "", "٣", [], {}, "9" * 500, 10**60]
)
def test_absurd_life_is_remarked_on_and_the_pair_is_kept(value: object, raw: Raw) -> None:
    """The caller decides what to do without a life; the pair itself is good."""
    answer = read_token_answer(raw(_with(expires_in=value, refresh_token_expires_in=value)))

    assert answer.access_token.reveal() == "act.new"
    assert (answer.access_seconds, answer.refresh_seconds) == (None, None)
    assert len(answer.remarks) == 2


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_number_that_python_cannot_hold_does_not_cost_the_pair(number: str, raw: Raw) -> None:
    """Python refuses integers of thousands of digits and knows numbers that are none."""
    body = json.dumps(_with(expires_in=123454321)).replace("123454321", number).encode()

    answer = read_token_answer(raw(body))

    assert (answer.access_seconds, answer.access_token.reveal()) == (None, "act.new")


@pytest.mark.parametrize(
    ("value", "kept"), [(..., None), (None, None), ("", None), (5, None), ([], None), ("old", "old")]
)
def test_missing_refresh_token_means_keep_the_old_one(value: object, kept: str | None, raw: Raw) -> None:
    """An answer may leave it out (RFC 6749 section 6)."""
    answer = read_token_answer(raw(_with(refresh_token=value)))

    found = None if answer.refresh_token is None else answer.refresh_token.reveal()
    assert found == kept


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ("b,a", ("a", "b")),
        ("a,b,b", ("a", "b")),
        (["b", "a"], ("a", "b")),
        (" a , b ", ("a", "b")),
        ("a,", ("a",)),
        (..., None),
        (None, None),
        ("", None),
        ([], None),
        ([1, 2], None),
        (["a", 2], ("a",)),
        (["a b", "c"], ("c",)),
        (7, None),
        ({"a": 1}, None),
    ],
)
def test_scope_is_a_set_however_it_comes(value: object, scope: tuple[str, ...] | None, raw: Raw) -> None:
    """TikTok's order is not stable; what is no scope is left out."""
    assert read_token_answer(raw(_with(scope=value))).scope == scope


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": ...},
        {"access_token": ""},
        {"access_token": " "},
        {"access_token": None},
        {"access_token": 5},
        {"access_token": ["act.new"]},
        {"access_token": "\ud800"},
        {"open_id": ...},
        {"open_id": ""},
        {"open_id": None},
        {"open_id": True},
        {"open_id": 1.5},
        {"open_id": ["c1"]},
        {"open_id": "c 1"},
        {"open_id": "c\n1"},
        {"open_id": "c\u0000"},
        {"open_id": "c\ud800"},
        {"open_id": "c" * 256},
        {"creator_id": "c2"},
    ],
)
def test_pair_without_a_token_or_without_one_owner_is_in_doubt(changes: dict[str, object], raw: Raw) -> None:
    """A pair is stored only under the creator whose id the answer bears."""
    with pytest.raises(InDoubtError):
        read_token_answer(raw(_with(**changes)))
    assert salvage(raw(_with(**changes))) is None


@pytest.mark.parametrize(
    "changes", [{"open_id": 71234567890123456789}, {"creator_id": "c1"}, {"open_id": ..., "creator_id": "c1"}]
)
def test_owner_may_be_a_number_or_have_its_old_name(changes: dict[str, object], raw: Raw) -> None:
    """Ids exceed what a float holds, and are texts from here on."""
    assert read_token_answer(raw(_with(**changes))).creator_id in {"c1", "71234567890123456789"}


@pytest.mark.parametrize("key", ["access_token", "refresh_token", "open_id"])
def test_decisive_key_that_stands_twice_is_in_doubt(key: str, raw: Raw) -> None:
    """Nobody knows which one was meant; two equal values are accepted."""
    once = json.dumps(_with())
    other = raw(once.replace(f'"{key}": ', f'"{key}": "another", "{key}": ').encode())
    same = raw(once.replace(f'"{key}": ', f'"{key}": "{DATA[key]}", "{key}": ').encode())

    with pytest.raises(InDoubtError):
        read_token_answer(other)
    assert salvage(other) is None
    assert read_token_answer(same).creator_id == "c1"


def test_partial_success_keeps_what_came(raw: Raw) -> None:
    """Code 20001 is a success with a remark."""
    answer = read_token_answer(raw({**_with(), "code": 20001}))

    assert answer.creator_id == "c1"
    assert answer.remarks


def test_unknown_members_and_another_token_type_do_not_matter(raw: Raw) -> None:
    """What we do not read cannot hurt."""
    assert read_token_answer(raw(_with(token_type=["x"], extra={"deep": [1]}))).remarks == ()


def test_byte_order_mark_does_not_matter(raw: Raw) -> None:
    """Some front doors put one there."""
    assert read_token_answer(raw(b"\xef\xbb\xbf" + json.dumps(_with()).encode())).creator_id == "c1"


def test_salvage_takes_no_number_that_the_cut_went_through(raw: Raw) -> None:
    """`864` may be the beginning of `86400`."""
    data = {name: DATA[name] for name in ("access_token", "refresh_token", "open_id", "expires_in")}
    body = json.dumps({"code": 0, "data": data}).encode()

    answer = salvage(raw(body[: body.index(b"86400") + 3], complete=False))

    assert answer is not None
    assert answer.access_seconds is None


def test_salvage_takes_a_number_that_a_comma_ended(raw: Raw) -> None:
    """After the comma no digit is missing."""
    body = json.dumps(_with(open_id=..., creator_id="c1", expires_in=...), separators=(",", ":")).encode()
    body = body.replace(b'"refresh_token_expires_in":', b'"open_id":"c1","refresh_token_expires_in":')

    answer = salvage(raw(body[: body.index(b"31527314,") + 9], complete=False))

    assert answer is not None
    assert answer.refresh_seconds == 31527314


def test_salvage_is_not_fooled_by_a_pair_inside_a_text(raw: Raw) -> None:
    """A message that quotes a token object is still a message."""
    quoted = json.dumps({"message": json.dumps(DATA)}).encode()

    assert salvage(raw(quoted, complete=False)) is None
    assert salvage(raw(quoted[:-4], complete=False)) is None


def test_salvage_of_hostile_nesting_is_quick(raw: Raw) -> None:
    """Sixty thousand brackets and quotes take no time and no stack."""
    began = time.process_time()

    for body in (b"{" * 60_000, b'{"a":[' * 10_000, b'{"' * 30_000, b'{"a":"' + b"\\" * 60_000, b'[{"a":0},' * 7_000):
        assert salvage(raw(b'{"a":' + body, complete=False)) is None

    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "template", ["{0} is not valid", "bad token: '{0}'", "{0}", "xx{0}yy", "refresh\n{0}\x1b[31m", "\u202e{0}"]
)
@pytest.mark.parametrize("which", ["secret", "refresh"])
def test_echo_of_a_secret_shows_nowhere(template: str, which: str, raw: Raw, canaries: Canaries) -> None:
    """TikTok's words may repeat ours: whole, shortened, in capitals, or as the request id."""
    echoed = getattr(canaries, which)
    for text in (echoed, echoed[:12], echoed[-10:], echoed.upper(), echoed.replace(".", "%2E")):
        answer = raw(
            {"code": 40002, "message": template.format(text), "request_id": text, "data": {"access_token": "a"}}
        )
        with pytest.raises(TikTokError) as caught:
            read_token_answer(answer)

        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.request_id)
        assert text.lower() not in shown.lower()
        assert "CANARY" not in shown
        assert str(caught.value).isprintable()


def test_request_id_that_is_our_secret_is_dropped(raw: Raw) -> None:
    """Even a secret that looks like a request id does not pass for one."""
    secret = "2026112210a1b2c3d4e5f6a7b8c9d0e1"
    with pytest.raises(TikTokError) as caught:
        read_token_answer(raw({"code": 40002, "request_id": secret}, sent=(Token(secret),)))

    assert caught.value.request_id is None


def test_message_without_secrets_is_shown_on_one_short_line(raw: Raw) -> None:
    """People need TikTok's words to mend their request."""
    with pytest.raises(TikTokError) as caught:
        read_token_answer(raw({"code": 40002, "message": "redirect_uri:\r\nmust be registered " + "very " * 500}))

    assert '"redirect_uri: must be registered very' in str(caught.value)
    assert len(str(caught.value)) < 300


def test_replayed_answer_shows_none_of_tiktoks_words(raw: Raw) -> None:
    """From the journal nobody knows what was sent, so nothing that could echo it is shown."""
    with pytest.raises(TikTokError) as caught:
        read_token_answer(raw({"code": 40002, "message": "unheard-of"}, sent=None))

    assert "unheard-of" not in str(caught.value)
    assert "40002, bad parameter" in str(caught.value)


def test_values_print_no_secret(raw: Raw, canaries: Canaries) -> None:
    """Neither the raw answer nor the value made of it shows a token."""
    answer: RawAnswer = raw(_with(access_token="act.CANARY", refresh_token="rft.CANARY"))

    assert "CANARY" not in f"{answer!r} {answer} {read_token_answer(answer)!r} {answer.sent!r}"


LONG = "act.LONG-new-access-0123456789!4321.e1"
ECHOES = {
    "the whole token": LONG,
    "in capitals": LONG.upper(),
    "the token in a scope": f"user.{LONG}",
    "its beginning": LONG[:20],
    "its end": LONG[-14:],
    "what was sent": "rft.CANARY-old-refresh-0123456789!4321.e1",
    "a token of somebody else": "rft.0123456789abcdefghijklmnopqrstuvwxyz",
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
@pytest.mark.parametrize("listed", [False, True], ids=["text", "list"])
def test_a_token_in_the_scopes_is_left_out(echo: str, listed: bool, raw: Raw, canaries: Canaries) -> None:
    """The pair is stored with the scopes that are scopes, and a remark without the token."""
    scope = ["user.info.basic", echo] if listed else f"user.info.basic,{echo}"
    answer = read_token_answer(raw(_with(access_token=LONG, scope=scope), sent=(Token(canaries.refresh),)))

    assert answer.access_token.reveal() == LONG
    assert answer.scope == ("user.info.basic",)
    assert answer.remarks == ("scope holds something that is not a scope",)


@pytest.mark.parametrize("creator", [LONG, f"x{LONG}", ECHOES["a token of somebody else"], ECHOES["what was sent"]])
def test_a_token_is_no_creator(creator: str, raw: Raw, canaries: Canaries) -> None:
    """An id is shown everywhere, so an answer that has a token in its place names no creator."""
    sent = (Token(canaries.refresh),)
    with pytest.raises(InDoubtError, match="no creator") as caught:
        read_token_answer(raw(_with(access_token=LONG, open_id=creator), sent=sent))
    assert creator not in str(caught.value)
    assert salvage(raw(_with(access_token=LONG, open_id=creator), sent=sent)) is None


def test_scopes_that_share_a_word_with_a_token_are_kept(raw: Raw) -> None:
    """A few letters in common are an accident."""
    answer = read_token_answer(raw(_with(access_token="act.user.info.xyz-0123456789", scope="user.info.basic")))

    assert answer.scope == ("user.info.basic",)


@pytest.mark.parametrize("padding", [0, 70, 5000])
@pytest.mark.parametrize(("stretch", "kept"), [("AB12cd", False), ("aB12CD", False), ("AB12ce", True)])
def test_a_request_id_that_repeats_a_stretch_of_a_secret_is_not_kept(padding: int, stretch: str, kept: bool) -> None:
    """Six characters in a row are enough, wherever they stand in the secret, however long it is, in any case."""
    request_id = f"20240304062229{stretch}7Z"
    secrets = (Token("act." + "x" * padding), Token(f"{'-' * padding}aB12Cd{'~' * padding}"))

    assert (request_id_of({"request_id": request_id}, Echoes(secrets)) == request_id) is kept
    assert request_id_of({"request_id": request_id}, Echoes((Token("99999"),))) == request_id
