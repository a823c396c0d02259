"""Each code of TikTok's table asks for one thing, and what it asks for depends on the call that met it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from worker.errors import (
    AskCreatorError,
    BackOffError,
    GiveUpError,
    InDoubtError,
    RefreshFirstError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.tiktok import ACCOUNT_CALL, EXCHANGE_CALL, REFRESH_CALL, TOKEN_INFO_CALL, read_token_answer, salvage
from worker.tiktok.answers import open_envelope
from worker.tiktok.codes import CODES

if TYPE_CHECKING:
    from tests.tiktok.conftest import Raw

STOP, BACK, WAIT, ASK = StopEveryoneError, BackOffError, WaitError, AskCreatorError
GIVE, FIRST = GiveUpError, RefreshFirstError
NOW = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
EXPECTED: dict[int, tuple[type[TikTokError], type[TikTokError], type[TikTokError]]] = {
    # for each code what an exchange, a refresh and a read make of it
    **dict.fromkeys((40000, 40002, 40003, 40006, 40008, 40009, 40010, 40014, 40051), (STOP, STOP, STOP)),
    **dict.fromkeys((40104, 40108, 40109, 40113, 40116, 40117, 40118, 40119), (STOP, STOP, STOP)),
    **dict.fromkeys((40124, 40125, 40400, 41000), (STOP, STOP, STOP)),
    40001: (STOP, STOP, GIVE),
    40101: (ASK, STOP, STOP),
    **dict.fromkeys((40016, 40100, 40132, 40133, 61000), (WAIT, WAIT, WAIT)),
    **dict.fromkeys((40007, 40050, 40130, 40300, 40301, 40302, 40309, 41001, 41002), (BACK, BACK, GIVE)),
    40102: (ASK, BACK, FIRST),
    40103: (ASK, ASK, GIVE),
    40105: (ASK, ASK, FIRST),
    40106: (ASK, ASK, GIVE),
    40107: (ASK, ASK, GIVE),
    40110: (ASK, BACK, BACK),
    40115: (ASK, BACK, BACK),
    40120: (ASK, ASK, GIVE),
    40131: (ASK, ASK, GIVE),
    **dict.fromkeys((40202, 50000, 50002, 51010, 51015, 51030, 51039, 51065, 51305, 60001), (BACK, BACK, BACK)),
}
BEYOND = (50001, 51999, 52000, 53999, 40999, 59999, 1, -1, 99999, 2147483647)


@pytest.mark.parametrize("code", sorted({*EXPECTED, *CODES, *BEYOND}))
def test_code_becomes_the_error_of_its_call(code: int, raw: Raw) -> None:
    """Every row of the table, codes of TikTok's own trouble beyond it, and codes nobody knows."""
    expected = EXPECTED.get(code, (BACK, BACK, BACK))

    for call, kind in zip(
        (EXCHANGE_CALL, REFRESH_CALL, ACCOUNT_CALL, TOKEN_INFO_CALL), (*expected, expected[2]), strict=True
    ):
        answer = raw({"code": code, "message": "m", "request_id": "20261122101530AB", "data": {}}, call=call)
        with pytest.raises(TikTokError) as caught:
            open_envelope(answer, now=NOW)

        error = caught.value
        assert type(error) is kind
        assert (error.code, error.http_status, error.request_id, error.call) == (code, 200, "20261122101530AB", call)
        assert str(code) in str(error)
        assert call in str(error)


def test_only_what_is_proven_disconnects_a_creator_on_refresh() -> None:
    """No other code than these six may ever lead to a creator being asked."""
    asking = {code for code, (_, refresh, _) in EXPECTED.items() if issubclass(refresh, AskCreatorError)}

    assert asking == {40103, 40107, 40105, 40106, 40120, 40131}


@pytest.mark.parametrize(
    ("message", "scope", "seconds"),
    [
        ("Too many requests: the QPS limit was reached", "second", 1),
        ("Too many requests. QPM limit reached", "minute", 300),
        ("your app is temporarily restricted", "minute", 300),
        ("QPD limit reached", "day", 3600),
        ("daily quota used up", "day", 3600),
        ("slow down", "minute", 300),
        (None, "minute", 300),
    ],
)
def test_40100_waits_as_long_as_the_named_limit_takes(
    message: str | None, scope: str, seconds: float, raw: Raw
) -> None:
    """It is a quota and nothing else, however often it is taken for a dead token."""
    with pytest.raises(WaitError) as caught:
        read_token_answer(raw({"code": 40100, "message": message}), now=NOW)

    assert (caught.value.scope, caught.value.seconds) == (scope, seconds)


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [("23:59:50", 40), ("23:30:00", 1830), ("00:00:00", 3600), ("00:00:05", 3600), ("12:00:00", 3600)],
)
def test_a_spent_day_is_asked_about_every_hour_until_it_is_over(clock: str, seconds: float, raw: Raw) -> None:
    """An answer that still counts to the day before, right after midnight, does not cost the next day."""
    now = datetime.fromisoformat(f"2026-11-22T{clock}+00:00")
    with pytest.raises(WaitError) as caught:
        read_token_answer(raw({"code": 40100, "message": "QPD limit reached"}), now=now)

    assert (caught.value.scope, caught.value.seconds) == ("day", seconds)


@pytest.mark.parametrize(
    ("code", "scope", "seconds"),
    [(40016, "minute", 300), (40132, "account", 60), (40133, "account", 60), (61000, "minute", 300)],
)
def test_other_quota_codes_wait_too(code: int, scope: str, seconds: float, raw: Raw) -> None:
    """Limits by value or account hold back one account, the others the whole app."""
    with pytest.raises(WaitError) as caught:
        read_token_answer(raw({"code": code, "message": ""}))

    assert (caught.value.scope, caught.value.seconds) == (scope, seconds)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 1),
        ("-5", 1),
        ("1000000000", 3600),
        ("9" * 5000, 3600),
        ("Sun, 22 Nov 2026 18:32:00 GMT", 120),
        ("Sun, 22 Nov 2026 18:00:00 GMT", 1),
        ("Fri, 01 Jan 9999 00:00:00 GMT", 3600),
        ("Fri, 01 Jan 99999 00:00:00 GMT", 60),
        ("soon", 60),
        ("1e9", 60),
        ("", 60),
        (None, 60),
    ],
)
def test_http_429_waits_within_bounds(header: str | None, seconds: float, raw: Raw) -> None:
    """Retry-After counts between one second and one hour; what cannot be read is a minute."""
    with pytest.raises(WaitError) as caught:
        read_token_answer(raw(b"<html>busy</html>", http_status=429, retry_after=header), now=NOW)

    assert caught.value.seconds == seconds


def test_http_429_waits_even_if_its_body_is_cut_off(raw: Raw) -> None:
    """The status alone says that nothing was done."""
    with pytest.raises(WaitError):
        read_token_answer(raw(b"", http_status=429, complete=False, fault="cut"))


def test_http_429_names_the_limit_of_its_envelope(raw: Raw) -> None:
    """With an envelope inside, its message says which limit it was."""
    with pytest.raises(WaitError) as caught:
        read_token_answer(raw({"code": 40100, "message": "QPS limit"}, http_status=429))

    assert (caught.value.scope, caught.value.seconds, caught.value.code) == ("second", 1, 40100)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
def test_http_5xx_is_in_doubt_whatever_it_says(status: int, raw: Raw, token_body: bytes) -> None:
    """The pair may have been rotated behind a failing front door; if it is in there, it is salvaged."""
    for body in (b"", b"<html></html>", b'{"code":40107,"message":"m"}', token_body):
        answer = raw(body, http_status=status)
        with pytest.raises(InDoubtError):
            read_token_answer(answer)
        assert (salvage(answer) is not None) == (body == token_body)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 415])
def test_http_4xx_without_an_envelope_is_our_request(status: int, raw: Raw) -> None:
    """TikTok answers with a plain text 404 if the final slash is missing."""
    with pytest.raises(StopEveryoneError):
        read_token_answer(raw(b"404 page not found", http_status=status))


def test_http_4xx_with_an_envelope_goes_by_its_code(raw: Raw) -> None:
    """The code decides wherever one can be read."""
    with pytest.raises(AskCreatorError):
        read_token_answer(raw({"code": 40107}, http_status=400))


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirect_stops_everyone(status: int, raw: Raw) -> None:
    """It says something about our address and nothing about a creator."""
    with pytest.raises(StopEveryoneError):
        read_token_answer(raw(b"", http_status=status))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"<html>hello</html>",
        b"OK",
        b"[]",
        b"null",
        b'"code"',
        b"{",
        b'{"code":0',
        b"\xff\xfe\x00{}",
        b'{"message":"\xff"}',
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"code":0}',
        b'{"code":0,"data":null}',
        b'{"code":0,"data":[]}',
        b'{"code":0,"data":{}}',
        b'{"code":true,"data":{}}',
        b'{"code":false,"data":{}}',
        b'{"code":0.0,"data":{}}',
        b'{"code":null}',
        b'{"code":"zero"}',
        b'{"code":' + b"1" * 5000 + b"}",
        b'{"code":99999999999}',
        b'{"code":0,"code":40107}',
        b"{}",
    ],
)
def test_answer_that_says_nothing_is_in_doubt(body: bytes, raw: Raw) -> None:
    """Neither a success nor a refusal can be read from it, so neither is assumed."""
    answer = raw(body)

    with pytest.raises(InDoubtError) as caught:
        read_token_answer(answer)

    assert caught.value.__context__ is None
    assert salvage(answer) is None


def test_code_as_digits_in_a_text_is_a_code(raw: Raw) -> None:
    """Some decoders of this API had to learn that."""
    with pytest.raises(AskCreatorError):
        read_token_answer(raw({"code": "40107"}))


def test_error_code_beats_a_pair_beside_it(raw: Raw, token_body: bytes) -> None:
    """There is no way to success past an error code."""
    answer: Any = raw(token_body.replace(b'"code": 0', b'"code": 40107'))

    with pytest.raises(AskCreatorError):
        read_token_answer(answer)
    assert salvage(answer) is None
