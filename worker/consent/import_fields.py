"""Reading the fields of one imported line: old and new names, durations and instants; pure.

TikTok's answers named the same things differently over the years (`creator_id`, `expires`, `refresh_expires`; later
`open_id`, `expires_in`, `refresh_token_expires_in`), and so do the files that were made from them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from worker.errors import UsageError
from worker.policy import creator_id as creator_ids
from worker.policy.renewal import UNKNOWN_LIFE
from worker.tiktok import ACCESS_LIFE_NAMES, CREATOR_NAMES, REFRESH_LIFE_NAMES
from worker.vault import Token

LONGEST_TOKEN: Final = 8_192
LONGEST_REFERENCE: Final = 255
ACCESS_START: Final = "act."
REFRESH_START: Final = "rft."
LONGEST_ACCESS_LIFE: Final = timedelta(days=366)
LONGEST_REFRESH_LIFE: Final = timedelta(days=3_660)
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
ISSUED_AHEAD: Final = "the issue time lies in the future"
OLDEST: Final = datetime(2016, 9, 1, tzinfo=UTC)
"""Before this there was no TikTok, so an earlier instant is a mistake."""
_MILLISECONDS_FROM: Final = 100_000_000_000
_MICROSECONDS_FROM: Final = 100_000_000_000_000

FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "creator": (*CREATOR_NAMES, "business_id"),
    "access": ("access_token",),
    "refresh": ("refresh_token",),
    "scope": ("scope", "scopes"),
    "reference": ("reference",),
    "expires_in": (*ACCESS_LIFE_NAMES, "access_token_expires_in"),
    "refresh_expires_in": REFRESH_LIFE_NAMES,
    "issued_at": ("issued_at", "created_at", "obtained_at"),
    "expires_at": ("expires_at", "access_token_expires_at"),
    "refresh_expires_at": ("refresh_token_expires_at", "refresh_expires_at"),
}
"""Our fields and the names that files have for them."""
NEEDED: Final = ("creator", "access", "refresh")
OF_NO_USE: Final = frozenset({"token_type"})
"""Names that are not reported as unread: TikTok's answers have them, and they are of no use."""
_EMPTY: Final = frozenset(
    {
        "", "null", "\\n", "none", "nil", "nan", "nat", "n/a", "na", "#n/a", "undefined", "unknown", "-", "--", "?",
        "(null)", "<null>", "[null]", "<none>", "(none)", "empty", "(empty)", "<empty>", "tbd", "todo",
    }
)  # fmt: skip
"""What databases, spreadsheets and programs write for a missing value, in lower case."""
_MASK: Final = re.compile(
    r".*(\*{3}|\.{3}|\u2026|\u2022).*|(?:act\.|rft\.)?x{3,}|.*redacted.*|.*masked.*", re.IGNORECASE
)
_WRAPPED: Final = re.compile(r"[<\[({$].*|.*[>\])}]")
_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_SCOPE_MARKS: Final = re.compile(r"[\[\]{}\",]")
"""The marks around scopes in lists of JSON and of PostgreSQL."""
_QUOTES: Final = frozenset("\"'`")


NO_ZONE: Final = "; it names no time zone and was read as UTC: add the zone, such as +02:00"


class BadLineError(Exception):
    """A line cannot be imported; the text names fields and never their content."""


@dataclass(frozen=True)
class ImportedPair:
    """One line's pair with its dates.

    Attributes:
        age_known: False if the line says neither when the pair was issued nor when it ends.
        dated: True if the line says when the pair was issued, by an issue time or by an end and a life.
        life_known: False if the line does not say when its access token ends, so that a short life is assumed.
        zoneless: True if a time names no zone and was read as UTC.
        usual: False if a token does not begin as TikTok's do; it may be encrypted or belong to another service.
    """

    creator_id: str
    access_token: Token
    refresh_token: Token
    scope: str
    issued_at: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    age_known: bool
    dated: bool
    life_known: bool
    usual: bool
    reference: str | None = None
    zoneless: bool = False


class FieldNames:
    """The names under which a file has its fields: TikTok's of several years, or those that a person mapped."""

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        """Take the mapping that a person gave.

        Args:
            mapping: the file's name for each of our fields; case does not matter. A mapped field is read only under
                that name.

        Raises:
            UsageError: there is no such field.
        """
        self._names = dict(FIELDS)
        self._typed = {theirs.strip().lower(): theirs.strip() for theirs in (mapping or {}).values()}
        for ours, theirs in (mapping or {}).items():
            self._names[_field_named(ours)] = (theirs.strip().lower(),)

    def of(self, field: str) -> tuple[str, ...]:
        """Return the names of a field in lower case, in the order of their preference."""
        return self._names[field]

    def typed(self, name: str) -> str:
        """Return a name in lower case as it was typed in the mapping, else as it is."""
        return self._typed.get(name, name)

    def missing(self, columns: Iterable[str]) -> str | None:
        """Return what a file with these columns lacks, in a sentence, or None."""
        found = {column.lower() for column in columns}
        lacking = [field for field in NEEDED if not found.intersection(self._names[field])]
        lacking += [field for field, names in self._names.items() if names != FIELDS[field] and not found & set(names)]
        if not lacking:
            return None
        return "; ".join(
            f"there is no column {' or '.join(map(self.typed, self._names[field]))} ({field})"
            for field in dict.fromkeys(lacking)
        )

    def read(self, columns: Iterable[str]) -> dict[str, str]:
        """Return for each field the column that it is read from; if a file has several, the preferred one."""
        found = {column.lower(): column for column in columns}
        firsts = {
            field: next((found[name] for name in names if name in found), None) for field, names in self._names.items()
        }
        return {field: name for field, name in firsts.items() if name is not None}

    def unread(self, columns: Iterable[str]) -> list[str]:
        """Return the columns that are not read."""
        read = {name for names in self._names.values() for name in names} | OF_NO_USE
        return [column for column in columns if column.lower() not in read]


def _field_named(name: str) -> str:
    wanted = name.strip().lower()
    for field, names in FIELDS.items():
        if wanted == field or wanted in names:
            return field
    raise UsageError(f"there is no field {name!r} to map; the fields are {', '.join(FIELDS)}")


def read_pair(fields: Mapping[str, Any], now: datetime, names: FieldNames | None = None) -> ImportedPair:
    """Read a line's fields; unknown names are ignored, and case does not matter.

    If a line has neither an issue time nor an end, its pair counts as issued now, and its age is marked as unknown.
    A time without a zone is UTC.

    Raises:
        BadLineError: its text names the field and what is wrong with it.
    """
    line = _Line(fields, names or FieldNames())
    life = line.seconds("expires_in", LONGEST_ACCESS_LIFE)
    issued_at = line.instant("issued_at")
    expires_at = line.instant("expires_at")
    if issued_at is not None and issued_at > now + CLOCK_TOLERANCE:
        raise BadLineError(ISSUED_AHEAD + (NO_ZONE if line.zoneless else ""))
    age_known = issued_at is not None or expires_at is not None
    dated = issued_at is not None or (expires_at is not None and life is not None)
    life_known = life is not None or expires_at is not None
    if issued_at is None:
        issued_at = now if expires_at is None else min(now, expires_at - (life or UNKNOWN_LIFE))
    if expires_at is None:
        expires_at = issued_at + (life or UNKNOWN_LIFE)
    if expires_at <= issued_at:
        raise BadLineError("the access token ends before it was issued")
    if expires_at - issued_at > LONGEST_ACCESS_LIFE:
        raise BadLineError("the access token's life is longer than a year")
    refresh_expires_at = line.refresh_end(issued_at)
    if refresh_expires_at is not None and refresh_expires_at <= now:
        raise BadLineError("the refresh token has ended; the creator must authorize again")
    creator_id, scope, reference = line.creator_id(), line.scope(), line.reference()
    access_token, refresh_token = line.token("access"), line.token("refresh")
    _refuse_mixed_up(creator_id, scope, reference or "", access_token, refresh_token)
    return ImportedPair(
        creator_id=creator_id,
        access_token=access_token,
        refresh_token=refresh_token,
        scope=scope,
        issued_at=issued_at,
        access_expires_at=expires_at,
        refresh_expires_at=refresh_expires_at,
        age_known=age_known,
        dated=dated,
        life_known=life_known,
        usual=_begins(access_token, ACCESS_START) and _begins(refresh_token, REFRESH_START),
        reference=reference,
        zoneless=line.zoneless,
    )


class _Line:
    """The fields of one line, by our names."""

    def __init__(self, fields: Mapping[str, Any], names: FieldNames) -> None:
        self._fields = {str(name).strip().lower(): (str(name).strip(), value) for name, value in fields.items()}
        self._names = names
        self.zoneless = False

    def creator_id(self) -> str:
        found: set[str] = set()
        for name, value in self._values("creator"):
            if isinstance(value, float):
                raise BadLineError(f"{name} is not a text; a number with a fraction or exponent has lost digits")
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise BadLineError(f"{name} is not a text")
            found.add(str(value).strip())
        if not found:
            first, *others = map(self._shown, self._names.of("creator"))
            raise BadLineError(f"{first} (or {', '.join(others)}) is missing" if others else f"{first} is missing")
        if len(found) > 1:
            raise BadLineError(f"{', '.join(name for name, _ in self._values('creator'))} differ")
        creator_id = found.pop()
        damage = creator_ids.damage_of(creator_id)
        if damage is not None:
            raise BadLineError(f"the creator's id is {damage}; export this column as text")
        return creator_id

    def token(self, field: str) -> Token:
        name, value = next(self._values(field), (self._shown(self._names.of(field)[0]), None))
        if value is None:
            raise BadLineError(f"{name} is missing")
        if not isinstance(value, str):
            raise BadLineError(f"{name} is not a text")
        text = value.strip()
        if _MASK.fullmatch(text) or _WRAPPED.fullmatch(text):
            raise BadLineError(f"{name} is masked or a placeholder, not a token")
        if _QUOTES & {text[0], text[-1]}:
            raise BadLineError(f"{name} is in quotes, which are not a part of a token")
        if len(text) > LONGEST_TOKEN:
            raise BadLineError(f"{name} is longer than {LONGEST_TOKEN} characters")
        if not _is_plain(text):
            raise BadLineError(f"{name} holds a blank or a character that is not ASCII, which no token does")
        if _PERCENT.search(text):
            raise BadLineError(f"{name} is percent-encoded; decode it once")
        if text.lower() in {ACCESS_START, REFRESH_START, name.lower()}:
            raise BadLineError(f"{name} is a placeholder, not a token")
        return Token(text)

    def scope(self) -> str:
        name, value = next(self._values("scope"), ("scope", ""))
        parts = _SCOPE_MARKS.sub(" ", value).split() if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            raise BadLineError(f"{name} is neither a text nor a list of texts")
        if not all(map(_is_plain, parts)):
            raise BadLineError(f"{name} holds a blank or a character that is not ASCII, which no scope does")
        return ",".join(sorted(set(parts)))

    def refresh_end(self, issued_at: datetime) -> datetime | None:
        life = self.seconds("refresh_expires_in", LONGEST_REFRESH_LIFE)
        return self.instant("refresh_expires_at") or (None if life is None else issued_at + life)

    def reference(self) -> str | None:
        for name, value in self._values("reference"):
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise BadLineError(f"{name} is not a text")
            text = str(value).strip()
            if len(text) > LONGEST_REFERENCE or not text.isprintable():
                raise BadLineError(f"{name} is longer than {LONGEST_REFERENCE} characters or cannot be printed")
            return text
        return None

    def seconds(self, field: str, longest: timedelta) -> timedelta | None:
        for name, value in self._values(field):
            seconds = _number(value)
            if seconds is None or not 0 < seconds <= longest.total_seconds():
                raise BadLineError(f"{name} is not a number of seconds from 1 to {longest.days} days")
            return timedelta(seconds=seconds)
        return None

    def instant(self, field: str) -> datetime | None:
        for name, value in self._values(field):
            at = _instant(name, value)
            self.zoneless = self.zoneless or at.tzinfo is None
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return None

    def _shown(self, name: str) -> str:
        """Return a name as the line has it, else as it was mapped."""
        return self._fields[name][0] if name in self._fields else self._names.typed(name)

    def _values(self, field: str) -> Any:
        """Yield the names, as the file has them, and values of a field that are present and not empty."""
        for name in self._names.of(field):
            written, value = self._fields.get(name, (name, None))
            if not is_nothing(value):
                yield written, value


def _refuse_mixed_up(creator_id: str, scope: str, reference: str, access: Token, refresh: Token) -> None:
    """Refuse a line whose columns have changed places: a token would be stored and shown as something else."""
    for name, text in (("the creator's id", creator_id), ("scope", scope), ("reference", reference)):
        parts = text.split(",")
        starts = (ACCESS_START, REFRESH_START)
        if any(part.startswith(starts) or Token(part) in (access, refresh) for part in parts if part):
            raise BadLineError(f"{name} looks like a token; two columns may have changed places")
    if access == refresh:
        raise BadLineError("access_token and refresh_token are the same text")
    if _begins(access, REFRESH_START) or _begins(refresh, ACCESS_START):
        raise BadLineError(
            f"access_token begins with {REFRESH_START} or refresh_token with {ACCESS_START}; two columns may have "
            "changed places"
        )


def _begins(token: Token, start: str) -> bool:
    return token.reveal().startswith(start)


def is_nothing(value: object) -> bool:
    """Return True if a value is missing, or is a word for a missing value."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _EMPTY)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _instant(name: str, value: object) -> datetime:
    """Return an instant, without a zone if the value names none."""
    number = _number(value)
    if number is not None:
        if number >= _MICROSECONDS_FROM:
            raise BadLineError(f"{name} is not a number of seconds or milliseconds since 1970")
        seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
        instant = since = datetime.fromtimestamp(max(seconds, 0), tz=UTC)
    else:
        try:
            instant = datetime.fromisoformat(value.strip())  # type: ignore[attr-defined]  # anything else is caught
            since = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
        except (ValueError, AttributeError, OverflowError):
            raise BadLineError(
                f"{name} is neither ISO 8601, such as 2026-11-27T10:15:00+02:00, nor seconds or milliseconds since 1970"
            ) from None
    if since < OLDEST:
        raise BadLineError(f"{name} lies before {OLDEST.year}")
    return instant


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
