"""The failing grants of a simulation, and the app's brake, judged by the daemon's own policy code."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Final

from worker.errors import TikTokError
from worker.planning.simulation_fleet import STEP, Waiting, moment, step_at
from worker.policy import renewal
from worker.policy.verdicts import (
    BRAKE_WINDOW,
    Action,
    AttemptOutcome,
    FleetEvidence,
    Standing,
    Verdict,
    brake_reason,
    hold_reason,
    judge,
    spare,
)

WINDOW: Final = int(BRAKE_WINDOW.total_seconds() // STEP)


@dataclass
class Tally:
    """One step's counts.

    Attributes:
        refreshed: attempts that brought a pair.
        failed: attempts that brought none.
        troubled: failed attempts that point to trouble at TikTok.
        refused: failed attempts that TikTok refused before the consent's end.
        darkened: access tokens that ended.
        authorized: new consents.
    """

    refreshed: int = 0
    failed: int = 0
    troubled: int = 0
    refused: int = 0
    darkened: int = 0
    authorized: int = 0


@dataclass
class _State:
    end: int
    failures: int = 0
    suspect: bool = False
    retry: int = 0


class Trouble:
    """The grants that failed since their last pair, when each is tried again, and whether the whole app is stopped.

    Attributes:
        braked: True if only probes are sent.
        waiting: failing grants whose next try is due.
        tally: the counts of the current step.
    """

    def __init__(self) -> None:
        """Begin without failing grants."""
        self.braked = False
        self.waiting = Waiting()
        self.tally = Tally()
        self._states: dict[int, _State] = {}
        self._retries: defaultdict[int, list[int]] = defaultdict(list)
        self._recent: deque[Tally] = deque(maxlen=WINDOW)
        self._draws = 0

    def __contains__(self, grant: int) -> bool:
        """Return True for a failing grant."""
        return grant in self._states

    def __len__(self) -> int:
        """Return how many grants are failing."""
        return len(self._states)

    def begin(self, now: int) -> Tally:
        """Begin a step: grants whose retry is due wait for a permit."""
        self.tally = Tally()
        self._recent.append(self.tally)
        for grant in self._retries.pop(now, ()):
            state = self._states.get(grant)
            if state is not None and state.retry == now:
                self.waiting.add([grant], state.end)
        return self.tally

    def end_of(self, grant: int) -> int | None:
        """Return when the access token of a failing grant ends; None for others."""
        state = self._states.get(grant)
        return None if state is None else state.end

    def ending(self, now: int) -> int:
        """Return how many tokens of failing grants end in this step."""
        return sum(state.end == now for state in self._states.values())

    def forget(self, grant: int) -> None:
        """Remove a grant: it has a new pair, or is to be authorized again."""
        self._states.pop(grant, None)

    def fail(self, grant: int, end: int, now: int, error: TikTokError, *, consent_end: int | None) -> bool:
        """Judge a failed attempt as the daemon does; return True if the creator is to be asked."""
        state = self._states.setdefault(grant, _State(end))
        self._draws += 1
        standing = Standing(
            now=moment(now),
            access_expires_at=moment(end),
            refresh_expires_at=None if consent_end is None else moment(consent_end),
            failures=state.failures,
            suspect=state.suspect,
            unresolved=False,
            draw=renewal.draw_jitter(self._draws),
        )
        verdict = judge(error, standing)
        self.tally.failed += 1
        foreseen = consent_end is not None and consent_end <= now
        self.tally.refused += (verdict.outcome is AttemptOutcome.REFUSED) and not foreseen
        self.tally.troubled += verdict.outcome in {AttemptOutcome.NOT_SENT, AttemptOutcome.IN_DOUBT}
        self.braked = self.braked or brake_reason(self._evidence(), error, failures=state.failures) is not None
        if self.braked or hold_reason(self._evidence()):
            verdict = spare(verdict, standing)
        if verdict.action is Action.ASK:
            return True
        self._obey(grant, now, state, verdict)
        return False

    def _obey(self, grant: int, now: int, state: _State, verdict: Verdict) -> None:
        state.failures += verdict.failed
        state.suspect = state.suspect or verdict.action is Action.SUSPECT
        state.retry = max(step_at(verdict.at), now + 1)
        self._retries[state.retry].append(grant)

    def _evidence(self) -> FleetEvidence:
        recent = self._recent
        troubled = sum(step.troubled for step in recent)
        return FleetEvidence(
            refreshed=sum(step.refreshed for step in recent),
            refused=sum(step.refused for step in recent),
            stopped=0,
            troubled=troubled,
            troubled_grants=troubled,
        )
