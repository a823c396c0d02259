"""Makes TikTok's own words fit for a log: one line, bounded, and without any secret that we sent or received."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from worker.vault.token import Token

SAID_LIMIT: Final = 200
READ_LIMIT: Final = 2000
GRAM: Final = 6
"""An echo of this many characters of a secret hides the word that it stands in."""

HIDDEN: Final = "[hidden]"
LONG_WORD: Final = 16
VERY_LONG_WORD: Final = 32

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
    marks = _echoes(line, secrets)
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


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _folded(text: str) -> str:
    """Lower the case without ever changing the length, so that places in both texts stay the same."""
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _echoes(line: str, secrets: Iterable[Token]) -> list[bool]:
    """Mark the characters of `line` that repeat a stretch of a secret; a shorter secret must stand there in full."""
    folded = _folded(line)
    marks = [False] * len(line)
    for secret in secrets:
        text = _folded(_one_line(secret.reveal()))
        size = min(GRAM, len(text))
        grams = {text[at : at + size] for at in range(len(text) - size + 1)}
        for at in range(len(folded) - size + 1):
            if folded[at : at + size] in grams:
                marks[at : at + size] = [True] * size
    return marks


def _looks_secret(word: str) -> bool:
    """Tell a word that could be a token of someone else: prefixed like one, or long and not a plain word."""
    if "act." in word or "rft." in word or len(word) >= VERY_LONG_WORD:
        return True
    mixed = any(c.isdigit() for c in word) or (word.lower() != word and word.upper() != word)
    return len(word) >= LONG_WORD and mixed
