"""One refresh call: the lease is checked right before sending, and what is received is journaled before it is read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.errors import EvertokenError, InDoubtError, JournalError, StopEveryoneError, TikTokError
from worker.policy.verdicts import WRONG_APP_CODES
from worker.store import Claim
from worker.telemetry import Fact, Hook
from worker.tiktok import RawAnswer, TikTok, TokenAnswer, salvage
from worker.vault import Journal, JournalEntry, RecordId, Token


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
    """

    sent_at: datetime
    sent: Token
    record: RecordId | None
    journaled: bool
    answer: TokenAnswer | None
    error: TikTokError | None


def elapsed_clock() -> float:
    """Return seconds of a clock that no one sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


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
            depart: asked right before sending, until it returns 0, for the seconds until the permit's moment.
            failpoint: called with the name of each step; does nothing outside the fault tests.
        """
        self._tiktok = tiktok
        self._journal = journal
        self._hook = hook
        self._secrets: list[Token | None] = [None] if next_secret is None else [None, next_secret]
        self._call_seconds = call_seconds
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
        for secret in list(self._secrets):
            called = self._call_once(claim, won_at, refresh_token, secret)
            if not isinstance(called.error, StopEveryoneError) or called.error.code not in WRONG_APP_CODES:
                if secret is not self._secrets[0]:
                    self._secrets.reverse()
                    self._hook(Fact("app.secret_switched", {}, level="warning"))
                return called
        return called

    def _call_once(self, claim: Claim, won_at: float, refresh_token: Token, secret: Token | None) -> Called:
        self._failpoint("pre_send")
        while wait := self._depart():
            time.sleep(wait)
        elapsed = elapsed_clock() - won_at
        if claim.lease_until - claim.claimed_at < timedelta(seconds=elapsed + self._call_seconds):
            raise LeaseTooShortError("the lease ends too soon for another call")
        sent_at = claim.claimed_at + timedelta(seconds=elapsed)
        raw = self._tiktok.send_refresh(refresh_token, app_secret=secret)
        took = elapsed_clock() - won_at - elapsed
        record, journaled = self._keep(claim, raw, sent_at, sent_at + timedelta(seconds=took))
        answer, error = self._read(raw)
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
        return Called(sent_at, refresh_token, record, journaled, answer, error)

    def _keep(
        self, claim: Claim, raw: RawAnswer, sent_at: datetime, received_at: datetime
    ) -> tuple[RecordId | None, bool]:
        if not raw.body:
            return None, True
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
        try:
            return self._journal.append(entry), True
        except JournalError as error:
            self._hook(Fact("journal.failed", {"grant_id": claim.grant_id, "reason": str(error)}, level="error"))
            return None, False

    def _read(self, raw: RawAnswer) -> tuple[TokenAnswer | None, TikTokError | None]:
        try:
            return self._tiktok.read_token_answer(raw), None
        except InDoubtError as error:
            saved = salvage(raw)
            return (saved, None) if saved is not None else (None, error)
        except TikTokError as error:
            return None, error
