"""No answer, however malformed, gets an exception outside the error tree out of the client, or a secret into a text.

300 examples each; in the slower suite 10,000 each, and everywhere with EVERTOKEN_TEST_EXAMPLES=thorough.
"""

from __future__ import annotations

import io
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.errors import TikTokError
from worker.tiktok import (
    ACCOUNT_CALL,
    EXCHANGE_CALL,
    REFRESH_CALL,
    TOKEN_INFO_CALL,
    RawAnswer,
    read_token_answer,
    salvage,
)
from worker.tiktok.answers import open_envelope, read_answer, read_token_info
from worker.tiktok.codes import CODES
from worker.vault import Token

if TYPE_CHECKING:
    from tests.tiktok.conftest import Client, Servers

PLAIN = "canaryword"
"""A secret that looks like none: only who knows that it was sent can find it in an answer."""
SENT = ("CANARYsecret5f6e7d8c", "rft.CANARYold1a2b3c", PLAIN)
BROUGHT = ("act.CANARYnew9z8y", "rft.CANARYnew7x6w")
TEXTS = st.one_of(st.text(max_size=20), st.sampled_from([*SENT, *BROUGHT, "c1", "a,b", "0", "86400", "OK", ""]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.sampled_from(sorted(CODES)))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)
NAMED_KEYS = ("open_id", "creator_id", "scope")
DATA_KEYS = (
    "access_token",
    "refresh_token",
    "open_id",
    "creator_id",
    "expires_in",
    "expires",
    "refresh_expires",
    "scope",
)
NAMES = st.one_of(st.none(), st.integers(), st.text(max_size=9), st.lists(st.text(max_size=9), max_size=3))
"""For creators and scopes, which are no secrets and do show."""

DATA = st.fixed_dictionaries({}, optional={key: NAMES if key in NAMED_KEYS else VALUES for key in DATA_KEYS})
LIKELY = st.fixed_dictionaries(
    {"access_token": st.just(BROUGHT[0]), "open_id": st.just("c1")},
    optional={
        **dict.fromkeys(("expires_in", "refresh_token_expires_in"), VALUES),
        "scope": NAMES,
        "refresh_token": st.just(BROUGHT[1]),
    },
)
ENVELOPES = st.fixed_dictionaries(
    {},
    optional={
        "code": st.one_of(st.just(0), st.sampled_from(sorted(CODES)), VALUES),
        "message": st.one_of(TEXTS, st.sampled_from([f"bad {text}!" for text in (*SENT, *BROUGHT)]), VALUES),
        "request_id": st.one_of(TEXTS, st.just("20261122101530ABCD"), VALUES),
        "data": st.one_of(DATA, LIKELY, VALUES),
        "access_token": VALUES,
        "open_id": NAMES,
    },
)
BODIES = st.one_of(
    ENVELOPES.map(lambda value: json.dumps(value).encode()),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200),
    st.binary(max_size=100).map(lambda rest: b"\x1f\x8b\x08" + rest),
)
HEADERS = (
    b"Location: http://localhost:1/",
    b"Content-Encoding: gzip",
    b"Transfer-Encoding: chunked",
    b"Set-Cookie: rft=" + SENT[1].encode(),
    b"Retry-After: " + SENT[0].encode(),
    b'{"access_token": "' + BROUGHT[0].encode() + b'"}',
)
EXAMPLES = [
    pytest.param(300, id="300"),
    pytest.param(2_000, id="2000", marks=[pytest.mark.slow_suite, pytest.mark.timeout(900)]),
]
CALLS = st.sampled_from([EXCHANGE_CALL, REFRESH_CALL, ACCOUNT_CALL, TOKEN_INFO_CALL])
STATUSES = st.one_of(st.none(), st.just(200), st.integers(100, 999))
NOW = st.one_of(st.none(), st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis wants them naive


@st.composite
def _answers(draw: st.DrawFn) -> RawAnswer:
    """Draw an answer: any body, possibly cut or with a byte changed, under any status."""
    body = draw(BODIES)
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))]
    if body and draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body = body[:at] + draw(st.binary(min_size=1, max_size=1)) + body[at + 1 :]
    complete = draw(st.booleans())
    return RawAnswer(
        call=draw(CALLS),
        http_status=draw(STATUSES),
        body=body,
        complete=complete,
        fault=None if complete else "cut",
        retry_after=draw(st.one_of(st.none(), st.text(max_size=30), st.just("99999999999999999999"))),
        sent=draw(st.sampled_from([None, tuple(Token(text) for text in SENT)])),
    )


@st.composite
def _bytes_on_the_wire(draw: st.DrawFn) -> bytes:
    """Draw what a server sends: a body in any frame, with anything in its head, possibly cut or with bytes changed."""
    body = draw(BODIES)
    status = draw(st.sampled_from(["200 OK", "204 No Content", "307 Elsewhere", "429 Slow", "502 Bad", "twohundred"]))
    header = draw(st.one_of(st.just(b""), st.binary(max_size=60), st.sampled_from(HEADERS)))
    length = draw(st.one_of(st.just(len(body)), st.integers(-1, 300)))
    whole = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n\r\n%s" % (status.encode(), length, header, body)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(whole)))
        whole = whole[:at] + draw(st.binary(max_size=3)) + whole[at + draw(st.integers(0, 3)) :]
    cut = whole[: draw(st.integers(0, len(whole)))]
    return draw(st.one_of(st.sampled_from([whole, cut, body]), st.binary(max_size=300)))


class _Log:
    """Everything that is logged, at every level, as a formatter without redaction would write it."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.handler = logging.StreamHandler(self._text)

    def taken(self) -> str:
        """Return what was logged since the last call."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text


@pytest.fixture
def log() -> Iterator[_Log]:
    """Listen to every logger."""
    listening, root = _Log(), logging.getLogger()
    level = root.level
    root.addHandler(listening.handler)
    root.setLevel(logging.DEBUG)
    yield listening
    root.setLevel(level)
    root.removeHandler(listening.handler)


def _shown(raw: RawAnswer, now: datetime | None, log: _Log) -> str:
    """Read an answer in every way, and return every text that came of it."""
    shown = [repr(raw), repr(salvage(raw))]
    try:
        answer = read_token_answer(raw, now=now)
        shown += [repr(answer), str(answer.remarks)]
        assert answer.creator_id
        assert answer.access_seconds is None or answer.access_seconds > 0
    except TikTokError as error:
        shown += _parts_of(error)
    try:
        envelope = open_envelope(raw, now=now)
        shown.append(repr(envelope))
        read_token_info(envelope)
        shown.append(repr(read_answer(raw)))
    except TikTokError as error:
        shown += _parts_of(error)
    return "\n".join([*shown, log.taken()])


def _parts_of(error: TikTokError) -> list[Any]:
    assert error.__context__ is None
    logging.getLogger("fuzz").error("failed: %s", error, exc_info=error)
    return [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]


def _try(examples: int, holds: Callable[[], None], tried: list[object]) -> None:
    """Run a property on at least this many examples."""
    settings(max_examples=max(examples, settings().max_examples))(holds)()
    assert len(tried) >= examples


@pytest.mark.parametrize("examples", EXAMPLES)
def test_reader_holds_against_any_answer(examples: int, log: _Log) -> None:
    """Only errors of the tree come out, nothing is chained to them, and no text holds a secret."""
    tried: list[object] = []

    @given(raw=_answers(), now=NOW)
    @example(raw=RawAnswer(REFRESH_CALL, 200, b"[" * 65536, complete=True), now=None)
    @example(raw=RawAnswer(REFRESH_CALL, 200, b'{"code":' + b"9" * 5000 + b"}", complete=True), now=None)
    def holds(raw: RawAnswer, now: datetime | None) -> None:
        tried.append(None)
        shown = _shown(raw, now, log)
        assert "CANARY" not in shown
        assert raw.sent is None or PLAIN not in shown

    _try(examples, holds, tried)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_client_holds_against_any_bytes(examples: int, log: _Log, servers: Servers, client: Client) -> None:
    """Whatever a server sends, the call returns what came, and reading it goes as above."""
    server, tried = servers(), list[object]()
    tiktok = client(server.url)

    @given(sent=_bytes_on_the_wire())
    @example(sent=b'{"code": 0, "data": {"access_token": "%s"}}' % BROUGHT[0].encode())
    @example(sent=b"HTTP/1.1 %s\r\n\r\n" % SENT[0].encode())
    @example(sent=b"HTTP/1.1 200 OK\r\nContent-Length: %s, 5\r\n\r\nhello" % SENT[0].encode())
    def holds(sent: bytes) -> None:
        tried.append(None)
        server.answer(sent)
        assert "CANARY" not in _shown(tiktok.send_refresh(Token(SENT[1])), None, log)

    _try(examples, holds, tried)


@given(
    cut=st.integers(0, 400),
    spaces=st.sampled_from([None, 1]),
    order=st.permutations([*DATA_KEYS[:3], "expires_in", "scope"]),
)
def test_pair_is_salvaged_exactly_when_all_of_it_came(cut: int, spaces: int | None, order: list[str]) -> None:
    """Wherever the cut falls and in whatever order the members come: all or nothing."""
    known = {
        "access_token": BROUGHT[0],
        "refresh_token": BROUGHT[1],
        "open_id": "c1",
        "expires_in": 86400,
        "scope": "a,b",
    }
    body = json.dumps({"code": 0, "data": {name: known[name] for name in order}}, indent=spaces).encode()[:cut]

    answer = salvage(RawAnswer(REFRESH_CALL, 200, body, complete=False, fault="cut"))

    wanted = [b'"' + str(known[name]).encode() + b'"' for name in ("access_token", "refresh_token", "open_id")]
    assert (answer is not None) == all(value in body for value in wanted)
    if answer is not None:
        assert answer.refresh_token is not None
        assert (answer.access_token.reveal(), answer.refresh_token.reveal(), answer.creator_id) == (*BROUGHT, "c1")
        assert answer.access_seconds in {None, 86400}
