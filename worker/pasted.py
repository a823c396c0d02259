"""Text that people paste into settings and secret files: harmless marks are removed, damaged text is refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError

QUOTES: Final = "\"'"
TYPESET_QUOTES: Final = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb\u2039\u203a`\u00b4"
HARMFUL: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Unicode's categories of invisible characters: control and format characters, halves of characters, odd blanks."""
LOST: Final = "\ufffd"
"""What a program writes in place of a character that it could not read."""
UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
MOST_BYTES: Final = 1 << 20


def cleaned(text: str, place: str, *, lines: bool = False) -> str:
    """Return a text without what editors, shells and spreadsheets leave around it.

    Removed at both ends: blanks, line breaks, the byte order mark, invisible characters, and one pair of plain quotes.

    Args:
        text: the text.
        place: where it was found, for the error's text.
        lines: True if line breaks and tabs may stand inside, as in JSON.

    Raises:
        ConfigurationError: there is an invisible character inside, or a quote at only one end. The text names the
            place, the character's code and its position, and shows nothing else.
    """
    kept = _trimmed(text)
    if len(kept) > 1 and kept[0] == kept[-1] and kept[0] in QUOTES:
        kept = _trimmed(kept[1:-1])
    for position, character in enumerate(kept, 1):
        if character == LOST:
            raise ConfigurationError(f"{place}: character {position} was lost when it was copied (U+FFFD)")
        if character == " " or (lines and character in "\r\n\t"):
            continue
        if unicodedata.category(character) in HARMFUL:
            name = unicodedata.name(character, "not text")
            raise ConfigurationError(f"{place}: character {position} cannot be seen (U+{ord(character):04X}, {name})")
    if kept and (kept[0] in QUOTES + TYPESET_QUOTES or kept[-1] in QUOTES + TYPESET_QUOTES):
        raise ConfigurationError(f"{place}: begins or ends with a quotation mark; write the value without")
    return kept


def read_file(path: Path, place: str, *, lines: bool = False) -> str:
    """Return what a file of settings or of one secret holds, cleaned.

    Args:
        path: the file.
        place: its name in the error's text.
        lines: as for `cleaned`.

    Raises:
        ConfigurationError: it cannot be read, is not UTF-8, is empty or damaged; nothing of it is shown.
    """
    kept = cleaned(decoded(path, place), place, lines=lines)
    if not kept:
        raise ConfigurationError(f"{place} is empty")
    return kept


def decoded(path: Path, place: str) -> str:
    """Return a file's text without its byte order mark.

    Raises:
        ConfigurationError: it cannot be read or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no path"
        raise ConfigurationError(f"{place} cannot be read ({reason})") from None
    if len(raw) > MOST_BYTES:
        raise ConfigurationError(f"{place} is longer than {MOST_BYTES} bytes")
    if raw.startswith(UTF16_MARKS):
        raise ConfigurationError(f"{place} is written in UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{place} is not UTF-8 at byte {error.start + 1}; save it as UTF-8") from None


def _trimmed(text: str) -> str:
    first, end = 0, len(text)
    while first < end and _is_edge(text[first]):
        first += 1
    while end > first and _is_edge(text[end - 1]):
        end -= 1
    return text[first:end]


def _is_edge(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"
