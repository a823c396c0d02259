"""Lines of an import: every naming style that is taken, and every fault with its reason."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.consent.import_fields import BadLineError, ImportedPair
from worker.consent.import_lines import LONGEST_LINE, Format, LineReader, numbered_lines
from worker.errors import UsageError

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR_AGO = NOW - timedelta(hours=1)
CANARY = "act.CANARY"
OLD = {
    "creator_id": "c1",
    "access_token": CANARY,
    "refresh_token": "rft.1",
    "expires": 86400,
    "refresh_expires": 31536000,
}
NEW = {
    "open_id": "c1",
    "access_token": CANARY,
    "refresh_token": "rft.1",
    "expires_in": "86400",
    "refresh_token_expires_in": "31536000",
    "scope": "b,a",
    "token_type": "Bearer",
}


def read(fields: dict[str, Any]) -> ImportedPair:
    """Read one JSON line."""
    pair = LineReader(form=None, now=NOW).read(json.dumps(fields).encode())
    assert pair is not None
    return pair


def read_csv(text: str, form: Format | None = None) -> list[ImportedPair]:
    """Read a whole CSV text."""
    reader = LineReader(form=form, now=NOW)
    pairs = [reader.read(line) for _, _, line in numbered_lines(io.BytesIO(text.encode()))]
    return [pair for pair in pairs if pair is not None]


@pytest.mark.parametrize("fields", [pytest.param(OLD, id="v1.2 names"), pytest.param(NEW, id="v1.3 names")])
def test_both_naming_styles_mean_the_same(fields: dict[str, Any]) -> None:
    """Old and new field names, numbers and numbers as text, give the same pair."""
    pair = read(fields)

    assert (pair.creator_id, pair.access_token.reveal(), pair.refresh_token.reveal()) == ("c1", CANARY, "rft.1")
    assert (pair.issued_at, pair.access_expires_at) == (NOW, NOW + timedelta(days=1))
    assert pair.refresh_expires_at == NOW + timedelta(days=365)
    assert pair.age_known is False


@pytest.mark.parametrize(
    ("extra", "issued_at", "expires_at", "age_known"),
    [
        pytest.param({"issued_at": "2026-11-23T11:00:00Z"}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="ISO, Z"),
        pytest.param(
            {"created_at": "2026-11-23 12:00:00+01:00"}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="offset"
        ),
        pytest.param(
            {"obtained_at": "2026-11-23T11:00:00"}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="no zone: UTC"
        ),
        pytest.param({"issued_at": HOUR_AGO.timestamp()}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="epoch"),
        pytest.param(
            {"issued_at": str(int(HOUR_AGO.timestamp()))}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="epoch text"
        ),
        pytest.param(
            {"expires_at": "2026-11-24T11:00:00Z"}, HOUR_AGO, HOUR_AGO + timedelta(days=1), True, id="end and life"
        ),
        pytest.param({"issued_at": ""}, NOW, NOW + timedelta(days=1), False, id="empty is missing"),
        pytest.param({"issued_at": None}, NOW, NOW + timedelta(days=1), False, id="null is missing"),
        pytest.param({"expires_in": None}, NOW, NOW + timedelta(hours=1), False, id="no life: a short one is assumed"),
    ],
)
def test_dates_are_read(extra: dict[str, Any], issued_at: datetime, expires_at: datetime, *, age_known: bool) -> None:
    """Issue times and ends are read in each form that files use."""
    pair = read(NEW | extra)

    assert (pair.issued_at, pair.access_expires_at, pair.age_known) == (issued_at, expires_at, age_known)


def test_a_token_that_has_ended_is_taken() -> None:
    """A dead access token with a living refresh token is just what a refresh is for."""
    pair = read(NEW | {"issued_at": "2026-11-01T00:00:00Z"})

    assert pair.access_expires_at < NOW


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"access_token": None}, "access_token is missing"),
        ({"access_token": ""}, "access_token is missing"),
        ({"refresh_token": None}, "refresh_token is missing"),
        ({"refresh_token": 5}, "refresh_token is not a text"),
        ({"refresh_token": f"{CANARY} x"}, "refresh_token is not 1 to"),
        ({"refresh_token": "x" * 9000}, "refresh_token is not 1 to"),
        ({"access_token": f"{CANARY}\n"}, None),
        ({"access_token": f"{CANARY}\u00e9"}, "access_token is not 1 to"),
        ({"access_token": "\ud800"}, "access_token is not 1 to"),
        ({"open_id": None}, "creator_id .* is missing"),
        ({"open_id": True}, "open_id is not a text"),
        ({"open_id": 1.5}, "open_id is not a text"),
        ({"open_id": ["x"]}, "open_id is not a text"),
        ({"open_id": "\x1b[31m"}, "creator's id is not"),
        ({"business_id": "other"}, "differ"),
        ({"expires_in": 0}, "expires_in is not a number of seconds"),
        ({"expires_in": -5}, "expires_in is not a number of seconds"),
        ({"expires_in": "soon"}, "expires_in is not a number of seconds"),
        ({"expires_in": [1]}, "expires_in is not a number of seconds"),
        ({"expires_in": 1e308}, "expires_in is not a number of seconds"),
        ({"expires_in": 1764000000}, "expires_in is not a number of seconds"),
        ({"expires_in": float("nan")}, "expires_in is not a number of seconds"),
        ({"issued_at": "yesterday"}, "issued_at is neither"),
        ({"issued_at": {}}, "issued_at is neither"),
        ({"issued_at": 1763899200000}, "milliseconds"),
        ({"issued_at": "2026-11-23T12:06:00Z"}, "lies in the future"),
        ({"issued_at": "1999-01-01"}, "lies before 2016"),
        ({"issued_at": "0001-01-01T00:00:00+14:00"}, "issued_at"),
        ({"expires_at": "2029-01-01", "expires_in": None}, "longer than a year"),
        ({"issued_at": "2026-11-23T11:00:00Z", "expires_at": "2026-11-23T10:00:00Z"}, "ends before it was issued"),
        ({"refresh_token_expires_at": "2026-11-01"}, "refresh token has ended"),
        ({"issued_at": "2025-01-01"}, "refresh token has ended"),
        ({"scope": {"a": 1}}, "scope is neither"),
        ({"scope": ["a", 1]}, "scope is neither"),
        ({"open_id": CANARY, "access_token": "c1"}, "creator's id looks like a token"),
        ({"open_id": "rft.2"}, "creator's id looks like a token"),
        ({"open_id": "plain-CANARY", "refresh_token": "plain-CANARY"}, "creator's id looks like a token"),
        ({"scope": f"a,{CANARY}"}, "scope looks like a token"),
        ({"scope": "a plain-CANARY", "access_token": "plain-CANARY"}, "scope looks like a token"),
    ],
)
def test_a_bad_line_is_told_by_its_field(change: dict[str, Any], reason: str | None) -> None:
    """Each fault has a reason that names the field and holds nothing of its content."""
    if reason is None:
        read(NEW | change)
        return
    with pytest.raises(BadLineError, match=reason) as caught:
        read(NEW | change)

    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("b,a,b", "a,b"), ("b a", "a,b"), (["b", "a"], "a,b"), ("", ""), (None, "")],
)
def test_scopes_are_a_sorted_set(scope: object, expected: str) -> None:
    """Scopes come in any order and form and are stored in one."""
    assert read(NEW | {"scope": scope}).scope == expected


def test_a_number_as_creator_is_kept_exactly() -> None:
    """An id beyond 2^53 that was written as a bare number loses no digit."""
    assert read(NEW | {"open_id": 7300000000000000001}).creator_id == "7300000000000000001"


def test_a_whole_answer_is_taken() -> None:
    """An answer of TikTok's that was saved as it came is read under `data`."""
    assert read({"code": 0, "message": "OK", "data": NEW}).creator_id == "c1"


@pytest.mark.parametrize("line", [b"nonsense", b'{"a":', b"[1]", b"[" * 50_000, b"5", b"{\xff}"])
def test_a_later_line_that_is_not_an_object_is_bad(line: bytes) -> None:
    """After a first good line, anything else is a bad line and no more."""
    reader = LineReader(form=None, now=NOW)
    reader.read(json.dumps(NEW).encode())

    with pytest.raises(BadLineError):
        reader.read(line)


CSV = 'open_id,access_token,refresh_token,expires_in,scope\nc1,act.1,rft.1,86400,"a,b"\n'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CSV, id="plain"),
        pytest.param("\ufeff" + CSV.replace("\n", "\r\n"), id="byte order mark and CRLF"),
        pytest.param(CSV.rstrip("\n"), id="no final line break"),
        pytest.param(CSV.replace('"a,b"', "a b").replace(",", ";"), id="semicolons"),
        pytest.param(CSV.replace("open_id,", " Open_ID ,"), id="header with spaces and capitals"),
    ],
)
def test_csv_is_read(text: str) -> None:
    """CSV of several makers gives the same pair."""
    (pair,) = read_csv(text)

    assert (pair.creator_id, pair.refresh_token.reveal(), pair.scope) == ("c1", "rft.1", "a,b")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c1,act.1", "2 fields and the header 5"),
        ('c1,"act.1,rft.1,1,', "quotes do not close"),
        ("c1,,r,1,", "is missing"),
    ],
)
def test_a_bad_csv_row_is_told(row: str, reason: str) -> None:
    """A row that does not fit its header is a bad line."""
    with pytest.raises(BadLineError, match=reason):
        read_csv(CSV + row + "\n")


@pytest.mark.parametrize(
    ("text", "form", "sentence"),
    [
        pytest.param(b"[{}]", None, "one JSON array", id="JSON array"),
        pytest.param(b"{\n", None, "over several lines", id="pretty JSON"),
        pytest.param("é".encode("utf-16"), None, "not UTF-8", id="UTF-16"),
        pytest.param(b"act.CANARY,rft.1", None, "neither a JSON object nor a CSV header", id="no header"),
        pytest.param(b"open_id,access_token,refresh_token,open_id", None, "a column twice", id="a column twice"),
        pytest.param(b'{"a": 1}', "csv", "neither a JSON object", id="JSON called CSV"),
    ],
)
def test_a_file_of_another_kind_is_refused(text: bytes, form: Format | None, sentence: str) -> None:
    """A file that cannot be imported at all is refused with what to do, and its content is not shown."""
    with pytest.raises(UsageError, match=sentence) as caught:
        LineReader(form=form, now=NOW).read(text)

    assert "CANARY" not in str(caught.value)


def test_huge_lines_are_skipped_in_bounded_pieces() -> None:
    """A line beyond the bound gives no content, and the lines around it keep their numbers and sizes."""
    text = b"first\n" + b"x" * (3 * LONGEST_LINE) + b"\nlast"

    assert list(numbered_lines(io.BytesIO(text))) == [
        (1, 6, b"first\n"),
        (2, 3 * LONGEST_LINE + 1, None),
        (3, 4, b"last"),
    ]
