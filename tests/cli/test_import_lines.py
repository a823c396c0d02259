"""Lines of an import: every naming style that is taken, and every fault with its reason."""

from __future__ import annotations

import gzip
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.consent.import_fields import FieldNames, ImportedPair
from worker.consent.import_lines import LONGEST_LINE, Entry, Source, numbered_lines
from worker.errors import UsageError
from worker.tiktok.answers import read_creator
from worker.vault.redaction import Echoes

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


def entries(text: bytes | str, **how: Any) -> list[Entry]:
    """Return the entries of a file that are not blank."""
    source = Source(io.BytesIO(text.encode() if isinstance(text, str) else text), **how)
    return [entry for entry in source.entries(NOW) if not entry.blank]


def pairs(text: bytes | str, **how: Any) -> list[ImportedPair]:
    """Return the pairs of a file in which every entry is good."""
    found = entries(text, **how)
    assert [entry.fault for entry in found if entry.fault] == []
    return [entry.pair for entry in found if entry.pair is not None]


def read(fields: dict[str, Any], mapping: dict[str, str] | None = None) -> ImportedPair:
    """Read one good JSON line."""
    (pair,) = pairs(json.dumps(fields), names=FieldNames(mapping))
    return pair


def fault_of(fields: dict[str, Any]) -> str:
    """Return what is wrong with one JSON line."""
    (entry,) = entries(json.dumps(fields))
    assert entry.fault is not None, "the line was taken"
    return entry.fault


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
            {"issued_at": HOUR_AGO.timestamp() * 1000},
            HOUR_AGO,
            HOUR_AGO + timedelta(days=1),
            True,
            id="milliseconds",
        ),
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
        ({"refresh_token": f"{CANARY} x"}, "refresh_token holds a blank"),
        ({"refresh_token": "y" * 9000}, "refresh_token is longer than"),
        ({"access_token": f"{CANARY}\n"}, None),
        ({"access_token": f"{CANARY}\u00e9"}, "access_token holds .* not ASCII"),
        ({"scope": "user.inf\u00f3"}, "scope holds .* not ASCII"),
        ({"access_token": "\ud800"}, "access_token holds .* not ASCII"),
        ({"open_id": None}, "creator_id .* is missing"),
        ({"open_id": True}, "open_id is not a text"),
        ({"open_id": 1.5}, "open_id is not a text"),
        ({"open_id": ["x"]}, "open_id is not a text"),
        ({"open_id": "\x1b[31m"}, "creator's id is a text with"),
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
        ({"issued_at": 1763899200000000}, "seconds or milliseconds"),
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
def test_a_bad_line_is_reported_by_its_field(change: dict[str, Any], reason: str | None) -> None:
    """Each fault has a reason that names the field and holds nothing of its content."""
    if reason is None:
        read(NEW | change)
        return
    fault = fault_of(NEW | change)

    assert re.search(reason, fault), fault
    assert "CANARY" not in fault


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
    good, bad = entries(json.dumps(NEW).encode() + b"\n" + line)

    assert good.pair is not None
    assert bad.fault is not None
    assert bad.line == 2


DAMAGED_IDS = {
    "7.02123E+18": "spreadsheet has rounded",
    "7,02123e+18": "spreadsheet has rounded",
    "7.02123e18": "spreadsheet has rounded",
    "7300000000000000001.0": "reformatted",
    "7,300,000,000": "reformatted",
    "#NAME?": "spreadsheet's error",
    "#REF!": "spreadsheet's error",
    '="7300000000000000001"': "spreadsheet's formula",
    "'7300000000000000001": "spreadsheet's text",
    "@ada": "handle",
    "ada@example.org": "handle",
    "https://www.tiktok.com/ada": "link",
    "2026-11-23": "a date",
    "23/11/2026": "a date",
    "TRUE": "a truth value",
    '"7300"': "quotes",
    "[7300]": "brackets",
    "a,b": "separators",
    "***": "a mask",
    "_000***x7": "a mask",
    "xxxxxx": "a mask",
    "__": "without a letter",
    "\u00e9": "not ASCII",
    "jo\u00e3o": "not ASCII",
    "\u540d\u524d": "not ASCII",
    "\uff17\uff10": "not ASCII",
    "7300\u200b1": "not ASCII",
    "7300\x00": "not ASCII",
    "7300 0000": "a blank",
    "7300\t0000": "a blank",
    "7300\u00a00000": "a blank",
}


@pytest.mark.parametrize("name", ["creator_id", "open_id", "business_id"])
@pytest.mark.parametrize("text", DAMAGED_IDS)
def test_what_cannot_be_an_id_is_refused(text: str, name: str) -> None:
    """What a spreadsheet, a program or a person left of an id is no creator, and the reason says what it looks like."""
    fields = {key: value for key, value in NEW.items() if key != "open_id"}

    assert DAMAGED_IDS[text] in fault_of(fields | {name: text})


@pytest.mark.parametrize(
    "text", ["-000abc_DEF", "723f24d7-e717-40f8-a2b6-cb8464cd23b4", "7300000000000000001", "_12e5", "12e5", "a" * 255]
)
def test_ids_of_every_known_form_are_taken(text: str) -> None:
    """What looks odd and can be an id is one."""
    assert read(NEW | {"open_id": text}).creator_id == text


def test_answers_and_files_have_one_rule_for_an_id() -> None:
    """The longest id that an answer may bear can be imported, and a longer one is refused in both."""
    assert read_creator({"open_id": "a" * 255}, Echoes(())) == read(NEW | {"open_id": "a" * 255}).creator_id
    assert read_creator({"open_id": "a" * 256}, Echoes(())) is None
    assert "longer than 255" in fault_of(NEW | {"open_id": "a" * 256})


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize(
    "text",
    ["NULL", "\\N", "null", "None", "nan", "N/A", "#N/A", "-", "undefined", "(null)", "<null>", "", "  "],
)
def test_a_word_for_nothing_is_no_token(text: str, name: str) -> None:
    """What databases and programs write for a missing value is a missing token."""
    assert fault_of(NEW | {name: text}) == f"{name} is missing"


@pytest.mark.parametrize("name", ["access_token", "refresh_token"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("act.abc***xyz", "masked"),
        ("rft.abc...", "masked"),
        ("act.\u2022\u2022\u2022\u2022", "masked"),
        ("xxxxxxxx", "masked"),
        ("[REDACTED]", "masked"),
        ("<token>", "masked"),
        ("${REFRESH_TOKEN}", "masked"),
        ("{{ token }}", "masked"),
        ('"act.abc"', "quotes"),
        ("'act.abc'", "quotes"),
        ("act.", "placeholder"),
        ("refresh_token", "placeholder|same text"),
        ("Bearer act.abc", "holds a blank"),
        ("act.abc%214125", "percent-encoded"),
    ],
)
def test_a_mask_or_a_wrapped_token_is_no_token(text: str, reason: str, name: str) -> None:
    """A masked, quoted or encoded token would only be refused by TikTok, and its creator asked for nothing."""
    if text == "refresh_token" and name == "access_token":
        return
    assert re.search(reason, fault_of(NEW | {name: text}))


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": "rft.1", "refresh_token": "act.1"},
        {"access_token": "rft.2"},
        {"refresh_token": "act.2"},
        {"access_token": "act.1", "refresh_token": "act.1"},
        {"access_token": "plain", "refresh_token": "plain"},
    ],
)
def test_tokens_in_each_others_place_are_refused(change: dict[str, str]) -> None:
    """Swapped columns, one token twice, or a token with the other's beginning: nothing of it is sent."""
    assert re.search("changed places|same text", fault_of(NEW | change))


def test_a_line_without_a_life_is_marked() -> None:
    """A short life is assumed then, so the report can say that tokens will count as ended too early."""
    assert read(NEW).life_known
    assert read(NEW | {"expires_in": None, "expires_at": "2026-11-24T11:00:00Z"}).life_known
    assert not read(NEW | {"expires_in": None, "issued_at": "2026-11-23T11:00:00Z"}).life_known


def test_tokens_of_an_unknown_look_are_taken_and_marked() -> None:
    """TikTok calls tokens opaque, so an odd one is no fault; a report can mention it."""
    assert read(NEW).usual
    assert not read(NEW | {"access_token": "gAAAAABm"}).usual


def test_a_file_with_names_of_its_own_is_mapped() -> None:
    """A mapped field is read under that name alone, in JSON and CSV and whatever the case."""
    mapping = {"creator": "Account_ID", "refresh": "rt", "access_token": "at", "issued_at": "updated"}
    fields = {"account_id": "c1", "AT": "act.1", "RT": "rft.1", "updated": "2026-11-23T11:00:00Z", "open_id": "other"}

    pair = read(fields, mapping)
    (same,) = pairs("account_id;at;rt;updated\nc1;act.1;rft.1;2026-11-23T11:00:00Z\n", names=FieldNames(mapping))

    assert (pair.creator_id, pair.refresh_token.reveal(), pair.issued_at) == ("c1", "rft.1", HOUR_AGO)
    assert (same.creator_id, same.refresh_token.reveal(), same.issued_at) == ("c1", "rft.1", HOUR_AGO)


@pytest.mark.parametrize(
    ("mapping", "sentence"),
    [
        ({"nonsense": "x"}, "no field 'nonsense'"),
        ({"creator": "absent"}, "no column absent"),
        ({"scope": "nope"}, "no column nope"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(mapping: dict[str, str], sentence: str) -> None:
    """A field or a column that there is not is named before anything is read."""
    with pytest.raises(UsageError, match=sentence):
        entries(CSV, names=FieldNames(mapping))


def test_read_and_unread_columns_are_known() -> None:
    """The report can name the source of each field, and the columns that were not read."""
    source = Source(
        io.BytesIO(b"id,open_id,access_token,refresh_token,created_at,Note\n1,c1,act.1,rft.1,2026-11-23,x\n")
    )
    list(source.entries(NOW))

    assert source.read_columns == {
        "creator": "open_id",
        "access": "access_token",
        "refresh": "refresh_token",
        "issued_at": "created_at",
    }
    assert source.unread_columns == ["id", "Note"]


@pytest.mark.parametrize(
    ("text", "mapping", "sentence"),
    [
        ("Konto,Access_Token,refresh_token\n,act.1,rft.1\n", {"creator": "konto"}, "Konto is missing"),
        ("Konto,Access_Token,refresh_token\nc1,,rft.1\n", {"creator": "konto"}, "Access_Token is missing"),
        ("Open_ID,access_token,refresh_token,Ends\nc1,act.1,rft.1,x\n", {"expires_at": "ENDS"}, "Ends is neither"),
        ("open_id,access_token,Refresh Key\nc1,act.1,***\n", {"refresh": "refresh key"}, "Refresh Key is masked"),
        ('{"Konto": true, "access_token": "act.1", "refresh_token": "rft.1"}', {"creator": "konto"}, "Konto is not"),
    ],
)
def test_messages_show_a_column_as_the_file_has_it(text: str, mapping: dict[str, str], sentence: str) -> None:
    """Whoever looks for the column finds it, whatever the case in which it was mapped."""
    source = Source(io.BytesIO(text.encode()), names=FieldNames(mapping))
    (fault,) = [entry.fault for entry in source.entries(NOW) if entry.fault]

    assert fault.startswith(sentence)
    (field,) = mapping
    assert source.read_columns[field] in text


def test_a_column_that_is_missing_is_shown_as_it_was_mapped() -> None:
    """The file has no name for it, so the one that was typed is shown."""
    with pytest.raises(UsageError, match=r"no column Konto \(creator\)"):
        entries(CSV, names=FieldNames({"creator": " Konto "}))


def test_content_in_the_place_of_names_is_not_shown() -> None:
    """A JSON object whose names are tokens is a bad line, and its names are no columns."""
    source = Source(io.BytesIO(json.dumps({CANARY: "c1", "\x1b[31m": 1}).encode()))

    assert [entry.fault for entry in source.entries(NOW) if entry.fault] == [
        "creator_id (or open_id, business_id) is missing"
    ]
    assert source.unread_columns == []


CSV = 'open_id,access_token,refresh_token,expires_in,scope\nc1,act.1,rft.1,86400,"a,b"\n'
ROW = "c1\tact.1\trft.1\t86400\ta b\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CSV, id="plain"),
        pytest.param("\ufeff" + CSV.replace("\n", "\r\n"), id="byte order mark and CRLF"),
        pytest.param(CSV.rstrip("\n"), id="no final line break"),
        pytest.param(CSV.replace('"a,b"', "a b").replace(",", ";"), id="semicolons"),
        pytest.param("sep=;\r\n" + CSV.replace('"a,b"', "a b").replace(",", ";"), id="a spreadsheet's own separator"),
        pytest.param(CSV.replace('"a,b"', "a b").replace(",", "\t"), id="tabs"),
        pytest.param(CSV.replace('"a,b"', "a b").replace(",", "|"), id="bars"),
        pytest.param(CSV.replace('"a,b"', '"{a,b}"'), id="an array of PostgreSQL"),
        pytest.param(CSV.replace('"a,b"', '"[""a"",""b""]"'), id="a list of JSON"),
        pytest.param(CSV.replace("open_id,", " Open_ID ,"), id="header with spaces and capitals"),
        pytest.param(
            " open_id | access_token | refresh_token | expires_in | scope \n"
            "---------+--------------+---------------+------------+-------\n"
            " c1      | act.1        | rft.1         |      86400 | a b\n(1 row)\n\n",
            id="what psql prints",
        ),
    ],
)
def test_csv_is_read(text: str) -> None:
    """CSV of several makers gives the same pair."""
    (pair,) = pairs(text)

    assert (pair.creator_id, pair.refresh_token.reveal(), pair.scope) == ("c1", "rft.1", "a,b")


def test_a_copy_without_a_header_is_read_by_the_columns_that_are_given() -> None:
    """PostgreSQL's own copy has tabs, no header, and a backslash with an N for nothing."""
    columns = ["open_id", "access_token", "refresh_token", "expires_in", "scope"]

    (first, second) = pairs(ROW + ROW.replace("c1", "c2").replace("a b", "\\N"), columns=columns)

    assert (first.creator_id, first.scope, second.creator_id, second.scope) == ("c1", "a,b", "c2", "")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c1,act.1", "2 fields and the header 5"),
        ('c1,"act.1,rft.1,1,', "quotes do not close"),
        ("c1,,r,1,", "is missing"),
    ],
)
def test_a_bad_csv_row_is_reported(row: str, reason: str) -> None:
    """A row that does not fit its header is a bad line."""
    good, bad = entries(CSV + row + "\n")

    assert good.pair is not None
    assert reason in str(bad.fault)
    assert bad.line == 3


LIVES = [
    {
        "creator_id": f"c{number}",
        "access": f"act.{number}abcdef",
        "refresh": f"rft.{number}abcdef",
        "expires_in": "86400",
    }
    for number in range(3)
]
NAMES = {"creator_id": "open_id", "access": "access_token", "refresh": "refresh_token", "expires_in": "expires_in"}


def table(last: str, separator: str = ",", quote: str = "") -> str:
    """Return a file of three rows, as one that nobody cut, whose last column is this one."""
    order = [name for name in NAMES if name != last] + [last]
    rows = [[NAMES[name] for name in order]] + [[quote + row[name] + quote for name in order] for row in LIVES]
    return "".join(separator.join(row) + "\n" for row in rows)


@pytest.mark.parametrize("lost", [1, 2, 4])
@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("last", list(NAMES))
def test_a_file_that_was_cut_inside_its_last_field_is_reported(last: str, separator: str, lost: int) -> None:
    """The last line of a file that was cut is bad, whatever its last column is, and the lines before it are good."""
    if len(LIVES[-1][last]) < lost:
        lost = 1
    *good, bad = entries(table(last, separator)[: -1 - lost])

    assert [entry.fault for entry in good] == [None, None]
    assert "seems to be cut off" in str(bad.fault)
    assert NAMES[last] in str(bad.fault)
    assert (bad.pair, bad.line) == (None, 4)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(table("refresh"), id="with a line end"),
        pytest.param(table("refresh")[:-1], id="no line end and as long as the others"),
        pytest.param(table("refresh").replace("rft.2abcdef", "rft.2"), id="a short token and a line end"),
        pytest.param(table("refresh")[:-3] + "\r\n", id="a short token and CRLF"),
        pytest.param(table("refresh")[:-3] + "\r", id="cut between CR and LF"),
        pytest.param(table("refresh", quote='"')[:-4] + '"', id="a short token whose quotes close"),
        pytest.param(table("expires_in").replace("86400", "\\N", 1)[:-6], id="a column with gaps ends in one"),
        pytest.param(table("expires_in")[:-6] + "\\N", id="a column ends in a word for nothing"),
        pytest.param("\n".join(table("refresh").splitlines()[:2])[:-3], id="nothing to compare with"),
        pytest.param(
            "open_id,access_token,refresh_token,note\nc1,act.1,rft.1,longer\nc2,act.2,rft.2,no",
            id="a shorter value in a column that is not read",
        ),
    ],
)
def test_a_whole_file_is_not_taken_for_a_cut_one(text: str) -> None:
    """A line end, closed quotes, a word for nothing, a column that is not read or a line alone raise no doubt."""
    assert pairs(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(table("refresh", quote='"')[:-3], "quotes do not close", id="inside quotes"),
        pytest.param(
            table("refresh")[: -len("rft.2abcdef\n")], "cut off inside this line's refresh_token", id="before it"
        ),
        pytest.param(
            table("refresh")[: -len(",rft.2abcdef\n")], "3 fields and the header 4", id="inside another field"
        ),
        pytest.param("\n".join(json.dumps(NEW) for _ in "ab")[:-3], "is not JSON", id="JSON lines"),
    ],
)
def test_a_file_that_was_cut_elsewhere_has_a_bad_last_line(text: str, reason: str) -> None:
    """Wherever a file was cut inside a line, that line is bad and the others are good."""
    *good, bad = entries(text)

    assert [entry.fault for entry in good] == [None] * len(good) != []
    assert reason in str(bad.fault)


@pytest.mark.parametrize("end", ["\\.\n", "\\.", "\\.\r\n\n"])
@pytest.mark.parametrize("separator", ["\t", ","])
def test_the_end_mark_of_a_dump_is_no_line(end: str, separator: str) -> None:
    """The backslash and dot below the last row of a PostgreSQL copy are skipped."""
    assert len(pairs(table("refresh", separator) + end)) == len(LIVES)


OTHER = NEW | {"open_id": "c2", "refresh_token": "rft.2", "access_token": "act.2"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps([NEW, OTHER]), id="array on one line"),
        pytest.param("\ufeff" + json.dumps([NEW, OTHER], indent=2), id="array over many lines"),
        pytest.param(json.dumps({"data": [NEW, OTHER]}), id="array in an object"),
        pytest.param(json.dumps({"code": 0, "data": {"list": [NEW, OTHER]}}), id="array in an answer"),
        pytest.param(json.dumps(NEW, indent=2) + "\n" + json.dumps(OTHER, indent=2), id="objects over many lines"),
        pytest.param(json.dumps(NEW) + "\n" + json.dumps(OTHER), id="lines"),
    ],
)
def test_json_of_every_shape_is_read(text: str) -> None:
    """An array, objects that go over lines and lists within an object give the same pairs."""
    assert [pair.creator_id for pair in pairs(text)] == ["c1", "c2"]


def test_the_entries_of_a_json_document_bear_their_line() -> None:
    """A bad entry in an array is found in the file."""
    text = json.dumps([NEW, NEW | {"access_token": None}], indent=1)

    (_, bad) = entries(text)
    assert text.splitlines()[bad.line - 1].strip() == "{"
    assert bad.line > 5


@pytest.mark.parametrize(
    ("text", "form", "sentence"),
    [
        pytest.param(
            json.dumps([NEW, NEW])[:-40].encode(), None, "breaks off or is damaged at line 1", id="half an array"
        ),
        pytest.param(b"{\n", None, "breaks off", id="half an object"),
        pytest.param("é".encode("utf-16"), None, "not UTF-8", id="UTF-16"),
        pytest.param(gzip.compress(b"open_id"), None, "is compressed; give its rows as text", id="gzip"),
        pytest.param(b"PK\x03\x04CANARY", None, "is a spreadsheet or an archive", id="a spreadsheet's own format"),
        pytest.param(b"PGDMP\x01CANARY", None, "a dump in PostgreSQL's own format", id="a dump that is no text"),
        pytest.param("[é]".encode("latin-1"), None, "not UTF-8", id="Latin-1 in an array"),
        pytest.param(b"act.CANARY,rft.1", None, "no header; name its columns", id="no header"),
        pytest.param(b"name,age", None, "neither a JSON object nor a CSV header", id="other columns"),
        pytest.param(b"open_id,access_token,refresh_token,open_id", None, "a column twice", id="a column twice"),
        pytest.param(b'"open_id,access_token', None, "quotes do not close", id="a broken header"),
        pytest.param(b'{"a": 1}', "csv", "neither a JSON object", id="JSON called CSV"),
    ],
)
def test_a_file_of_another_kind_is_refused(text: bytes, form: Any, sentence: str) -> None:
    """A file that cannot be imported at all is refused with what to do, and its content is not shown."""
    with pytest.raises(UsageError, match=sentence) as caught:
        entries(text, form=form)

    assert "CANARY" not in str(caught.value)


def test_a_column_that_is_not_read_may_stand_twice() -> None:
    """A join of two tables has two columns `id`; that is no harm."""
    assert pairs("id,open_id,access_token,refresh_token,id\n1,c1,act.1,rft.1,2\n")[0].creator_id == "c1"


class _Pipe(io.BytesIO):
    """Bytes that can be read once only."""

    def seekable(self) -> bool:
        return False


def test_a_pipe_can_be_read_twice() -> None:
    """Standard input has no beginning to go back to, so it is held."""
    source = Source(_Pipe(json.dumps(NEW).encode()))

    assert [len(list(source.entries(NOW))) for _ in range(2)] == [2, 2]


def test_huge_lines_are_skipped_in_bounded_pieces() -> None:
    """A line beyond the bound gives no content, and the lines around it keep their numbers and sizes."""
    text = b"first\n" + b"x" * (3 * LONGEST_LINE) + b"\nlast"

    assert list(numbered_lines(io.BytesIO(text))) == [
        (1, 6, b"first\n"),
        (2, 3 * LONGEST_LINE + 1, None),
        (3, 4, b"last"),
    ]
