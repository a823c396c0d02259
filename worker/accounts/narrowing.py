"""One refused field fails a whole request: find out which one, ask for the rest, and remember it for this creator.

TikTok refuses a field whose scope was not granted (40130), one that it does not know (40002) and one that it retired
(41002). Its message may name it. If it does not, halves of the fields are asked for, which takes about twice the
logarithm of their number in requests, once in a while.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from worker.accounts.resources import Resource
from worker.errors import GiveUpError, StopEveryoneError, TikTokError
from worker.tiktok import ReadAnswer

SCOPE_NOT_GRANTED: Final = 40130
BAD_PARAMETER: Final = 40002
REFUSALS: Final = frozenset({SCOPE_NOT_GRANTED, BAD_PARAMETER, 41002})
MOST_NAMED: Final = 3
"""A message that names more of our fields lists those that are valid."""
WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]*[A-Za-z0-9]")
OF_DAYS: Final = re.compile(r"\b(start_date|end_date|date range|time range|dates?)\b", re.IGNORECASE)

Send = Callable[[tuple[str, ...]], ReadAnswer]


@dataclass
class Asked:
    """An answer, and what it cost.

    Attributes:
        refused: the fields that TikTok refuses, each with the code.
    """

    answer: ReadAnswer
    fields: tuple[str, ...]
    refused: dict[str, int] = field(default_factory=dict)


def is_of_fields(error: TikTokError) -> bool:
    """Return True if a refusal may speak of a field of the request."""
    return error.code in REFUSALS and not is_of_days(error)


def is_of_days(error: TikTokError) -> bool:
    """Return True if a refusal speaks of the days that were asked for."""
    return error.code == BAD_PARAMETER and OF_DAYS.search(str(error)) is not None


def ask(resource: Resource, fields: Sequence[str], send: Send, *, suspects: Callable[[], set[str]]) -> Asked:
    """Ask for fields; if one is refused, find it and return the answer without it.

    Args:
        resource: what is asked for; its base is in every request.
        fields: what to ask for, the base included.
        send: sends one request.
        suspects: returns the fields that TikTok refuses for other creators.

    Raises:
        TikTokError: the base alone is refused, or the error is no refusal of a field.
    """
    wanted = tuple(fields)
    try:
        return Asked(send(wanted), wanted)
    except (GiveUpError, StopEveryoneError) as error:
        if not is_of_fields(error) or set(wanted) <= set(resource.base):
            raise
        refusal = error
    search = _Search(resource, wanted, send, refusal.code or 0)
    for guess in (_named(resource, wanted, str(refusal)), suspects(), resource.unofficial()):
        if (guess := (guess & set(wanted)) - set(resource.base)) and (found := search.without(guess)):
            return found
    return search.by_halves()


def _named(resource: Resource, fields: Sequence[str], text: str) -> set[str]:
    """Return the fields that a message names, by their own names or by their scope's."""
    words = set(WORD.findall(text))
    scopes = resource.scope_of()
    named = {name for name in fields if name in words}
    by_scope = {name for name in fields if scopes.get(name) in words}
    return by_scope or (named if len(named) <= MOST_NAMED else set())


class _Search:
    """The search for refused fields."""

    def __init__(self, resource: Resource, fields: Sequence[str], send: Send, code: int) -> None:
        self._base = resource.base
        self._scopes = resource.scope_of()
        self._fields = tuple(fields)
        self._send = send
        self._code = code
        self._good: list[str] = []
        self._refused: dict[str, int] = {}
        self._answer: ReadAnswer | None = None

    def without(self, refused: set[str]) -> Asked | None:
        """Return the answer without some fields, or None if that does not help."""
        rest = tuple(name for name in self._fields if name not in refused)
        answer = self._try(rest)
        return None if answer is None else Asked(answer, rest, dict.fromkeys(sorted(refused), self._code))

    def by_halves(self) -> Asked:
        """Return the answer with every field that is not refused."""
        self._answer = self._send(self._ordered(()))  # raises if the base is refused too: then no field is to blame
        groups: dict[str, list[str]] = {}
        for name in self._fields:
            if name not in self._base:
                group = self._scopes.get(name, "") if self._code == SCOPE_NOT_GRANTED else name
                groups.setdefault(group, []).append(name)
        self._split(list(groups.values()))
        return Asked(self._answer, self._ordered(self._good), self._refused)

    def _split(self, groups: list[list[str]]) -> None:
        names = [name for group in groups for name in group]
        answer = self._try(self._ordered([*self._good, *names]))
        if answer is not None:
            self._good += names
            self._answer = answer
        elif len(groups) == 1:
            self._refused |= dict.fromkeys(names, self._code)
        else:
            half = len(groups) // 2
            self._split(groups[:half])
            self._split(groups[half:])

    def _try(self, fields: tuple[str, ...]) -> ReadAnswer | None:
        try:
            return self._send(fields)
        except (GiveUpError, StopEveryoneError) as error:
            if not is_of_fields(error):
                raise
            return None

    def _ordered(self, names: Sequence[str]) -> tuple[str, ...]:
        wanted = {*self._base, *names}
        return tuple(name for name in self._fields if name in wanted)
