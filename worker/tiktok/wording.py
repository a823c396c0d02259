"""Makes TikTok's own words fit for a log or a table: without any secret that we sent or received."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from worker.vault.redaction import HIDDEN
from worker.vault.token import Token

SAID_LIMIT: Final = 200
READ_LIMIT: Final = 2000
GRAM: Final = 6
"""An echo of this many characters of a secret hides the word that it stands in."""

KEPT_GRAM: Final = 12
"""An echo of this many characters is hidden from what is stored; fewer could be an accident in a long address."""

USUAL_SECRET: Final = 512
"""Characters of a secret up to which it is looked through as it is."""
LONG_WORD: Final = 16
VERY_LONG_WORD: Final = 32

STRANGE_TOKEN: Final = re.compile(r"(?:\b|(?<=_))(?:act|rft)\.[A-Za-z0-9._!~*+/=%$-]{24,}", re.IGNORECASE)
"""A token that we do not know: its beginning, and a length that no word has."""
UNFIT: Final = re.compile(r"[\x00\ud800-\udfff]")
"""What databases cannot hold in a text: NUL, and halves of characters that JSON can smuggle in."""
MOST_DEPTH: Final = 64

REQUEST_ID: Final = re.compile(r"[0-9]{8}[0-9A-Za-z_-]{0,56}")
"""TikTok's request ids begin with a UTC stamp; nothing else is taken for one."""


def clean_message(message: Any, secrets: Iterable[Token]) -> str:
    """Return TikTok's message without control characters, without secrets, and cut to 200 characters.

    Args:
        message: what the answer held; anything but a text counts as nothing said.
        secrets: what we sent and what the answer brought.
    """
    if not isinstance(message, str):
        return ""
    line = _one_line(message[:READ_LIMIT])
    marks = _marked(line, secrets)
    words = [
        HIDDEN if any(marks[found.start() : found.end()]) or _looks_secret(found.group()) else found.group()
        for found in re.finditer(r"\S+", line)
    ]
    return " ".join(words)[:SAID_LIMIT]


def clean_request_id(value: Any, secrets: Iterable[Token]) -> str | None:
    """Return TikTok's request id, or None for anything that does not look like one or that echoes a secret."""
    if not isinstance(value, str) or not REQUEST_ID.fullmatch(value) or any(_echoes(value, secrets)):
        return None
    return value


def fit_to_store(value: Any, secrets: Iterable[Token]) -> Any:
    """Return a value of an answer as it may be stored and shown: no secret in it, and nothing that no text can hold.

    A stretch of a secret becomes `<redacted>`, also in the names of members. NUL and half characters become U+FFFD.

    Args:
        value: what JSON knows; deeper than 64 it is cut off.
        secrets: what we sent and what the answer brought.
    """
    return _fit(value, tuple(secrets), MOST_DEPTH)


def echoes_secret(text: str, secrets: Iterable[Token]) -> bool:
    """Tell whether a text repeats a stretch of a secret, or holds a token that we do not know."""
    return STRANGE_TOKEN.search(text) is not None or any(_echoes(text, secrets, KEPT_GRAM))


def _fit(value: Any, secrets: tuple[Token, ...], depth: int) -> Any:
    if isinstance(value, str):
        return _hidden(UNFIT.sub("\ufffd", value), secrets)
    if isinstance(value, (dict, list)) and not depth:
        return None
    if isinstance(value, dict):
        return {_fit(name, secrets, depth): _fit(inner, secrets, depth - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_fit(inner, secrets, depth - 1) for inner in value]
    return value


def _hidden(text: str, secrets: tuple[Token, ...]) -> str:
    marks = _marked(text, secrets, KEPT_GRAM)
    if any(marks):
        runs = groupby(zip(text, marks, strict=True), key=itemgetter(1))
        text = "".join(HIDDEN if marked else "".join(char for char, _ in run) for marked, run in runs)
    return STRANGE_TOKEN.sub(HIDDEN, text)


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def _folded(text: str) -> str:
    """Lower the case without ever changing the length, so that places in both texts stay the same."""
    if text.isascii():
        return text.lower()
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _echoes(line: str, secrets: Iterable[Token], gram: int = GRAM) -> Iterator[slice]:
    """Yield the places in `line` that repeat a stretch of a secret; a shorter secret must stand there in full."""
    folded = _folded(line)
    for revealed in [secret.reveal() for secret in secrets]:
        text = _folded(_one_line(revealed))
        size = min(gram, len(text))
        # To look through a text of usual length is quicker than to cut it up; a long one is cut up once.
        stretches = text if len(text) <= USUAL_SECRET else {text[at : at + size] for at in range(len(text) - size + 1)}
        for at in range(len(folded) - size + 1):
            if folded[at : at + size] in stretches:
                yield slice(at, at + size)


def _marked(line: str, secrets: Iterable[Token], gram: int = GRAM) -> list[bool]:
    """Mark the characters of `line` that repeat a stretch of a secret."""
    marks = [False] * len(line)
    for place in _echoes(line, secrets, gram):
        marks[place] = [True] * (place.stop - place.start)
    return marks


def _looks_secret(word: str) -> bool:
    """Tell a word that could be a token of someone else: prefixed like one, or long and not a plain word."""
    if "act." in word or "rft." in word or len(word) >= VERY_LONG_WORD:
        return True
    mixed = any(c.isdigit() for c in word) or (word.lower() != word and word.upper() != word)
    return len(word) >= LONG_WORD and mixed
