"""Redaction: hides secrets in any text, by their form or because we know them.

`redact` is the second line of defence for logs; the first is that no secret is in a text at all. It recognises tokens
by TikTok's prefixes `act.` and `rft.`, values behind names such as `access_token`, `client_secret`, `auth_code` or
`password` in JSON, URLs, headers and printed arguments, and passwords in addresses. A secret without name or prefix
cannot be recognised.

`Echoes` knows the secrets in a request and in its answer, and makes TikTok's own texts fit for a log or a table: it
hides whatever repeats a part of one of these secrets.

One idea: what must never be shown, and how it is hidden, is known here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from worker.vault.token import Token

HIDDEN: Final = "<redacted>"
TEXT_LIMIT: Final = 2_000
LINES_LIMIT: Final = 8_000
READ_LIMIT: Final = 65_536
"""Longer texts are cut before they are searched, so that no text costs more than this."""
CUT_LIMIT: Final = 4_096
DEPTH_LIMIT: Final = 6
UNTOUCHED: Final = frozenset({"_record", "_from_structlog"})
"""What structlog adds to an event for itself and removes before rendering."""
PLAIN: Final = frozenset({int, float, bool, type(None)})
"""What holds no text."""
WITH_LINES: Final = frozenset({"exception", "stack"})
"""What we format ourselves in several lines: tracebacks."""

SAID_LIMIT: Final = 200
SAID_READ_LIMIT: Final = 2000
GRAM: Final = 6
"""An echo of this many characters of a secret hides the whole word around it."""
KEPT_GRAM: Final = 2 * GRAM
"""An echo of this many characters is hidden from what is stored; fewer could be an accident in a long address."""
USUAL_SECRET: Final = 512
"""Longest secret, in characters, that is searched as it is."""
LONG_WORD: Final = 16
VERY_LONG_WORD: Final = 32
_PREFIXED: Final = r"(?:act|rft)\.[A-Za-z0-9._!~*+/=%$-]{24,}"
STRANGE_TOKEN: Final = re.compile(rf"(?:\b|(?<=_)){_PREFIXED}", re.IGNORECASE)
"""A token that we do not know: TikTok's prefix, and more characters than any word has."""
PERHAPS_TOKEN: Final = re.compile(_PREFIXED, re.IGNORECASE)
UNFIT: Final = re.compile(r"[\x00\ud800-\udfff]")
"""What databases cannot store in a text: NUL, and halves of characters, which JSON can contain."""
MOST_DEPTH: Final = 64
HIDING_ESCAPE: Final = re.compile(
    r"\\(?:\\u|u00[0-7]|u[dD][89abAB]..(?!\\u[dD][c-fC-F])|u[dD][c-fC-F](?<!\\u[dD][89abAB]..\\u[dD].))", re.DOTALL
)
"""What JSON writes for a character of a secret, for NUL or for half a character, or what could be mistaken for it."""
ESCAPED: Final = re.compile(r'["\\/]|[^\x00-\x7f]')
"""What JSON writes, or may write, in another way than it is."""

SHORT: Final = 64
MOST_HARMLESS: Final = 512
_harmless: Final[set[str]] = set()
"""Short texts that contain a hint of a secret but no secret."""
_plain_keys: Final[set[str]] = set()
"""Keys that name no secret."""

_NAMES: Final = (
    r"access[_-]?token|refresh[_-]?token|id[_-]?token|client[_-]?secret|app[_-]?secret|auth[_-]?code|authorization"
    r"|secret|password|passwd|api[_-]?key|keyring|cookie|(?<![a-z0-9])token"
)
_HINTS: Final = ("act.", "rft.", "://", "code", "token", "secret", "pass", "key", "authorization", "cookie")
"""Every text in which the patterns below find something contains one of these, in lower case."""
_START: Final = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f][0-9A-Fa-f])|(?<=\\[nrtbf])|(?<=\\x[0-9a-f][0-9a-f]))"
_TOKEN: Final = re.compile(
    rf"(?:{_START}(?:act|rft)\.[A-Za-z0-9._!~*+/=%$-]{{4,}}|(?:act|rft)\.[A-Za-z0-9._!~*+/=%$-]{{24,}})", re.IGNORECASE
)
_MARK: Final = r"""(?:\\*["']|%22|%27)"""
_EQUALS: Final = rf"{_MARK}?\]?\s*(?:=>?|:|%3D|%3A)\s*|{_MARK}\s*,\s*(?=b?{_MARK})"
_QUOTED: Final = (
    r"""b?"(?:[^"\\]|\\.)*(?:"|\Z)|b?'(?:[^'\\]|\\.)*(?:'|\Z)|%22.*?(?:%22|\Z)"""
    # JSON inside JSON: the value ends at a quote behind as many backslashes as opened it.
    r"""|(?P<depth>\\+)(?P<quote>["']).*?(?:(?<!\\)(?P=depth)(?P=quote)|\Z)"""
)
_SECRET: Final = re.compile(
    rf"(?P<name>(?:{_NAMES})(?![_-]?(?:expires|type|seconds))[a-z0-9_-]{{0,24}})(?P<equals>{_EQUALS})"
    rf"(?!{_MARK}?(?:{HIDDEN}|<token ))(?:{_QUOTED}|(?:(?:bearer|basic)\s+)?[^\s\"'&;,)\]}}]+)",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER: Final = r"-?\d{1,6}(?![A-Za-z0-9])"
_CODE: Final = re.compile(
    rf"(?P<name>(?:(?<![a-z0-9_])|(?<=%[0-9a-f][0-9a-f]))code)(?P<equals>{_MARK}\s*[:,]\s*|{_MARK}?\s*=\s*|%3D)"
    rf"(?!{_MARK}?(?:{HIDDEN}|<token |{_NUMBER}|none\b|null\b))(?:{_QUOTED}|[^\s\"'&;,)\]}}]+)",
    re.IGNORECASE | re.DOTALL,
)
_ADDRESS: Final = re.compile(rf"://(?P<user>[^\s/:@\"']{{0,128}}):(?!{HIDDEN}@)[^\s\"']{{0,256}}@")
_BARE_USER: Final = re.compile(rf"://(?!{HIDDEN}@)[^\s/:@\"']{{1,256}}@")
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_SPACES: Final = re.compile(r"[\t\n\x0b\x0c\r\x85\u2028\u2029]+")
_BREAKS: Final = re.compile(r"(?:\r\n|[\n\r\x0b\x0c\x85\u2028\u2029])+")
_CONTROLS: Final = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NAMED: Final = re.compile(rf"(?:{_NAMES})(?![_-]?(?:expires|type|seconds))", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+")
_WHOLE_WORDS: Final = re.compile(r"(?:.*[\s\"'&;,])?", re.DOTALL)


def redact(text: str, limit: int = TEXT_LIMIT, *, keep_lines: bool = False) -> str:
    """Return a text without anything that looks like a secret, without control characters, and bounded.

    Args:
        text: any text.
        limit: most characters kept; the middle of a longer text is left out.
        keep_lines: True keeps line ends and indents each further line, so that no text can forge a line of the log.
    """
    if len(text) > READ_LIMIT:
        # If the cut splits a word, its half may be half a secret, which no pattern recognizes any more.
        whole = _WHOLE_WORDS.match(text, READ_LIMIT - CUT_LIMIT, READ_LIMIT)
        text = text[: READ_LIMIT - CUT_LIMIT] + (whole[0] if whole else "")
    if not text.isprintable():
        text = _clean(text, keep_lines=keep_lines)
    if text not in _harmless:
        lowered = text.lower()
        for hint in _HINTS:  # a loop, as it costs half of what `any` does
            if hint in lowered:
                text = _hidden(text)
                break
    return text if len(text) <= limit else _cut(text, limit)


def redact_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of the log with every text redacted, in nested values too.

    Numbers, booleans and None stay; bytes become their count; a Token becomes its fingerprint; other objects become
    their redacted text. A value under the name of a secret is hidden completely.
    """
    found: dict[str, Any] = {}
    for key, value in event.items():
        kind = type(value)
        if key in _plain_keys and (kind in PLAIN or (kind is str and key not in WITH_LINES)):  # most fields
            found[key] = redact(value) if kind is str else value
        else:
            found[_key(key)] = value if key in UNTOUCHED else _value(key, value, 0)
    return found


class Echoes:
    """Finds repeated parts of known secrets in a text or in a value of an answer."""

    __slots__ = ("_joined", "_secrets")

    def __init__(self, secrets: Iterable[Token]) -> None:
        """Take the secrets: what we sent and what the answer brought."""
        self._secrets = [_folded(_one_line(text)) for text in [secret.reveal() for secret in secrets]]
        self._joined = "\n".join(self._secrets)  # a text with a line end in it is at most suspected for nothing

    def in_text(self, text: str, gram: int = KEPT_GRAM) -> bool:
        """Return True if a text repeats a part of a secret, or holds a token that we do not know."""
        folded, joined = _folded(text), self._joined
        if _has_strange_token(text, folded):
            return True
        for at in range(len(folded) - gram + 1):  # a loop, as it costs half of what `any` does
            if folded[at : at + gram] in joined:
                return True
        return any(len(secret) < gram and secret in folded for secret in self._secrets)

    def whole_in_text(self, text: str) -> bool:
        """Return True if a text holds a secret in full, or a token that we do not know."""
        folded = _folded(text)
        return _has_strange_token(text, folded) or any(secret in folded for secret in self._secrets)

    def part_in(self, text: str) -> bool:
        """Return what `in_text` does, for a text of megabytes: each part of a secret is searched in the whole text."""
        folded = _folded(text)
        if _has_strange_token(text, folded):
            return True
        parts = (
            secret[at : at + KEPT_GRAM] for secret in self._secrets for at in range(max(1, len(secret) - KEPT_GRAM + 1))
        )
        return self._may_be_in(folded) and any(part in folded for part in parts if part)

    def clean_message(self, message: Any) -> str:
        """Return TikTok's message without control characters, without secrets, and cut to 200 characters.

        Args:
            message: the answer's message; anything but a text counts as no message.
        """
        if not isinstance(message, str):
            return ""
        line = _one_line(message[:SAID_READ_LIMIT])
        marks = self._marked(line, GRAM)
        words = [
            HIDDEN if any(marks[found.start() : found.end()]) or _looks_secret(found.group()) else found.group()
            for found in _WORD.finditer(line)
        ]
        return " ".join(words)[:SAID_LIMIT]

    def fit_to_store(self, value: Any, depth: int = MOST_DEPTH) -> Any:
        """Return a value of an answer that may be stored and shown, without secrets and impossible characters.

        A part of a secret becomes `<redacted>`, also in the names of members. NUL and half characters become U+FFFD.

        Args:
            value: a value of JSON.
            depth: how deep it is searched; what is deeper is cut off.
        """
        try:
            text = json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            return self._fitted(value, depth)
        # Two halves that stand side by side without being one character would look like one if they were escaped.
        if UNFIT.search(text) or not self.is_fit(value, text, depth):
            return self._fitted(value, depth)
        return value

    def is_fit(self, value: Any, text: str, depth: int = MOST_DEPTH) -> bool:
        """Return True if a value certainly may be stored as it is: all of it is searched as one text.

        An answer has thousands of texts and hardly ever an echo; to search each of them costs more than to store them.

        Args:
            value: a value of JSON.
            text: JSON that holds the value, decoded from UTF-8.
            depth: how deep it may be.
        """
        # Behind an escape, a secret is not found. Quotes, slashes and backslashes are escaped in a way of their own; an
        # escaped line end in front of a token looks like the letter n.
        if HIDING_ESCAPE.search(text) or any(map(ESCAPED.search, self._secrets)) or _is_deeper(value, depth):
            return False
        folded = _folded(text)
        if _has_prefix(folded) and PERHAPS_TOKEN.search(text) is not None:
            return False
        return not self._may_be_in(folded)

    def _fitted(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._hide(UNFIT.sub("\ufffd", value))
        if isinstance(value, (dict, list)) and not depth:
            return None
        if isinstance(value, dict):
            return {self._fitted(name, depth): self._fitted(inner, depth - 1) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._fitted(inner, depth - 1) for inner in value]
        return value

    def _may_be_in(self, folded: str) -> bool:
        """Return False if a text certainly repeats no KEPT_GRAM characters of a secret, nor all of a shorter one.

        So many characters of a secret contain one of its pieces of half that length whole.
        """
        return any(
            secret[at : at + GRAM] in folded
            for secret in self._secrets
            if secret
            for at in range(0, max(1, len(secret) - GRAM + 1), GRAM)
        )

    def _hide(self, text: str) -> str:
        marks = self._marked(text, KEPT_GRAM)
        if any(marks):
            runs = groupby(zip(text, marks, strict=True), key=itemgetter(1))
            text = "".join(HIDDEN if marked else "".join(char for char, _ in run) for marked, run in runs)
        return STRANGE_TOKEN.sub(HIDDEN, text)

    def _marked(self, line: str, gram: int) -> list[bool]:
        """Mark the characters of `line` that repeat a part of a secret."""
        marks = [False] * len(line)
        for place in self._places(line, gram):
            marks[place] = [True] * (place.stop - place.start)
        return marks

    def _places(self, line: str, gram: int) -> Iterator[slice]:
        """Yield the places in `line` that repeat `gram` characters of a secret, or all of a shorter secret."""
        folded = _folded(line)
        for text in self._secrets:
            size = min(gram, len(text))
            # A secret of usual length is searched faster than it is cut up; a long one is cut up once.
            stretches = (
                text if len(text) <= USUAL_SECRET else {text[at : at + size] for at in range(len(text) - size + 1)}
            )
            for at in range(len(folded) - size + 1):
                if folded[at : at + size] in stretches:
                    yield slice(at, at + size)


def _hidden(text: str) -> str:
    """Hide secrets; a short text without any, such as the path of a call, is remembered as harmless."""
    hidden = _hide(text)
    if hidden == text and len(text) <= SHORT and len(_harmless) < MOST_HARMLESS:
        _harmless.add(text)
    return hidden


def _key(key: object) -> str:
    return key if type(key) is str and key in _plain_keys else _redacted_key(str(key))


def _redacted_key(key: str) -> str:
    redacted = redact(key, 200)
    if redacted == key and not _NAMED.search(key) and key.lower() != "code" and len(_plain_keys) < MOST_HARMLESS:
        _plain_keys.add(key)
    return redacted


def _value(key: object, value: object, depth: int) -> Any:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Token):
        return repr(value)
    if isinstance(key, str) and key not in _plain_keys and _is_secret(key, value):
        return HIDDEN
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return _nested(value, depth + 1)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    lines = key in WITH_LINES
    return redact(_text(value), LINES_LIMIT if lines else TEXT_LIMIT, keep_lines=lines)


def _nested(value: Mapping[Any, Any] | list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any], depth: int) -> Any:
    """Redact the values inside; if the first of a pair is the name of a secret, hide the second."""
    if depth > DEPTH_LIMIT:
        return "<too deep>"
    if isinstance(value, Mapping):
        return {_key(name): _value(name, inner, depth) for name, inner in value.items()}
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):  # noqa: PLR2004 - a pair
        return [redact(value[0]), _value(value[0], value[1], depth)]
    return [_value(None, item, depth) for item in value]


def _is_secret(key: str, value: object) -> bool:
    if _NAMED.search(key):
        return True
    return key.lower() == "code" and isinstance(value, (str, bytes)) and not re.fullmatch(_NUMBER, str(value))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a log line must not fail over an object that cannot be printed
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _clean(text: str, *, keep_lines: bool) -> str:
    text = _ESCAPES.sub("", text)
    text = _BREAKS.sub("\n  ", text.rstrip()).replace("\t", " ") if keep_lines else _SPACES.sub(" ", text)
    return _CONTROLS.sub("", text)


def _hide(text: str) -> str:
    text = _ADDRESS.sub(rf"://\g<user>:{HIDDEN}@", text)
    text = _BARE_USER.sub(f"://{HIDDEN}@", text)
    text = _SECRET.sub(rf"\g<name>\g<equals>{HIDDEN}", text)
    text = _CODE.sub(rf"\g<name>\g<equals>{HIDDEN}", text)
    return _TOKEN.sub(HIDDEN, text)


def _cut(text: str, limit: int) -> str:
    """Leave out the middle: the start and the end of a text say most."""
    mark = f" [{len(text) - limit} more characters] "
    kept = limit - len(mark)
    if kept <= 0:
        return text[:limit]
    return text[: kept - kept // 2] + mark + text[len(text) - kept // 2 :]


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def _folded(text: str) -> str:
    """Lower the case without changing the length, so that places in both texts are the same."""
    if "İ" not in text and "Σ" not in text:  # one becomes two characters, the other depends on those around it
        return text.lower()
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)


def _has_strange_token(text: str, folded: str) -> bool:
    return _has_prefix(folded) and STRANGE_TOKEN.search(text) is not None


def _has_prefix(folded: str) -> bool:
    return "act." in folded or "rft." in folded


def _is_deeper(value: Any, depth: int) -> bool:
    """Return True if objects and lists are nested more than `depth` times."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _looks_secret(word: str) -> bool:
    """Return True if a word could be a token of someone else: prefixed like one, or long and not a plain word."""
    if "act." in word or "rft." in word or len(word) >= VERY_LONG_WORD:
        return True
    mixed = any(c.isdigit() for c in word) or (word.lower() != word and word.upper() != word)
    return len(word) >= LONG_WORD and mixed
