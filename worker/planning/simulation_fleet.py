"""The simulated fleet: in which step each grant is due and its token ends, and in which order waiting grants go.

Grants with the same due step, the same end of the token and the same period stay together, so they move through the
calendar as one party. A party is split when the quota or an answer separates its grants. Nothing is averaged.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Final

from worker.policy import renewal

STEP: Final = 60.0
"""Seconds of one step."""
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
ABOUT_TO_END: Final = 10
"""Steps; tokens that end within them go before those that have ended, as in the scan."""


def moment(step: int) -> datetime:
    """Return the begin of a step."""
    return START + timedelta(seconds=step * STEP)


def step_at(at: datetime) -> int:
    """Return the first step that begins at this time or later."""
    return -int((START - at).total_seconds() // STEP)


def steps_of(seconds: float) -> int:
    """Return a time as whole steps, at least one."""
    return max(1, round(seconds / STEP))


@dataclass(slots=True)
class Party:
    """Grants that move together.

    Attributes:
        grants: their numbers.
        end: the step in which their access tokens end.
        life: life of these tokens, in seconds; 0 if the grants have different periods.
        period: steps from a refresh to the next.
    """

    grants: list[int]
    end: int
    life: float = 0.0
    period: int = 0


class Waiting:
    """Grants that are due, by the step in which their access tokens end."""

    def __init__(self) -> None:
        """Begin empty."""
        self._by_end: defaultdict[int, list[int]] = defaultdict(list)
        self.count = 0

    def add(self, grants: Sequence[int], end: int) -> None:
        """Add waiting grants whose tokens end in the same step."""
        self._by_end[end].extend(grants)
        self.count += len(grants)

    def ending(self, now: int) -> list[int]:
        """Return the grants whose tokens end in this step."""
        return self._by_end.get(now, [])

    def take(self, limit: int, now: int) -> list[Party]:
        """Remove and return the most urgent grants, at most `limit`.

        Tokens that are about to end go first, then those that have ended, then the rest by the time they have left.
        """
        taken: list[Party] = []
        if not self.count or limit <= 0:
            return taken
        ends = sorted(self._by_end)
        ended, close = bisect_right(ends, now), bisect_right(ends, now + ABOUT_TO_END)
        for end in chain(ends[ended:close], ends[:ended], ends[close:]):
            there = self._by_end.pop(end)
            if len(there) > limit:
                self._by_end[end] = there[limit:]
                there = there[:limit]
            taken.append(Party(there, end))
            self.count -= len(there)
            limit -= len(there)
            if limit == 0:
                break
        return taken


class Fleet:
    """Every grant's due time; grants are numbers from 0, times are steps."""

    def __init__(self, creators: int, *, renew_at: float, longest_life: float) -> None:
        """Make a fleet without consents; `consent` gives each grant its first pair.

        Args:
            creators: how many grants.
            renew_at: fraction of the life at which the renewal window begins.
            longest_life: longest life of an access token, in seconds.
        """
        self._creators, self._renew_at = creators, renew_at
        self._periods: dict[float, array[int]] = {}
        self._longest = steps_of(longest_life)
        self._calendar: list[list[Party]] = [[] for _ in range(self._longest + 2)]
        self._moved: dict[int, tuple[int, int]] = {}

    def consent(self, grants: Iterable[int], now: int, *, life: float) -> None:
        """Give grants the first pairs of a new consent; their earlier due times are void."""
        at, end = moment(now), now + steps_of(life)
        fresh: defaultdict[int, list[int]] = defaultdict(list)
        for grant in grants:
            first = renewal.first_refresh(
                issued_at=at,
                expires_at=at + timedelta(seconds=life),
                now=at,
                renew_at=self._renew_at,
                jitter=renewal.draw_jitter(grant + 1),
            )
            due = max(step_at(first.at), now + 1)
            fresh[due].append(grant)
            if now:
                self._moved[grant] = due, now + self._longest
        for due, together in fresh.items():
            self._calendar[due % len(self._calendar)].append(Party(together, end))

    def arrive(self, now: int) -> list[Party]:
        """Remove the grants that are due now from the calendar, and return them."""
        slot = now % len(self._calendar)
        due, self._calendar[slot] = self._calendar[slot], []
        if not self._moved:
            return due
        for party in due:
            counting = [grant for grant in party.grants if self._counts(grant, now)]
            if len(counting) < len(party.grants):
                party.grants = counting
        return [party for party in due if party.grants]

    def refresh(self, parties: Iterable[Party], now: int, *, life: float) -> int:
        """Give grants new pairs, schedule each as the policy says, and return how many there were."""
        calendar, size, end, count = self._calendar, len(self._calendar), now + steps_of(life), 0
        for party in parties:
            count += len(party.grants)
            for alike in (party,) if party.life == life else self._parted(party, life):
                alike.end = end
                calendar[(now + alike.period) % size].append(alike)
                if self._moved:
                    self._move(alike, now)
        return count

    def _counts(self, grant: int, now: int) -> bool:
        """Return False for a calendar entry that is left over from an older consent."""
        due, until = self._moved.get(grant, (now, now + 1))
        if due == now and until <= now:
            del self._moved[grant]
        return due == now

    def _move(self, party: Party, now: int) -> None:
        for grant in party.grants:
            if grant in self._moved:
                self._moved[grant] = now + party.period, self._moved[grant][1]

    def _parted(self, party: Party, life: float) -> Iterable[Party]:
        """Split a party by the periods of its grants."""
        if life not in self._periods:
            self._periods[life] = array("q", (self._period(grant, life) for grant in range(self._creators)))
        periods = self._periods[life]
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for grant in party.grants:
            alike[periods[grant]].append(grant)
        return [Party(grants, party.end, life, period) for period, grants in alike.items()]

    def _period(self, grant: int, life: float) -> int:
        due = renewal.next_refresh(
            issued_at=START,
            expires_at=START + timedelta(seconds=life),
            renew_at=self._renew_at,
            jitter=renewal.draw_jitter(grant + 1),
        ).at
        return steps_of((due - START).total_seconds())
