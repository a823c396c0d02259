"""Planted secrets do not come through redaction, and what is no secret does."""

from __future__ import annotations

import json
import time
import urllib.parse
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.vault import Token
from worker.vault.redaction import HIDDEN, KEPT_GRAM, READ_LIMIT, TEXT_LIMIT, Echoes, redact, redact_event

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

ACCESS, REFRESH = "act.Kestrel01abcdefXYZ!4821.va", "rft.Kestrel02*ghijk!4821.e1"
SECRET, CODE = "Kestrel-secret-40b7", "Kestrelcode09*0!5012.e1"

PLANTED = {
    "bare": f"refreshed {ACCESS} into {REFRESH}.",
    "JSON": json.dumps({"access_token": "Kestrel", "refresh_token": "Kestrel two", "client_secret": SECRET}),
    "JSON spaced": json.dumps({"auth_code": CODE, "code": CODE, "deep": {"app_secret": SECRET}}, indent=2),
    "JSON in JSON": json.dumps(json.dumps({"client_secret": "Kestrel with words", "refresh_token": "Kestrel"})),
    "JSON in JSON in JSON": json.dumps(json.dumps(json.dumps({"client_secret": SECRET}))),
    "JSON with escapes": json.dumps({"client_secret": 'Kes"trel \\" Kestrel'}),
    "cut JSON": json.dumps({"client_secret": f"words {SECRET}"})[:-3],
    "form": urllib.parse.urlencode({"client_secret": SECRET, "auth_code": CODE, "grant_type": "x"}),
    "URL": f"GET /callback?code={CODE}&state=x&scopes=a%2Cb",
    "URL in URL": urllib.parse.quote(f"https://h/cb?code={CODE}&access_token={ACCESS}", safe=""),
    "kwargs": repr({"refresh_token": "Kestrel", "client_secret": b"Kestrel", "n": 1}),
    "call": "send(grant=1, refresh_token='Kestrel it\\'s', secret=\"Kestrel\", app_secret=Kestrel)",
    "headers": repr([("Access-Token", "Kestrel"), ("Authorization", "Bearer Kestrel")]),
    "header lines": "Access-Token: Kestrel\r\nAuthorization: Basic Kestrel=\r\nCookie: Kestrel",
    "header dict": repr({"Access-Token": "Kestrel", "authorization": "Kestrel"}),
    "environment": f"EVERTOKEN_TIKTOK_APP_SECRET={SECRET} EVERTOKEN_KEYRING={SECRET}",
    "database": "connect to postgresql+psycopg://evertoken:Kestrel@db/x failed",
    "odd password": "redis://:p@Kestrel/w@host:6379/0 and https://Kestrel@host/",
    "bytes": repr(b"HTTP/1.1 200 OK\r\n\r\nact.Kestrel01abcdefXYZ"),
    "escaped": "\\u0022act.Kestrel01abcdefXYZ01234567890 \\nrft.Kestrel",
    "control characters within": "act.\x00Kestrel\x1b[0m01abcdef",
    "long": "x " * 40_000 + ACCESS,
    "halved by the cut": "x" * (READ_LIMIT - 40) + " client_secret=Kestrel" + "y" * 100,
    "password halved by the cut": "x " * (READ_LIMIT // 2 - 15) + "redis://:Kestrel" + "y" * 20 + "@host",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_planted_secrets_do_not_come_through(text: str) -> None:
    """Tokens by prefix and secrets by name vanish from any shape of text."""
    assert "Kestrel" not in redact(text)
    assert "Kestrel" not in redact(text, keep_lines=True)
    assert "Kestrel" not in json.dumps(redact_event({"event": text, "exception": text, text: [{"deep": (text,)}]}))


PLAIN = [
    "refresh.saved grant_id=17 creator_id=abc generation=3 code=0 http_status=200",
    "TikTok answered with code 40105: the grant is gone (request 20261123040506ABCDEF)",
    '{"code": 40105, "message": "Access token is expired", "request_id": "2026"}',
    "access_token_expires_in=86400 refresh_token_expires_in: 31536000 token_type=Bearer",
    "the keyring lacks key 3, which 12 stored pairs are sealed with",
    "sqlite:///./var/evertoken.db redis://127.0.0.1:6379/0 https://business-api.tiktok.com/open_api",
    "worker.contract.validation and react.js",
    "code=None exit code 1 status_code=Accepted",
    f"sent {Token('x' * 20)!r} as refresh_token={Token('x' * 20)!r}",
    "Zürich 東京 🔑",
]


@pytest.mark.parametrize("text", PLAIN, ids=range(len(PLAIN)))
def test_what_is_no_secret_stays(text: str) -> None:
    """Ids, codes, lifetimes, fingerprints and addresses without passwords are what a log is for."""
    assert redact(text) == text


@pytest.mark.parametrize(
    "text", ["a\x1b[31;1mred\x1b[0m", "a\x1b]0;title\x07red", "a\x1b]8;;http://x\x1b\\red", "a\x1bMred", "a\x9bred\x00"]
)
def test_terminal_escapes_vanish_whole(text: str) -> None:
    """Nothing is left of a colour, a window's title or a link, so that no log changes the terminal that shows it."""
    assert redact(text) == redact(text, keep_lines=True) == "ared"


@UNHURRIED
@given(
    before=st.text(max_size=40),
    after=st.text(max_size=40),
    prefix=st.sampled_from(["act.", "rft."]),
    body=st.text("abcdefghijKLMNOPQRST0123456789!_-", min_size=24, max_size=80),
)
def test_a_token_is_found_in_any_text(before: str, after: str, prefix: str, body: str) -> None:
    """Whatever stands around it, a token of usual length does not come through."""
    assert "Kestrel" not in redact(f"{before}{prefix}Kestrel{body}{after}", 10_000)


@UNHURRIED
@given(
    name=st.sampled_from(["access_token", "refresh_token", "client_secret", "secret", "auth_code", "code", "password"]),
    value=st.text(min_size=1, max_size=60),
    shape=st.sampled_from(["json", "json in json", "form", "repr"]),
)
def test_a_value_behind_its_name_is_found_whatever_it_is(name: str, value: str, shape: str) -> None:
    """No quote, escape or letter in a secret gets a part of it through the usual ways of writing it."""
    marked = f"Kestrel{value}Kestrel"
    text = {
        "json": json.dumps({"a": 1, name: marked}),
        "json in json": json.dumps(json.dumps({name: marked})),
        "form": urllib.parse.urlencode({"a": "1", name: marked}, errors="replace"),
        "repr": repr({"a": 1, name: marked}),
    }[shape]

    assert "Kestrel" not in redact(text)


@UNHURRIED
@given(text=st.text(), limit=st.integers(0, 300), keep=st.booleans())
@example(text="act.abcdef" * 100, limit=50, keep=False)
@example(text='secret="', limit=300, keep=False)
@example(text="x\r\n2026-01-01 forged\x1b[31m\u2028y", limit=300, keep=True)
def test_any_text_comes_out_bounded_and_harmless(text: str, limit: int, *, keep: bool) -> None:
    """Never an exception, never longer than the bound, never a control character, never a forged line."""
    shown = redact(text, limit, keep_lines=keep)

    assert len(shown) <= limit
    assert not [letter for letter in shown if ord(letter) < 32 and letter != "\n"]
    assert not set("\x1b\x7f\u2028\u2029\u202e") & set(shown)
    assert "\n" not in shown or keep
    shown.encode()


@UNHURRIED
@given(text=st.text("abc act.rft:=\"'\\,&{}code token secret ://@", max_size=200))
def test_redacting_twice_changes_nothing(text: str) -> None:
    """A text that went through two handlers reads the same."""
    assert redact(redact(text)) == redact(text)


def test_further_lines_are_indented() -> None:
    """A text cannot start a line of the log."""
    assert redact("Traceback\r\n  at x\n{}", keep_lines=True) == "Traceback\n    at x\n  {}"


def test_the_middle_of_a_long_text_is_left_out() -> None:
    """Its beginning and its end show most."""
    shown = redact("start " + "x " * 5_000 + "end")

    assert len(shown) <= TEXT_LIMIT
    assert shown.startswith("start ")
    assert shown.endswith("end")
    assert "more characters" in shown


class Unprintable:
    """An object whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)


def test_an_event_is_redacted_all_through() -> None:
    """Names of secrets hide their value whatever its type; plain values keep theirs."""
    token, marker = Token(ACCESS), object()
    nested: Any = {}
    inner = nested
    for _ in range(50):
        inner["in"] = {}
        inner = inner["in"]
    event = {
        "event": "refresh.saved",
        "grant_id": 17,
        "ok": True,
        "nothing": None,
        "code": 40105,
        "texted_code": "40105",
        "token": token,
        "refresh_token": SECRET,
        "client_secret": [SECRET],
        "headers": [("Access-Token", SECRET), ("Accept", "*/*")],
        "kwargs": {"auth_code": CODE, "body": b"x" * 10, "code": CODE},
        "error": ValueError(f"access_token={SECRET}"),
        "object": Unprintable(),
        "nested": nested,
        "_record": marker,
        "exception": "Traceback\n  line\nValueError",
    }
    shown = redact_event(event)

    assert {name: shown[name] for name in ("event", "grant_id", "ok", "nothing", "code", "texted_code")} == {
        "event": "refresh.saved",
        "grant_id": 17,
        "ok": True,
        "nothing": None,
        "code": 40105,
        "texted_code": "40105",
    }
    assert shown["token"] == repr(token)
    assert (shown["refresh_token"], shown["client_secret"]) == (HIDDEN, HIDDEN)
    assert shown["headers"] == [["Access-Token", HIDDEN], ["Accept", "*/*"]]
    assert shown["kwargs"] == {"auth_code": HIDDEN, "body": "<10 bytes>", "code": HIDDEN}
    assert shown["exception"] == "Traceback\n    line\n  ValueError"
    assert shown["_record"] is marker
    assert "too deep" in str(shown["nested"])
    assert "Kestrel" not in str(shown)
    assert event["refresh_token"] == SECRET


@pytest.mark.parametrize(
    "unit",
    ["://:", "act.", "access_token", 'secret="', "token ", '"code"', "secret_", "%22", "\x1b]", "secret   ", "://a"],
)
def test_no_text_takes_long(unit: str) -> None:
    """Texts made to confuse the patterns are read in bounded time."""
    start = time.process_time()
    redact(unit * (2 * READ_LIMIT // len(unit)))

    assert time.process_time() - start < 2


ODD_SECRET = 'Ke"str\\el0/3qw"Er\\tY/ui"Op\\as/D48"21'
PLAIN_SECRET = "Kestrel04-qwErtYuiOpasD~4821"


def echoing_texts(secret: str) -> st.SearchStrategy[str]:
    """Give texts, some of which repeat a stretch of a secret between odd characters."""
    odd = st.text(st.sampled_from('aZ 9\n\t"\\/\x00\u00e9\U0001f600\ud83d\ude00'), max_size=6)
    places = st.integers(0, len(secret))
    stretches = st.builds(lambda at, size: secret[at : at + size], places, st.integers(4, 16))
    strange = st.just("act." + "x1" * 14)
    return st.builds("{}{}{}".format, odd, st.one_of(st.just(""), stretches, strange), odd)


def echoing_values(secret: str) -> st.SearchStrategy[Any]:
    """Give values of JSON with such texts, in names of members too."""
    texts = echoing_texts(secret)
    return st.recursive(
        st.one_of(texts, st.integers(), st.none()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=8,
    )


@pytest.mark.parametrize("secret", [PLAIN_SECRET, ODD_SECRET, "Kestrel"])
@UNHURRIED
@given(data=st.data())
def test_an_answer_that_is_searched_as_a_whole_holds_nothing_that_a_search_of_each_text_finds(
    secret: str, data: st.DataObject
) -> None:
    """Whatever escapes the JSON was written with: a value that counts as fit is one that would not be changed."""
    value = data.draw(echoing_values(secret))
    echoes = Echoes([Token(secret)])
    texts = [json.dumps(value), json.dumps(value).replace("q", "\\u0071"), json.dumps(value).replace("/", "\\/")]
    with suppress(UnicodeEncodeError):  # half a character, which UTF-8 cannot hold
        texts.append(json.dumps(value, ensure_ascii=False).encode().decode())

    # `ascii`, because half a character in the report of a failure would end the whole run.
    assert ascii(echoes.fit_to_store(value)) == ascii(echoes._fitted(value, 64))
    for text in texts:
        read = json.loads(text)
        if echoes.is_fit(read, text):
            assert ascii(echoes._fitted(read, 64)) == ascii(read)


def test_most_answers_are_searched_as_a_whole() -> None:
    """An ordinary answer, with emoji and accents as escapes, needs no search of each text; one of each danger does."""
    echoes = Echoes([Token(PLAIN_SECRET)])
    value = {"caption": "caf\u00e9 \U0001f600 contact. me", "n": [1, 2.5, None]}

    assert echoes.is_fit(value, json.dumps(value))
    assert echoes.fit_to_store(value) is value
    assert echoes.fit_to_store("\ud83d" + "\ude00") == "\ufffd" * 2, "two halves are no character"
    deep: Any = 1
    for _ in range(65):
        deep = [deep]
    for odd in (
        "a\x00",
        "\ud83d",
        "\ude00",
        PLAIN_SECRET[3 : 3 + KEPT_GRAM],
        "act." + "x1" * 14,
        "\nrft." + "x1" * 14,
        deep,
    ):
        assert not echoes.is_fit([odd], json.dumps([odd]))
