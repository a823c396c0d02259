"""Valid creator ids: one rule for TikTok's answers, for imported files and for the database's column; pure."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 255
"""Characters; the width of the database's column."""
KEPT_DIGITS: Final = 15
_ROUNDED: Final = re.compile(rf"[1-9]\d{{{KEPT_DIGITS - 1}}}0+", re.ASCII)
_DAMAGE: Final = (
    (re.compile(r"[+-]?\d+[.,]?\d*[eE][+-]\d+|[+-]?\d+[.,]\d+[eE]\d+"), "a number that a spreadsheet has rounded"),
    (re.compile(r"[+-]?\d+[.,]\d+|\d{1,3}([.,'_]\d{3})+"), "a number that a program has reformatted"),
    (re.compile(r"#.*"), "a spreadsheet's error, such as #NAME?"),
    (re.compile(r"=.*"), "a spreadsheet's formula"),
    (re.compile(r"'.*"), "a spreadsheet's text, with its mark before it"),
    (re.compile(r".*@.*|.*://.*"), "a handle, an address or a link; TikTok's open_id is wanted"),
    (re.compile(r"\d{4}-\d{2}-\d{2}([T ].*)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}"), "a date"),
    (re.compile(r"(?i)true|false"), "a truth value"),
    (re.compile(r".*[\"'`<>{}\[\]()|\\,;].*"), "a text with quotes, brackets or separators in it"),
    (re.compile(r".*\*\*\*.*|.*\.\.\.|(?i:x{3,})"), "a mask"),
    (re.compile(r"(?s).*\s.*"), "a text with a blank in it"),
    (
        re.compile(r"(?s).*[^ -~].*"),
        "a text with a character that is not ASCII, such as a name; TikTok's open_id is wanted",
    ),
    (re.compile(r"[^A-Za-z0-9]+"), "a text without a letter or digit"),
    (re.compile(rf".{{{LONGEST + 1},}}"), f"longer than {LONGEST} characters"),
)
"""What spreadsheets, programs and people leave in a column of ids, with a name for each; the first match counts."""


def is_creator_id(text: str) -> bool:
    """Return True if a text can be an id: 1 to `LONGEST` printable characters without a space."""
    return 0 < len(text) <= LONGEST and text.isprintable() and " " not in text


def may_be_rounded(text: str) -> bool:
    """Return True if an id is a number as a spreadsheet leaves it, which keeps fifteen digits and writes zeros then."""
    return _ROUNDED.fullmatch(text) is not None


def is_long_number(text: str) -> bool:
    """Return True if an id is a number of more digits than a spreadsheet keeps."""
    return len(text) > KEPT_DIGITS and text.isascii() and text.isdigit()


def damage_of(text: str) -> str | None:
    """Return what a file has in place of an id, or None if the text can be an id."""
    return next((name for pattern, name in _DAMAGE if pattern.fullmatch(text)), None)
