"""How an attempt ends: its pair stored, its failure judged, its journal records released, in that order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypedDict

from worker.errors import (
    JournalError,
    NotReadyError,
    SealError,
    StopEveryoneError,
    StoreUnavailableError,
    TikTokError,
    WaitError,
)
from worker.journal import Journal, RecordId
from worker.limiter import Limiter
from worker.policy.verdicts import Action, Standing, Verdict, judge, retry, spare
from worker.refresh.attempt import Climb
from worker.refresh.brake import Brake
from worker.refresh.call import Called
from worker.refresh.commits import PatientCommits
from worker.refresh.settlement import Attempt, MisfitError, Settlement
from worker.store import AttemptOutcome, Claim, GrantStatus, Saved, Store
from worker.telemetry import Fact, FactValue, Hook
from worker.vault import Token

Kind = Literal["refreshed", "superseded", "skipped", "denied", "braked", "not_ready", "failed", "left_over"]
"""`skipped`: nothing to do; `denied`: no permit now; `superseded`: somebody else's newer pair is current;
`left_over`: TikTok answered and the database has yet to take it."""


@dataclass(frozen=True)
class Refreshed:
    """What became of one refresh.

    Attributes:
        wait_seconds: for `denied`, when a permit is likely, in seconds.
        reason: why, in words for people.
    """

    grant_id: int
    kind: Kind
    wait_seconds: float = 0.0
    reason: str = ""


UNREAD: Final = "TikTok's answer held a refresh token and could not be stored; it is kept aside in the journal"
STUCK_FAILURES: Final = 3
"""After so many failures in a row, of which the last speaks of our app or request, an alarm tells of the one grant."""


class _Told(TypedDict):
    """What TikTok told of a failure, for the attempt's row."""

    reason: str
    code: int | None
    http_status: int | None
    request_id: str | None


class Endings:
    """Writes the outcome of attempts to the database, however long that takes."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        limiter: Limiter,
        brake: Brake,
        settlement: Settlement,
        commits: PatientCommits,
        hook: Hook,
        revoke: Callable[[Token], None],
        failpoint: Callable[[str], None],
    ) -> None:
        self._store = store
        self._journal = journal
        self._limiter = limiter
        self._brake = brake
        self._settlement = settlement
        self._commits = commits
        self._hook = hook
        self._revoke = revoke
        self._failpoint = failpoint

    def save(self, climb: Climb, call: Called) -> Refreshed:
        """Store the pair that a call brought."""
        claim, answer = climb.claim, call.answer
        if answer is None:
            raise ValueError("only a call with an answer can be saved")
        attempt = Attempt(
            claim.grant_id, claim.creator_id, claim.consent, claim.generation, call.sent_at, claim.jitter, claim.scope
        )
        try:
            pair = self._settlement.new_pair(attempt, answer, old_refresh=call.sent)
        except MisfitError as error:
            return self._misfit(climb, call, error)
        saved: list[Saved] = []

        def write() -> None:
            saved.append(self._settlement.store_pair(attempt, pair, answer, old_refresh=call.sent))
            self._failpoint("post_commit")
            self._release(climb)

        self._failpoint("pre_commit")
        if not self._commits.run(write, until_done=not call.journaled):
            return self._left_over(claim)
        self._brake.succeeded()
        if saved[-1].status is GrantStatus.REVOKED:
            self._end_at_tiktok(claim, answer.access_token)
        return Refreshed(claim.grant_id, "refreshed" if saved[-1].moved else "superseded")

    def _end_at_tiktok(self, claim: Claim, access: Token) -> None:
        """Revoke a pair that came after its grant had been revoked here: nobody will use it."""
        try:
            self._revoke(access)
        except (TikTokError, NotReadyError) as error:
            code = error.code if isinstance(error, TikTokError) else None
            self._hook(Fact("grant.revoke_failed", {"grant_id": claim.grant_id, "code": code}, level="warning"))

    def fail(self, climb: Climb, error: TikTokError) -> Refreshed:
        """Judge a failed attempt and write the verdict; nothing is marked while the whole app is in trouble."""
        claim = climb.claim
        if isinstance(error, WaitError):
            self._limiter.punish(error.scope, error.seconds)
        stopped = self._weigh(error, claim)
        standing = _standing(climb)
        verdict = judge(error, standing)
        if stopped:
            verdict = spare(verdict, standing)
        outcome = AttemptOutcome.IN_DOUBT if climb.in_doubt else AttemptOutcome(verdict.outcome)

        def write() -> None:
            self._end(claim, verdict, outcome, error)
            self._release(climb)

        if not self._commits.run(write):
            return self._left_over(claim)
        if any(call.unread for call in climb.calls):
            self._alarm(claim, "misfit", f"misfit:{claim.grant_id}:{claim.generation}", UNREAD)
        self._hook(
            Fact(
                f"refresh.{outcome}" if verdict.action is not Action.ASK else "refresh.reauth_asked",
                {
                    "grant_id": claim.grant_id,
                    "creator_id": claim.creator_id,
                    "generation": claim.generation,
                    "code": error.code,
                    "request_id": error.request_id,
                    "reason": verdict.reason,
                    "next_refresh_at": verdict.at.isoformat(timespec="seconds"),
                },
                level="warning",
            )
        )
        if isinstance(error, StopEveryoneError) and not stopped and claim.failures + 1 >= STUCK_FAILURES:
            pair = f"{claim.grant_id}:{claim.consent}.{claim.pair_generation}"
            self._alarm(claim, "stuck", f"stuck:{pair}", f"TikTok refuses this grant's requests: {verdict.reason}")
        return Refreshed(claim.grant_id, "failed", reason=verdict.reason)

    def unreadable(self, climb: Climb, error: SealError) -> Refreshed:
        """End an attempt whose stored pair does not open: one alarm, and the creator is not marked."""
        claim = climb.claim
        self._give_back(climb, AttemptOutcome.NOT_SENT, str(error))
        pair = f"{claim.grant_id}:{claim.consent}.{claim.pair_generation}"
        self._alarm(claim, "unreadable", f"unreadable:{pair}", str(error))
        return Refreshed(claim.grant_id, "failed", reason=str(error))

    def _misfit(self, climb: Climb, call: Called, error: MisfitError) -> Refreshed:
        claim = climb.claim
        self._give_back(climb, AttemptOutcome.MISFIT, str(error))
        if call.record is not None:
            self._set_aside(call.record)
        self._release(climb)
        if claim.unproven and call.answer is not None:
            self._hold(claim, call.answer.creator_id)
        self._alarm(claim, "misfit", f"misfit:{claim.grant_id}:{claim.generation}", str(error))
        return Refreshed(claim.grant_id, "failed", reason=str(error))

    def _hold(self, claim: Claim, belongs_to: str) -> None:
        """Hold back an imported pair whose refresh has shown that it is another creator's."""
        pair = (claim.grant_id, claim.consent, claim.pair_generation)
        self._commits.run(lambda: self._store.hold_pair(*pair, belongs_to=belongs_to))

    def _alarm(self, claim: Claim, kind: str, key: str, reason: str) -> None:
        def write() -> None:
            self._store.raise_alarm(key, kind, reason, grant_id=claim.grant_id)

        self._commits.run(write)
        fields: dict[str, FactValue] = {"grant_id": claim.grant_id, "creator_id": claim.creator_id, "reason": reason}
        self._hook(Fact(f"refresh.{kind}", fields, level="error"))

    def _left_over(self, claim: Claim) -> Refreshed:
        reason = "TikTok answered and the database is away; the result is written when it is back"
        self._hook(Fact("refresh.left_over", {"grant_id": claim.grant_id, "reason": reason}, level="error"))
        return Refreshed(claim.grant_id, "left_over", reason=reason)

    def _weigh(self, error: TikTokError, claim: Claim) -> str | None:
        try:
            return self._brake.considers(error, grant_id=claim.grant_id, failures=claim.failures)
        except StoreUnavailableError:
            return "the database is away, so nothing is known of the other grants"

    def _give_back(self, climb: Climb, outcome: AttemptOutcome, reason: str) -> None:
        verdict = retry(outcome, reason, _standing(climb))
        self._commits.run(lambda: self._end(climb.claim, verdict, outcome, None))

    def _end(self, claim: Claim, verdict: Verdict, outcome: AttemptOutcome, error: TikTokError | None) -> None:
        told = _Told(
            reason=verdict.reason,
            code=None if error is None else error.code,
            http_status=None if error is None else error.http_status,
            request_id=None if error is None else error.request_id,
        )
        if verdict.action is Action.ASK:
            self._store.ask_reauth(claim, **told)
        elif verdict.action is Action.SUSPECT:
            self._store.suspect(claim, outcome=outcome, next_refresh_at=verdict.at, **told)
        else:
            self._store.release(claim, outcome=outcome, next_refresh_at=verdict.at, failed=verdict.failed, **told)

    def _release(self, climb: Climb) -> None:
        for call in climb.calls:
            if call.record is not None and call.unread:
                self._set_aside(call.record)
            elif call.record is not None:
                self._journal.release(call.record)
            if call.earlier is not None:
                self._journal.release(call.earlier)

    def _set_aside(self, record: RecordId) -> None:
        try:
            self._journal.set_aside(record)
        except JournalError as error:
            self._hook(Fact("journal.failed", {"reason": str(error)}, level="error"))


def _standing(climb: Climb) -> Standing:
    claim = climb.claim
    return Standing(
        now=climb.now,
        access_expires_at=claim.access_expires_at,
        refresh_expires_at=claim.refresh_expires_at,
        failures=claim.failures,
        suspect=claim.status is GrantStatus.SUSPECT,
        unresolved=climb.unresolved,
        draw=random.random(),  # noqa: S311 - spreads load
    )
