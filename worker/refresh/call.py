"""One refresh call: the lease is checked right before sending, and what is received is journaled before it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from worker.errors import (
    EvertokenError,
    InDoubtError,
    JournalError,
    NotSentError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.journal import Journal, JournalEntry, RecordId
from worker.policy import backoff
from worker.policy.verdicts import WRONG_APP_CODES
from worker.store import Claim
from worker.telemetry import Fact, Hook
from worker.tiktok import REFRESH_CALL, RawAnswer, TikTok, TokenAnswer, bears_refresh_token, salvage
from worker.vault import Token


class LeaseTooShortError(EvertokenError):
    """What is left of the lease does not outlast another call: nothing was sent."""


@dataclass(frozen=True)
class Called:
    """One call and what came of it: exactly one of `answer` and `error` is there.

    Attributes:
        sent_at: when it was sent, on the database's clock.
        sent: the refresh token that was sent.
        record: the journal's record of the bytes, to be released once the outcome has committed; None where nothing
            was received, or where the journal failed.
        journaled: False where bytes were received and the journal could not take them.
        unread: True where the bytes hold a refresh token in full and no pair came of them: they are not let go.
        earlier: the record of a call before it, with the app's other secret, which was refused.
    """

    sent_at: datetime
    sent: Token
    record: RecordId | None
    journaled: bool
    answer: TokenAnswer | None
    error: TikTokError | None
    unread: bool = False
    earlier: RecordId | None = None


def elapsed_clock() -> float:
    """Return seconds of a clock that no one sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _untried(called: Called) -> Called:
    """Return a refused call whose other secret could not be tried: neither app nor grant is judged before it was."""
    text = "the app's other secret could not be tried"
    return replace(
        called, error=WaitError(text, call=REFRESH_CALL, scope="account", seconds=backoff.BASE.total_seconds())
    )


class RefreshCaller:
    """Sends refresh requests under a claim."""

    def __init__(
        self,
        *,
        tiktok: TikTok,
        journal: Journal,
        hook: Hook,
        next_secret: Token | None,
        call_seconds: float,
        permit: Callable[[int], float],
        depart: Callable[[], float],
        failpoint: Callable[[str], None],
    ) -> None:
        """Make one for a process.

        Args:
            tiktok: the client, with the app's first secret.
            journal: where received bytes go.
            hook: where facts go.
            next_secret: the app's second secret while TikTok's is rotated.
            call_seconds: the longest that a call and the writing of its result may take.
            permit: gives the seconds to wait for a permit of the quota for a grant; 0 is a permit. The first call under
                a claim has its permit already.
            depart: asked right before sending, until it returns 0, for the seconds until the permit's moment.
            failpoint: called with the name of each step; does nothing outside the fault tests.
        """
        self._tiktok = tiktok
        self._journal = journal
        self._hook = hook
        self._secrets: list[Token | None] = [None] if next_secret is None else [None, next_secret]
        self._call_seconds = call_seconds
        self._permit = permit
        self._depart = depart
        self._failpoint = failpoint

    def call(self, claim: Claim, won_at: float, refresh_token: Token) -> Called:
        """Send one refresh, with the app's second secret where the first is refused.

        Args:
            claim: the claim it is sent under.
            won_at: `elapsed_clock()` when the claim was asked for.
            refresh_token: what is sent.

        Raises:
            NotSentError: nothing left this process.
            LeaseTooShortError: likewise, because the lease ends too soon.
        """
        first, *others = self._secrets
        called = self._call_once(claim, won_at, refresh_token, first)
        for secret in others:
            if not isinstance(called.error, StopEveryoneError) or called.error.code not in WRONG_APP_CODES:
                break
            self._secrets = [secret, first]
            if not self._wait_for_permit(claim, won_at):
                return _untried(called)
            try:
                called = replace(self._call_once(claim, won_at, refresh_token, secret), earlier=called.record)
            except (NotSentError, LeaseTooShortError):
                return _untried(called)
            if not isinstance(called.error, StopEveryoneError | InDoubtError):
                self._hook(Fact("app.secret_switched", {}, level="warning"))
        return called

    def _call_once(self, claim: Claim, won_at: float, refresh_token: Token, secret: Token | None) -> Called:
        self._failpoint("pre_send")
        while wait := self._depart():
            time.sleep(wait)
        elapsed = elapsed_clock() - won_at
        if not self._lasts(claim, elapsed):
            raise LeaseTooShortError("the lease ends too soon for another call")
        sent_at = claim.claimed_at + timedelta(seconds=elapsed)
        raw = self._tiktok.send_refresh(refresh_token, app_secret=secret)
        took = elapsed_clock() - won_at - elapsed
        record, journaled = self._keep(claim, raw, sent_at, sent_at + timedelta(seconds=took))
        answer, error = self._read(raw, claim, won_at)
        self._hook(
            Fact(
                "call.answered" if error is None else "call.failed",
                {
                    "call": raw.call,
                    "grant_id": claim.grant_id,
                    "generation": claim.generation,
                    "seconds": took,
                    "http_status": raw.http_status,
                    "code": 0 if error is None else error.code,
                    "request_id": answer.request_id if answer else getattr(error, "request_id", None),
                },
                level="info" if error is None else "warning",
            )
        )
        unread = answer is None and bears_refresh_token(raw)
        return Called(sent_at, refresh_token, record, journaled, answer, error, unread)

    def _wait_for_permit(self, claim: Claim, won_at: float) -> bool:
        """Wait for a permit of a further call; return False where the lease would not outlast that call."""
        while wait := self._permit(claim.grant_id):
            if not self._lasts(claim, elapsed_clock() - won_at + wait):
                return False
            time.sleep(wait)
        return True

    def _lasts(self, claim: Claim, elapsed: float) -> bool:
        """Tell whether the lease outlasts a call that begins so many seconds after the claim."""
        return claim.lease_until - claim.claimed_at >= timedelta(seconds=elapsed + self._call_seconds)

    def _keep(
        self, claim: Claim, raw: RawAnswer, sent_at: datetime, received_at: datetime
    ) -> tuple[RecordId | None, bool]:
        if not raw.body:
            return None, True
        try:
            entry = JournalEntry(
                kind="refresh",
                grant_id=claim.grant_id,
                creator_id=claim.creator_id,
                consent=claim.consent,
                generation=claim.generation,
                call=raw.call,
                http_status=raw.http_status,
                body=raw.body,
                complete=raw.complete,
                fault=raw.fault,
                retry_after=raw.retry_after,
                sent_at=sent_at,
                received_at=received_at,
            )
            return self._journal.append(entry), True
        except JournalError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a pair may be in hand: the database gets it, whatever fails here
            reason = f"an answer could not be journaled ({type(error).__name__})"
        self._hook(Fact("journal.failed", {"grant_id": claim.grant_id, "reason": reason}, level="error"))
        return None, False

    def _read(self, raw: RawAnswer, claim: Claim, won_at: float) -> tuple[TokenAnswer | None, TikTokError | None]:
        try:
            return self._tiktok.read_token_answer(raw), None
        except InDoubtError as error:
            saved = salvage(raw) or self._named(raw, claim, won_at)
            return (saved, None) if saved is not None else (None, error)
        except TikTokError as error:
            return None, error

    def _named(self, raw: RawAnswer, claim: Claim, won_at: float) -> TokenAnswer | None:
        """Ask TikTok whose a pair is whose answer broke off before the creator's id, while the lease lasts."""
        pair = salvage(raw, named=False)
        if pair is None:
            return None
        if not self._wait_for_permit(claim, won_at):
            return None
        while wait := self._depart():
            time.sleep(wait)
        if not self._lasts(claim, elapsed_clock() - won_at):
            return None
        try:
            return replace(pair, creator_id=self._tiktok.token_info(pair.access_token).creator_id)
        except TikTokError:
            return None
