"""One refresh call: the lease is checked right before sending, and the answer is on disk before it is read.

Sending and reading are two steps, so that a group of answers shares a sync of the journal. `follow_up` is for an
attempt whose first call brought no clean pair: it calls again, one by one, while another call may bring one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Final

from worker.errors import (
    InDoubtError,
    JournalError,
    NotSentError,
    SealError,
    StopEveryoneError,
    StoreUnavailableError,
    TikTokError,
    WaitError,
)
from worker.ground import Ground
from worker.journal import JournalEntry, Written
from worker.limiter import Permit
from worker.policy import backoff
from worker.policy.verdicts import WRONG_APP_CODES
from worker.refresh.attempt import Attempt, Call, LeaseTooShortError, Next, elapsed_clock
from worker.store import Claim
from worker.telemetry import Fact, FactValue
from worker.tiktok import (
    REFRESH_CALL,
    RawAnswer,
    TokenAnswer,
    bears_refresh_token,
    read_or_salvage,
    salvage,
)
from worker.vault import PairPlace, Token

LANE: Final = "refresh"


class Caller:
    """Sends refresh requests under a claim."""

    def __init__(
        self,
        ground: Ground,
        *,
        next_secret: Token | None,
        call_seconds: float,
        may_repeat: bool,
        longest_pause_seconds: float,
    ) -> None:
        """Prepare for a process.

        Args:
            ground: what all use cases share.
            next_secret: the app's second secret while the secret is replaced.
            call_seconds: longest time of a call and the writing of its result.
            may_repeat: whether a call in doubt is sent once more at once.
            longest_pause_seconds: the longest pause before that.
        """
        self._ground = ground
        self._secrets: tuple[Token | None, ...] = (None,) if next_secret is None else (None, next_secret)
        self._preferred: Token | None = None
        self._call_seconds = call_seconds
        self._may_repeat = may_repeat
        self._longest_pause_seconds = longest_pause_seconds

    def send(self, attempt: Attempt, token: Token, permit: Permit) -> Call:
        """Send one refresh, with the app's secret that TikTok accepted last, and journal its answer unread.

        Raises:
            NotSentError: nothing left this process.
            LeaseTooShortError: nothing left this process, because the lease ends too soon.
        """
        self._ground.failpoint("pre_send")
        self._depart(permit)
        if not attempt.lasts(self._call_seconds):
            raise LeaseTooShortError("the lease ends too soon for another call")
        secret, began = self._preferred, elapsed_clock()
        sent_at = attempt.claim.claimed_at + timedelta(seconds=began - attempt.won_at)
        raw = self._ground.tiktok.send_refresh(token, app_secret=secret)
        ended = elapsed_clock()
        call = Call(sent_at, token, secret, raw, ended - began, ended)
        if raw.body:
            self._write(attempt.claim, call)
        return call

    def read(self, attempt: Attempt) -> None:
        """Read the answer of an attempt's last call, once it is on disk."""
        call, claim = attempt.calls[-1], attempt.claim
        if call.written is not None:
            self._sync(claim, call, call.written)
        call.result = read_or_salvage(call.raw)
        if isinstance(call.result, TokenAnswer):
            return  # the fact that its pair is stored says so
        call.unread = bears_refresh_token(call.raw)
        self._ground.hook(
            Fact(
                "call.failed",
                {
                    "call": call.raw.call,
                    "grant_id": claim.grant_id,
                    "generation": claim.generation,
                    "seconds": call.seconds,
                    "http_status": call.raw.http_status,
                    "code": call.result.code,
                    "request_id": call.result.request_id,
                },
                level="warning",
            )
        )

    def follow_up(self, attempt: Attempt) -> None:
        """Call again while another call may bring a pair and the lease lasts, each time with a new permit."""
        older = self._older(attempt)
        try:
            self._finish(attempt)
            while (step := attempt.next(may_repeat=self._may_repeat)) is not Next.END:
                token = attempt.calls[-1].sent
                if step is Next.REPEAT:
                    self._pause(attempt.calls[-1])
                elif self._moved_on(attempt.claim) or (next_older := next(older, None)) is None:
                    return
                else:
                    token = next_older
                permit = self._permit(attempt.claim)
                if permit is None:
                    return
                attempt.calls.append(self.send(attempt, token, permit))
                self.read(attempt)
                self._finish(attempt)
        except (NotSentError, LeaseTooShortError) as error:
            attempt.unsent = error

    def _finish(self, attempt: Attempt) -> None:
        """Complete the last call: with the app's other secret, or with the owner of a pair that came without its id."""
        call = attempt.calls[-1]
        if isinstance(call.result, StopEveryoneError) and call.result.code in WRONG_APP_CODES:
            for secret in self._secrets:
                if secret is not call.secret:
                    call = attempt.calls[-1] = self._with_other_secret(attempt, call, secret)
                    break
        if isinstance(call.result, InDoubtError):
            call.result = self._identify_owner(attempt, call.raw) or call.result
            call.unread = call.unread and not isinstance(call.result, TokenAnswer)

    def _with_other_secret(self, attempt: Attempt, refused: Call, secret: Token | None) -> Call:
        """Return the call with the app's other secret, or the refused one if that could not be tried.

        Then neither app nor grant is judged.
        """
        self._preferred = secret
        text = "the app's other secret could not be tried"
        seconds = backoff.BASE.total_seconds()
        untried = replace(refused, result=WaitError(text, call=REFRESH_CALL, scope="account", seconds=seconds))
        permit = self._wait_for_permit(attempt)
        if permit is None:
            return untried
        try:
            call = self.send(attempt, refused.sent, permit)
        except (NotSentError, LeaseTooShortError):
            return untried
        attempt.calls[-1] = call
        self.read(attempt)
        call.earlier = refused.record
        if not isinstance(call.result, StopEveryoneError | InDoubtError):
            self._ground.hook(Fact("app.secret_switched", {}, level="warning"))
        return call

    def _identify_owner(self, attempt: Attempt, raw: RawAnswer) -> TokenAnswer | None:
        """Look up the owner of a pair whose answer was cut off before the creator id, while the lease lasts."""
        pair = salvage(raw, named=False)
        permit = None if pair is None else self._wait_for_permit(attempt)
        if pair is None or permit is None:
            return None
        self._depart(permit)
        if not attempt.lasts(self._call_seconds):
            return None
        try:
            return replace(pair, creator_id=self._ground.tiktok.token_info(pair.access_token).creator_id)
        except TikTokError:
            return None

    def _older(self, attempt: Attempt) -> Iterator[Token]:
        """Yield the kept refresh tokens that were not sent yet, newest first.

        A token that does not open is reported and skipped: it must not keep a healthy grant from its refresh.
        """
        claim = attempt.claim
        try:
            versions = self._ground.store.kept_versions(claim)
        except StoreUnavailableError:
            return
        for version in versions:
            if version.generation == claim.pair_generation:
                continue
            place = PairPlace(claim.creator_id, version.consent, version.generation)
            try:
                token = self._ground.sealer.open_refresh(version.sealed, place)
            except SealError as error:
                ids: dict[str, FactValue] = {"grant_id": claim.grant_id, "generation": version.generation}
                self._ground.hook(Fact("pair.unreadable", ids | {"reason": str(error)}, level="warning"))
                continue
            if all(token != call.sent for call in attempt.calls):
                yield token

    def _moved_on(self, claim: Claim) -> bool:
        """Return True if a newer attempt, pair or consent has come, or the database is away: then stop trying."""
        try:
            grant = self._ground.store.grant_by_id(claim.grant_id)
        except StoreUnavailableError:
            return True
        return (grant.consent, grant.generation) != (claim.consent, claim.generation)

    def _pause(self, call: Call) -> None:
        """Wait before a call is repeated; the time since its answer counts."""
        pause = self._longest_pause_seconds * random.uniform(0.2, 1)  # noqa: S311 - a pause is no secret
        self._ground.stop.wait(max(0.0, call.ended_at + pause - elapsed_clock()))

    def _permit(self, claim: Claim) -> Permit | None:
        asked = self._ground.limiter.permits(lane=LANE, call=REFRESH_CALL, accounts=[str(claim.grant_id)])
        return asked.given[0] if asked.given else None

    def _wait_for_permit(self, attempt: Attempt) -> Permit | None:
        """Wait for a permit of a further call; return None if the lease would not outlast that call."""
        account = [str(attempt.claim.grant_id)]
        while not (asked := self._ground.limiter.permits(lane=LANE, call=REFRESH_CALL, accounts=account)).given:
            if not attempt.lasts(asked.wait + self._call_seconds):
                return None
            time.sleep(asked.wait)
        return asked.given[0]

    def _depart(self, permit: Permit) -> None:
        while wait := self._ground.limiter.depart(permit):
            time.sleep(wait)

    def _write(self, claim: Claim, call: Call) -> None:
        try:
            ids = (claim.grant_id, claim.creator_id, claim.consent, claim.generation)
            entry = JournalEntry.of("refresh", call.raw, ids, sent_at=call.sent_at, seconds=call.seconds)
            call.written = self._ground.journal.write(entry)
        except Exception as error:  # noqa: BLE001 - a pair may be in hand: the database gets it, whatever fails here
            self._lost(claim, call, error)

    def _sync(self, claim: Claim, call: Call, written: Written) -> None:
        try:
            call.record = self._ground.journal.sync(written)
        except Exception as error:  # noqa: BLE001 - a pair may be in hand: the database gets it, whatever fails here
            self._lost(claim, call, error)

    def _lost(self, claim: Claim, call: Call, error: Exception) -> None:
        foreseen = isinstance(error, JournalError)
        reason = str(error) if foreseen else f"an answer could not be journaled ({type(error).__name__})"
        call.journaled = False
        self._ground.hook(Fact("journal.failed", {"grant_id": claim.grant_id, "reason": reason}, level="error"))
