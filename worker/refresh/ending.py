"""How attempts end: pairs stored, failures judged, journal records released, in that order.

The pairs of a group are stored together. A record is released only when its pair has committed. If one row makes the
group fail, each pair is stored alone, so the others are stored.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, TypedDict

from worker.errors import (
    AskCreatorError,
    JournalError,
    SealError,
    StopEveryoneError,
    StoreUnavailableError,
    TikTokError,
    WaitError,
)
from worker.ground import Ground
from worker.journal import RecordId
from worker.policy.verdicts import (
    Action,
    AttemptOutcome,
    Cause,
    Standing,
    Verdict,
    cause_of,
    judge,
    retry,
    spare,
)
from worker.refresh.attempt import Attempt
from worker.refresh.brake import Brake
from worker.refresh.commits import PatientCommits
from worker.refresh.contract import ContractWatch
from worker.refresh.results import Failed, LeftOver, Refreshed, Result, Superseded
from worker.refresh.settlement import Answered, MisfitError, Settlement, narrowed_scopes
from worker.store import Claim, GrantStatus, NewPair, Saved
from worker.telemetry import SPANS, Fact, FactValue, Span
from worker.tiktok import DEAD_TOKEN_CODES, TOKEN_INFO_CALL, TokenAnswer
from worker.vault import PairPlace

UNREAD: Final = (
    "TikTok's answer held a refresh token and could not be stored; it is kept aside in the journal of {owner}, and the "
    "creator is not asked before `grants place` or `grants discard` has dealt with it"
)
STUCK_FAILURES: Final = 3
"""After this many failures in a row, the last one about our app or request, an alarm names the grant."""


class _Told(TypedDict):
    """What TikTok told of a failure, for the attempt's row."""

    reason: str
    code: int | None
    http_status: int | None
    request_id: str | None
    cause: Cause | None


class Ending:
    """Writes the outcome of attempts to the database, however long that takes."""

    def __init__(
        self, ground: Ground, *, brake: Brake, settlement: Settlement, commits: PatientCommits, watch: ContractWatch
    ) -> None:
        self._ground = ground
        self._watch = watch
        self._brake = brake
        self._settlement = settlement
        self._commits = commits

    def conclude(self, attempts: Sequence[Attempt]) -> list[Result]:
        """End attempts of distinct grants whose last call brought a pair, together."""
        results: list[Result] = []
        pairs: list[tuple[Answered, NewPair]] = []
        brought: list[Attempt] = []
        for attempt in attempts:
            answered = _answered(attempt)
            try:
                pairs.append((answered, self._settlement.seal(answered)))
                brought.append(attempt)
            except MisfitError as error:
                results.append(self._misfit(attempt, error))
        return results + self._store(brought, pairs) if brought else results

    def _store(self, attempts: Sequence[Attempt], pairs: Sequence[tuple[Answered, NewPair]]) -> list[Result]:
        saved: dict[int, Saved] = {}

        def write(places: Sequence[int]) -> None:
            with SPANS.over(Span("database.commit", {"pairs": len(places)})):
                stored = self._settlement.store([pairs[place] for place in places])
            saved.update(zip(places, stored, strict=True))
            self._ground.failpoint("post_commit")
            for place in places:
                self._release(attempts[place])

        self._ground.failpoint("pre_commit")
        everything = range(len(pairs))
        if len(pairs) == 1:
            self._commits.run(lambda: write(everything), until_done=not attempts[0].calls[-1].journaled)
        else:
            self._commits.run_group(lambda: write(everything), [partial(write, (place,)) for place in everything])
        self._watch.observe([pairs[place] for place in saved])
        for place in saved:
            if narrowed_scopes(pairs[place][0]):
                self._note_narrowed(attempts[place].claim)
        resumed = self._brake.succeeded() if saved else False
        return [self._result(attempts[place], saved.get(place), resumed=resumed) for place in everything]

    def _result(self, attempt: Attempt, saved: Saved | None, *, resumed: bool) -> Result:
        claim = attempt.claim
        if saved is None:
            return self._left_over(claim)
        return Refreshed(claim.grant_id, resumed=resumed) if saved.moved else Superseded(claim.grant_id)

    def fail(self, attempt: Attempt, error: TikTokError) -> Result:
        """Judge a failed attempt and write the verdict; nothing is marked while the whole app is in trouble."""
        claim = attempt.claim
        if isinstance(error, WaitError):
            self._ground.limiter.punish(error.scope, error.seconds)
        stopped = self._weigh(error, claim)
        standing = replace(_standing(attempt), aside=isinstance(error, AskCreatorError) and self._aside(attempt))
        lives = self._access_lives(attempt) if isinstance(error, AskCreatorError) and not stopped else None
        cause = cause_of(error, standing, access_lives=lives)
        verdict = judge(error, standing)
        if stopped:
            verdict = spare(verdict, standing)
        outcome = AttemptOutcome.IN_DOUBT if attempt.in_doubt else verdict.outcome

        def write() -> None:
            self._end(attempt, verdict, outcome, error, cause)
            self._release(attempt)

        if not self._commits.run(write):
            return self._left_over(claim)
        if any(call.unread for call in attempt.calls):
            told = UNREAD.format(owner=self._ground.owner)
            self._alarm(claim, "misfit", f"misfit:{claim.grant_id}:{claim.generation}", told)
        self._report_failure(claim, error, verdict, outcome, cause)
        if isinstance(error, StopEveryoneError) and not stopped and claim.failures + 1 >= STUCK_FAILURES:
            pair = f"{claim.grant_id}:{claim.consent}.{claim.pair_generation}"
            self._alarm(claim, "stuck", f"stuck:{pair}", f"TikTok refuses this grant's requests: {verdict.reason}")
        return Failed(claim.grant_id, verdict.reason, outcome)

    def _report_failure(
        self, claim: Claim, error: TikTokError, verdict: Verdict, outcome: AttemptOutcome, cause: Cause | None
    ) -> None:
        if cause is Cause.SHORTAGE_HERE:
            fields: dict[str, FactValue] = {"grant_id": claim.grant_id, "reason": verdict.reason}
            self._ground.hook(Fact("host.short", fields, level="error"))
        self._ground.hook(
            Fact(
                f"refresh.{outcome}" if verdict.action is not Action.ASK else "refresh.reauth_asked",
                {
                    "grant_id": claim.grant_id,
                    "creator_id": claim.creator_id,
                    "generation": claim.generation,
                    "code": error.code,
                    "request_id": error.request_id,
                    "reason": verdict.reason,
                    "verdict": cause,
                    "next_refresh_at": verdict.at.isoformat(timespec="seconds"),
                },
                level="warning",
            )
        )

    def unreadable(self, attempt: Attempt, error: SealError) -> Result:
        """End an attempt whose stored pair does not open: one alarm, and the creator is not marked."""
        claim = attempt.claim
        self._give_back(attempt, AttemptOutcome.NOT_SENT, str(error))
        pair = f"{claim.grant_id}:{claim.consent}.{claim.pair_generation}"
        self._alarm(claim, "unreadable", f"unreadable:{pair}", str(error))
        return Failed(claim.grant_id, str(error))

    def _misfit(self, attempt: Attempt, error: MisfitError) -> Result:
        claim = attempt.claim
        self._give_back(attempt, AttemptOutcome.MISFIT, str(error))
        record = attempt.calls[-1].record
        if record is not None:
            self._set_aside(record)
        self._release(attempt)
        if claim.unproven and attempt.pair is not None:
            self._hold(claim, attempt.pair.creator_id)
        self._alarm(claim, "misfit", f"misfit:{claim.grant_id}:{claim.generation}", str(error))
        return Failed(claim.grant_id, str(error), AttemptOutcome.MISFIT)

    def _hold(self, claim: Claim, belongs_to: str) -> None:
        """Hold an imported pair whose refresh has shown that it belongs to another creator."""
        pair = (claim.grant_id, claim.consent, claim.pair_generation)
        self._commits.run(lambda: self._ground.store.hold_pair(*pair, belongs_to=belongs_to))

    def _alarm(self, claim: Claim, kind: str, key: str, reason: str) -> None:
        def write() -> None:
            self._ground.store.raise_alarm(key, kind, reason, grant_id=claim.grant_id)

        self._commits.run(write)
        fields: dict[str, FactValue] = {"grant_id": claim.grant_id, "creator_id": claim.creator_id, "reason": reason}
        self._ground.hook(Fact(f"refresh.{kind}", fields, level="error"))

    def _left_over(self, claim: Claim) -> Result:
        reason = "TikTok answered and the database is away; the result is written when it is back"
        self._ground.hook(Fact("refresh.left_over", {"grant_id": claim.grant_id, "reason": reason}, level="error"))
        return LeftOver(claim.grant_id, reason)

    def _weigh(self, error: TikTokError, claim: Claim) -> str | None:
        try:
            return self._brake.considers(error, grant_id=claim.grant_id, failures=claim.failures)
        except StoreUnavailableError:
            return "the database is away, so nothing is known of the other grants"

    def _note_narrowed(self, claim: Claim) -> None:
        with suppress(StoreUnavailableError):  # the scopes themselves are stored; this is only said of them
            self._ground.store.note_narrowed(claim.grant_id, claim.consent, claim.generation)

    def _access_lives(self, attempt: Attempt) -> bool | None:
        """Ask TikTok whether it takes the access token of a grant whose refresh token it refused; None if unknown.

        It tells a consent that was taken back from a refresh token that somebody else has used. Only what the quota has
        to spare is spent on it.
        """
        claim = attempt.claim
        if claim.sealed is None or claim.access_expires_at <= attempt.now:
            return None
        try:
            access = self._ground.sealer.open_access(
                claim.sealed, PairPlace(claim.creator_id, claim.consent, claim.pair_generation)
            )
            if self._ground.limiter.admit(
                lane="pull", call=TOKEN_INFO_CALL, account=str(claim.grant_id), patience_seconds=0.0
            ):
                return None
            self._ground.tiktok.token_info(access)
        except WaitError as error:
            self._ground.limiter.punish(error.scope, error.seconds)
            return None
        except TikTokError as error:
            return False if error.code in DEAD_TOKEN_CODES else None
        except SealError:
            return None
        return True

    def _aside(self, attempt: Attempt) -> bool:
        """Return True if an unread answer is kept aside, or the database is away: then nobody is asked."""
        try:
            return attempt.aside or bool(self._ground.store.attempts_aside(attempt.claim.grant_id))
        except StoreUnavailableError:
            return True

    def _give_back(self, attempt: Attempt, outcome: AttemptOutcome, reason: str) -> None:
        verdict = retry(outcome, reason, _standing(attempt))
        self._commits.run(lambda: self._end(attempt, verdict, outcome, None))

    def _end(
        self,
        attempt: Attempt,
        verdict: Verdict,
        outcome: AttemptOutcome,
        error: TikTokError | None,
        cause: Cause | None = None,
    ) -> None:
        claim = attempt.claim
        told = _Told(
            reason=verdict.reason,
            code=None if error is None else error.code,
            http_status=None if error is None else error.http_status,
            request_id=None if error is None else error.request_id,
            cause=cause,
        )
        if attempt.aside:
            self._ground.store.note_aside(claim.grant_id, claim.consent, claim.generation)
        if verdict.action is Action.ASK:
            self._ground.store.ask_reauth(claim, **told)
        elif verdict.action is Action.SUSPECT:
            self._ground.store.suspect(claim, outcome=outcome, next_refresh_at=verdict.at, **told)
        else:
            self._ground.store.release(
                claim, outcome=outcome, next_refresh_at=verdict.at, failed=verdict.failed, **told
            )

    def _release(self, attempt: Attempt) -> None:
        for call in attempt.calls:
            if call.record is not None and call.unread:
                self._set_aside(call.record)
            elif call.record is not None:
                self._ground.journal.release(call.record)
            if call.earlier is not None:
                self._ground.journal.release(call.earlier)

    def _set_aside(self, record: RecordId) -> None:
        try:
            self._ground.journal.set_aside(record)
        except JournalError as error:
            self._ground.hook(Fact("journal.failed", {"reason": str(error)}, level="error"))


def _answered(attempt: Attempt) -> Answered:
    claim, call = attempt.claim, attempt.calls[-1]
    if not isinstance(call.result, TokenAnswer):
        raise TypeError("only a call that brought a pair can be stored")
    return Answered(
        grant_id=claim.grant_id,
        creator_id=claim.creator_id,
        consent=claim.consent,
        generation=claim.generation,
        sent_at=call.sent_at,
        jitter=claim.jitter,
        scope=claim.scope,
        sent=call.sent,
        answer=call.result,
        seconds=call.seconds,
        refresh_ended_at=None if claim.unproven else claim.refresh_expires_at,  # a file's word is no answer
    )


def _standing(attempt: Attempt) -> Standing:
    claim = attempt.claim
    return Standing(
        now=attempt.now,
        access_expires_at=claim.access_expires_at,
        refresh_expires_at=claim.refresh_expires_at,
        failures=claim.failures,
        suspect=claim.status is GrantStatus.SUSPECT,
        unresolved=attempt.unresolved,
        draw=random.random(),  # noqa: S311 - spreads load
    )
