"""What TikTok's answers to refreshes show of its contract, and when a difference is a change: pure.

The contract is a set of terms, each a name with a value as text: how long tokens live, whether the refresh token is
replaced, which fields an answer has, and which scopes are given. One odd answer is no change: it takes answers to
several grants, with none in between that says what was known before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

ACCESS_LIFE: Final = "access_seconds"
REFRESH_LIFE: Final = "refresh_seconds"
REFRESH_ROLLS: Final = "refresh_end_moves"
ROTATES: Final = "refresh_token_rotates"
FIELDS: Final = "fields"
SCOPE: Final = "scope "
"""What a term about a scope begins with; the scope's name follows."""
YES: Final = "yes"
NO: Final = "no"
NEEDED: Final = 3
"""Grants whose answers must say so; in a smaller fleet as many answers."""
SAME_LIFE: Final = 0.05
"""Lives that differ by less than this part are one: answers may tell the time left."""
SAME_END_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Term:
    """What is known of a term.

    Attributes:
        value: what holds.
        odd: another value that answers have told lately without a break; None if there is none.
        odd_grants: the grants whose answers told it.
    """

    value: str
    odd: str | None = None
    odd_grants: tuple[int, ...] = ()


@dataclass(frozen=True)
class Change:
    """A term that holds no more as it was known.

    Attributes:
        told: a sentence for people.
    """

    term: str
    before: str
    now: str
    told: str


def terms_of(
    *,
    access_seconds: int | None,
    refresh_seconds: int | None,
    refresh_ended_at: datetime | None,
    refresh_ends_at: datetime | None,
    rotated: bool,
    fields: Collection[str],
    scope_before: Iterable[str],
    scope: Iterable[str] | None,
) -> dict[str, str]:
    """Return the terms that the answer to a refresh shows; what it does not show is left out.

    Args:
        access_seconds: the access token's life.
        refresh_seconds: the seconds that are left of the refresh token.
        refresh_ended_at: the end of the refresh token before, if it is known from TikTok.
        refresh_ends_at: the end of the new one.
        rotated: True if the refresh token was replaced.
        fields: names of the fields of the answer; empty if they are not known.
        scope_before: the scopes of the grant before.
        scope: the scopes in the answer; None if it named none.
    """
    terms = {ROTATES: YES if rotated else NO}
    if access_seconds is not None:
        terms[ACCESS_LIFE] = str(access_seconds)
    if refresh_seconds is not None and refresh_ended_at is not None and refresh_ends_at is not None:
        moved = abs((refresh_ends_at - refresh_ended_at).total_seconds()) > SAME_END_SECONDS
        terms[REFRESH_ROLLS] = YES if moved else NO
        if moved:  # else it is what is left until an end that stands, and less each time
            terms[REFRESH_LIFE] = str(refresh_seconds)
    if fields:
        terms[FIELDS] = ",".join(sorted(fields))
    if scope is not None:
        given = set(scope)
        terms |= {f"{SCOPE}{name}": YES if name in given else NO for name in scope_before if name}
    return terms


def agrees(term: str, known: str, seen: str) -> bool:
    """Return True if a value is the one that is known, give or take what answers vary by."""
    if term in {ACCESS_LIFE, REFRESH_LIFE}:
        return abs(int(known) - int(seen)) <= SAME_LIFE * max(int(known), int(seen))
    return known == seen


def weigh(known: Term | None, term: str, seen: str, grant_id: int, *, fleet: int) -> Term:
    """Return what is known of a term after one more answer.

    Args:
        known: what was known; None if nothing.
        term: its name.
        seen: the value in the answer.
        grant_id: the grant whose answer it is.
        fleet: how many grants there are.
    """
    if known is None:
        known = Term(YES if term.startswith(SCOPE) else seen)  # who misses a scope had it before
    if agrees(term, known.value, seen):
        return Term(known.value)
    again = known.odd is not None and agrees(term, known.odd, seen)
    grants = (*known.odd_grants, grant_id) if again else (grant_id,)
    if fleet >= NEEDED or term.startswith(SCOPE):
        # One creator may take a scope back; it takes several for the app to have lost it, however small the fleet.
        grants = tuple(dict.fromkeys(grants))
    return Term(seen) if len(grants) >= NEEDED else Term(known.value, seen, grants)


def change_of(term: str, before: str, now: str) -> Change:
    """Return a change with its sentence."""
    if term == ACCESS_LIFE:
        told = f"access tokens live {_span(now)}, and lived {_span(before)}: refreshes are planned by the new life"
    elif term == REFRESH_LIFE:
        told = f"refresh tokens live {_span(now)}, and lived {_span(before)}"
    elif term == REFRESH_ROLLS:
        told = (
            "each refresh moves the end of the refresh token ahead; before, the end stood from the consent on"
            if now == YES
            else "refreshes no longer move the end of the refresh token: creators have to authorize again before it"
        )
    elif term == ROTATES:
        told = f"a refresh {'brings another' if now == YES else 'no longer replaces the'} refresh token"
    elif term.startswith(SCOPE):
        name = term.removeprefix(SCOPE)
        told = (
            f"the scope {name} is given again"
            if now == YES
            else f"answers no longer have the scope {name}: what needs it is not pulled"
        )
    else:
        old, new = set(before.split(",")), set(now.split(","))
        parts = [f"gone are {', '.join(sorted(old - new))}"] if old - new else []
        parts += [f"new are {', '.join(sorted(new - old))}"] if new - old else []
        told = f"the fields of an answer to a refresh are others: {'; '.join(parts)}"
    return Change(term, before, now, told)


def _span(seconds: str) -> str:
    """Return a life for people, in the largest unit that fits it."""
    left = int(seconds)
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if left >= size:
            return f"{left / size:.4g} {name}"
    return f"{left} s"
