"""A fleet's life on a virtual clock: the real policy code, each grant on its own, one minute a step, and no I/O.

Exact: which grants are refreshed in which minute, in the scan's order (least time left first, failing grants behind),
under the limiter's sustained rate. The daemon's own code decides renewal times, verdicts and the brake; a grant's
period is computed once for each length of life, since it is always the same. Left out: what happens within a minute,
the time that a call takes, and faults of single creators.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from worker.errors import AskCreatorError, BackOffError, TikTokError
from worker.planning.course import Course
from worker.planning.scenarios import Change, Scenario
from worker.planning.simulation_fleet import STEP, Fleet, Party, Waiting, steps_of
from worker.planning.simulation_trouble import Trouble
from worker.policy import quota, renewal

FAILING_SHARE: Final = 0.1
"""Part of a step's permits that goes to failing grants while healthy ones wait, as in the scan."""
PROBES: Final = 2
"""Attempts in a step while the brake is on: one each half minute."""
CALL: Final = "refresh"
SYSTEM_ERROR: Final = 50_000
CONSENT_ENDED: Final = 40_103


def simulate(scenario: Scenario) -> Course:
    """Run a fleet through a scenario; the same scenario always gives the same course."""
    simulation = _Simulation(scenario)
    for now in range(steps_of(scenario.seconds)):
        simulation.step(now)
    return simulation.course


class _Simulation:
    def __init__(self, scenario: Scenario) -> None:
        self.course = Course()
        self._scenario = scenario
        lives = [scenario.life, *(change.value for change in scenario.lives)]
        self._fleet = Fleet(scenario.creators, renew_at=scenario.renew_at, longest_life=max(lives))
        self._fleet.consent(range(scenario.creators), 0, life=scenario.life)
        self._waiting, self._trouble = Waiting(), Trouble()
        self._waits: dict[int, int] = {}
        self._asked: set[int] = set()
        self._dark, self._pulls, self._carry = 0, 0, 0.0
        self._consent_ends = _consent_ends(scenario)
        self._first_end = min(self._consent_ends, default=math.inf)
        self._answers = _answers(scenario, self._consent_ends)

    def step(self, now: int) -> None:
        """Simulate one minute."""
        scenario, seconds, trouble = self._scenario, now * STEP, self._trouble
        tally = trouble.begin(now)
        life = _current(scenario.lives, seconds, scenario.life)
        permits = self._permits(_current(scenario.quotas, seconds, 1.0))
        down = any(begin <= seconds < end for begin, end in scenario.outages)
        due = self._fleet.arrive(now)
        self._authorize(now, life)
        room = max(permits - tally.authorized, 0)
        crowded = self._waits or trouble or sum(len(party.grants) for party in due) > room
        if crowded or down or trouble.braked or now >= self._first_end:
            for party in due:
                self._waiting.add(party.grants, party.end)
                self._waits.update(dict.fromkeys(party.grants, party.end))
            self._darken(now)
            self._serve(now, room, life=life, down=down)
        else:
            tally.refreshed = self._fleet.refresh(due, now, life=life)
        self._note(permits)

    def _serve(self, now: int, room: int, *, life: float, down: bool) -> None:
        if self._trouble.braked:
            self._try(self._urgent(PROBES, now), now, life=life, down=down)
            # The probe that releases the brake comes at most half a step after the end of the trouble.
            room = 0 if self._trouble.braked else room // 2
        self._try(self._urgent(room, now), now, life=life, down=down)

    def _urgent(self, limit: int, now: int) -> list[Party]:
        """Take the most urgent grants: healthy ones first, and only few failing ones while healthy ones wait."""
        failing = self._trouble.waiting
        room = max(limit - self._waiting.count, min(math.ceil(limit * FAILING_SHARE), failing.count))
        room = min(room, limit, failing.count)
        return self._waiting.take(limit - room, now) + failing.take(room, now)

    def _try(self, batch: list[Party], now: int, *, life: float, down: bool) -> None:
        """Send a refresh for each grant; if that pulls the brake, the rest goes on waiting."""
        braked, refreshed = self._trouble.braked, Party([], now)
        for place, party in enumerate(batch):
            for nth, grant in enumerate(party.grants, 1):
                if party.end not in {self._waits.get(grant), self._trouble.end_of(grant)}:
                    continue  # authorized again while it waited
                error = self._error(grant, now, down=down)
                if error is None:
                    self._settle(grant, now)
                    refreshed.grants.append(grant)
                    self._trouble.tally.refreshed += 1
                    self._trouble.braked = False
                    continue
                self._fail(grant, party.end, now, error)
                if self._trouble.braked and not braked:
                    self._put_back([Party(party.grants[nth:], party.end), *batch[place + 1 :]])
                    self._fleet.refresh([refreshed], now, life=life)
                    return
        self._fleet.refresh([refreshed], now, life=life)

    def _error(self, grant: int, now: int, *, down: bool) -> TikTokError | None:
        if down:
            return BackOffError("TikTok is down", call=CALL, code=SYSTEM_ERROR)
        if now >= self._first_end and self._consent_ends[grant] <= now:
            return AskCreatorError("the consent has ended", call=CALL, code=CONSENT_ENDED)
        return None

    def _fail(self, grant: int, end: int, now: int, error: TikTokError) -> None:
        self._waits.pop(grant, None)
        consent_end = self._consent_ends[grant] if self._consent_ends else None
        if self._trouble.fail(grant, end, now, error, consent_end=consent_end):
            self._settle(grant, now)
            self._asked.add(grant)

    def _settle(self, grant: int, now: int) -> None:
        """Mark a grant as neither waiting nor failing."""
        end = self._waits.pop(grant, None) or self._trouble.end_of(grant)
        self._trouble.forget(grant)
        self._dark -= end is not None and end <= now

    def _put_back(self, batch: Iterable[Party]) -> None:
        for party in batch:
            self._waiting.add([grant for grant in party.grants if grant in self._waits], party.end)
            self._trouble.waiting.add([grant for grant in party.grants if grant in self._trouble], party.end)

    def _authorize(self, now: int, life: float) -> None:
        """Renew the consents of the creators who authorize again in this step."""
        answering = self._answers.pop(now, [])
        for grant in answering:
            self._asked.discard(grant)
            self._settle(grant, now)
            self._consent_ends[grant] = now + steps_of(self._scenario.consent or 0)
        self._fleet.consent(answering, now, life=life)
        self._trouble.tally.authorized = len(answering)

    def _darken(self, now: int) -> None:
        """Count the tokens that end in this step."""
        waiting = sum(self._waits.get(grant) == now for grant in self._waiting.ending(now))
        self._trouble.tally.darkened = waiting + self._trouble.ending(now)
        self._dark += self._trouble.tally.darkened

    def _permits(self, factor: float) -> int:
        usable = quota.usable_rate(
            per_second=self._scenario.per_second * factor, per_minute=self._scenario.per_minute * factor
        )
        self._carry += usable * STEP
        permits = int(self._carry)
        self._carry -= permits
        return permits

    def _note(self, permits: int) -> None:
        tally, course = self._trouble.tally, self.course
        self._pulls = min(self._pulls + tally.refreshed, self._scenario.creators) if self._scenario.pulls else 0
        spent = tally.refreshed + tally.failed + tally.authorized
        pulled = min(self._pulls, max(permits - spent, 0))
        self._pulls -= pulled
        course.permits.append(permits)
        course.refreshed.append(tally.refreshed)
        course.pulled.append(pulled)
        course.failed.append(tally.failed)
        course.waiting.append(self._waiting.count + self._trouble.waiting.count)
        course.darkened.append(tally.darkened)
        course.dark.append(self._dark)
        course.braked.append(self._trouble.braked)
        course.asked.append(len(self._asked))
        course.authorized.append(tally.authorized)


def _consent_ends(scenario: Scenario) -> array[int]:
    """Return the step in which each grant's consent ends; empty if none ends."""
    if scenario.consent is None:
        return array("q")
    first, campaign = steps_of(scenario.consent), steps_of(scenario.campaign)
    return array("q", (first + campaign * grant // scenario.creators for grant in range(scenario.creators)))


def _answers(scenario: Scenario, ends: array[int]) -> defaultdict[int, list[int]]:
    """Return the creators who authorize again in each step: a share of them, evenly over the notice before the end."""
    answers: defaultdict[int, list[int]] = defaultdict(list)
    notice = steps_of(scenario.notice)
    for grant, end in enumerate(ends):
        share = renewal.draw_jitter(grant + 1)
        if share < scenario.answering:
            answers[max(end - notice + int(notice * share / scenario.answering), 1)].append(grant)
    return answers


def _current(changes: Iterable[Change], seconds: float, value: float) -> float:
    for change in changes:
        if seconds >= change.at:
            value = change.value
    return value
