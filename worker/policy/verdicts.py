"""What an error means for a grant, and what many errors mean for the app: pure verdicts, each with its reason.

A creator is asked to authorize again only when TikTok refused every pair we hold, twice and some minutes apart, while
the app is otherwise healthy, and no attempt in doubt could explain the refusal while the access token is valid. The one
exception is a refresh token whose own end has passed. Nobody is asked while an answer that may hold the grant's new
pair is kept aside for the operator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from worker.errors import (
    AskCreatorError,
    BackOffError,
    InDoubtError,
    NotSentError,
    ShortageError,
    StopEveryoneError,
    TikTokError,
    WaitError,
)
from worker.policy import backoff

WRONG_APP_CODES: Final = frozenset({40101, 40113})
"""The codes that concern only the app or its secret (TikTok's error appendix)."""
BRAKE_WINDOW: Final = timedelta(minutes=5)
FEWEST_REFUSALS: Final = 5
REFUSED_SHARE: Final = 0.2
FEWEST_STOPS: Final = 3
FEWEST_TROUBLES: Final = 10
FEWEST_TROUBLED_GRANTS: Final = 3
TROUBLED_SHARE: Final = 0.8
KEPT_ASIDE: Final = "an answer that may hold the new pair is kept aside, and the operator decides (`grants explain`)"


class AttemptOutcome(StrEnum):
    """How an attempt ended; a row without one is still under way, or its process died."""

    REFRESHED = "refreshed"
    NOT_SENT = "not_sent"
    IN_DOUBT = "in_doubt"
    REFUSED = "refused"  # TikTok says that the grant is gone
    BACKED_OFF = "backed_off"  # TikTok answered with trouble of its own, or the quota was spent
    STOPPED = "stopped"  # our app, secret or request is wrong
    MISFIT = "misfit"  # an answer that does not fit: the wrong creator, or nothing that can be used


class Cause(StrEnum):
    """The typed verdict: what is behind a failure, as far as it can be known."""

    CREATOR_REVOKED = "creator_revoked"
    CONSENT_ENDED = "consent_ended"
    SCOPE_NARROWED = "scope_narrowed"
    SPENT_ELSEWHERE = "spent_elsewhere"
    LOST_HERE = "lost_here"
    APP_SECRET_WRONG = "app_secret_wrong"  # noqa: S105 - a word, no secret
    TIKTOK_INCIDENT = "tiktok_incident"
    SHORTAGE_HERE = "shortage_here"
    UNKNOWN = "unknown"


CAUSE_WORDS: Final = {
    Cause.CREATOR_REVOKED: "the creator took the consent back: TikTok takes neither token",
    Cause.CONSENT_ENDED: "the refresh token ran out",
    Cause.SCOPE_NARROWED: "the creator gave fewer scopes than before",
    Cause.SPENT_ELSEWHERE: "the refresh token was used elsewhere: TikTok still takes the access token",
    Cause.LOST_HERE: "the pair that TikTok holds for the current one was lost here",
    Cause.APP_SECRET_WRONG: "TikTok refuses the app or its secret",
    Cause.TIKTOK_INCIDENT: "TikTok had trouble, or could not be reached",
    Cause.SHORTAGE_HERE: "this host had no file descriptor or no memory left for the call",
    Cause.UNKNOWN: "not known",
}
"""For people."""
EVIDENT: Final = (Cause.CREATOR_REVOKED, Cause.SPENT_ELSEWHERE, Cause.LOST_HERE)
"""What a later refusal without evidence does not take back: an access token that has ended shows nothing any more."""
RAN_OUT_CODE: Final = 40103
"""TikTok's code for a refresh token that has expired (its error appendix)."""
FIRST_INCIDENT_CODE: Final = 50000
"""TikTok's codes for its own trouble begin here."""


class Action(StrEnum):
    """What is done with the grant."""

    RETRY = "retry"  # back to the schedule
    SUSPECT = "suspect"  # serve the old access token and look again
    ASK = "ask"  # the creator must authorize again


@dataclass(frozen=True)
class Verdict:
    """A decision about one grant after a failed attempt.

    Attributes:
        at: when the grant is tried next.
        failed: whether this counts as a failure of the grant.
        reason: why, for logs, timeline and status.
    """

    action: Action
    outcome: AttemptOutcome
    at: datetime
    failed: bool
    reason: str


@dataclass(frozen=True)
class Standing:
    """What is known of a grant when it is judged.

    Attributes:
        now: the database's time.
        failures: failed attempts in a row before this one.
        suspect: True if TikTok refused the grant before.
        unresolved: True if an attempt without a complete answer may have rotated the pair.
        draw: a fresh random number in [0, 1).
        aside: True if an unread answer that may hold a newer pair is kept aside.
    """

    now: datetime
    access_expires_at: datetime
    refresh_expires_at: datetime | None
    failures: int
    suspect: bool
    unresolved: bool
    draw: float
    aside: bool = False


def judge(error: TikTokError, standing: Standing) -> Verdict:
    """Return what a failed attempt means for its grant."""
    if isinstance(error, AskCreatorError):
        verdict = _judge_refusal(error, standing)
        return _leave_to_operator(verdict, standing) if standing.aside else verdict
    word = _word(error)
    if isinstance(error, WaitError):
        wait = backoff.quota_wait_at(now=standing.now, expires_at=standing.access_expires_at, seconds=error.seconds)
        return Verdict(Action.RETRY, AttemptOutcome.BACKED_OFF, wait.at, failed=False, reason=word)
    if isinstance(error, StopEveryoneError):
        # It counts as the grant's own failure too: if TikTok says it of one grant alone, the others go first.
        return retry(AttemptOutcome.STOPPED, word, standing)
    if isinstance(error, NotSentError):
        return retry(AttemptOutcome.NOT_SENT, word, standing)
    # TikTok may answer a system error after it has rotated the pair, so the attempt is in doubt.
    return retry(AttemptOutcome.IN_DOUBT, word, standing)


def cause_of(error: TikTokError, standing: Standing, *, access_lives: bool | None) -> Cause | None:
    """Return what is behind a failed attempt; None if it says nothing, as a spent quota does not.

    Args:
        error: what the attempt met.
        standing: what is known of the grant.
        access_lives: whether TikTok takes the grant's access token, if it could be asked.
    """
    if isinstance(error, WaitError):
        return None
    if isinstance(error, AskCreatorError):
        return _cause_of_refusal(error, standing, access_lives=access_lives)
    if isinstance(error, StopEveryoneError):
        return Cause.APP_SECRET_WRONG if error.code in WRONG_APP_CODES else Cause.UNKNOWN
    if isinstance(error, ShortageError):
        return Cause.SHORTAGE_HERE
    if error.code is None or error.code >= FIRST_INCIDENT_CODE:
        return Cause.TIKTOK_INCIDENT
    return Cause.UNKNOWN


def _cause_of_refusal(error: AskCreatorError, standing: Standing, *, access_lives: bool | None) -> Cause:
    ended = standing.refresh_expires_at is not None and standing.refresh_expires_at <= standing.now
    if ended or error.code == RAN_OUT_CODE:
        return Cause.CONSENT_ENDED
    if standing.unresolved or standing.aside:
        return Cause.LOST_HERE
    if access_lives is None:
        return Cause.UNKNOWN
    return Cause.SPENT_ELSEWHERE if access_lives else Cause.CREATOR_REVOKED


def retry(outcome: AttemptOutcome, reason: str, standing: Standing) -> Verdict:
    """Return the verdict that puts a grant back on the schedule and counts a failure."""
    again = backoff.retry_at(
        now=standing.now,
        expires_at=standing.access_expires_at,
        failures=standing.failures + 1,
        draw=standing.draw,
    )
    return Verdict(Action.RETRY, outcome, again.at, failed=True, reason=reason)


def spare(verdict: Verdict, standing: Standing) -> Verdict:
    """Return the verdict while the whole app is in trouble: no creator is asked, and a second look follows."""
    if verdict.action is not Action.ASK:
        return verdict
    return replace(verdict, action=Action.SUSPECT, at=_second_look(standing))


def _second_look(standing: Standing) -> datetime:
    return backoff.second_look_at(
        now=standing.now, expires_at=standing.access_expires_at, failures=standing.failures + 1
    ).at


def _judge_refusal(error: AskCreatorError, standing: Standing) -> Verdict:
    now, word = standing.now, _word(error)
    if standing.refresh_expires_at is not None and standing.refresh_expires_at <= now:
        return Verdict(Action.ASK, AttemptOutcome.REFUSED, now, failed=True, reason=f"the consent has run out; {word}")
    if not standing.suspect:
        at = _second_look(standing)
        return Verdict(Action.SUSPECT, AttemptOutcome.REFUSED, at, failed=True, reason=f"{word}; a second look follows")
    if standing.unresolved and standing.access_expires_at > now:
        at = backoff.suspect_at(
            now=now, expires_at=standing.access_expires_at, failures=standing.failures + 1, draw=standing.draw
        ).at
        reason = f"{word}; an attempt in doubt may have rotated the pair, and the access token is still valid"
        return Verdict(Action.SUSPECT, AttemptOutcome.REFUSED, at, failed=True, reason=reason)
    return Verdict(Action.ASK, AttemptOutcome.REFUSED, now, failed=True, reason=word)


def _leave_to_operator(verdict: Verdict, standing: Standing) -> Verdict:
    """Return the verdict that holds while an unread answer is kept aside: whatever TikTok says, nobody is asked."""
    if verdict.action is not Action.ASK:
        return verdict
    at = backoff.suspect_at(
        now=standing.now, expires_at=standing.access_expires_at, failures=standing.failures + 1, draw=standing.draw
    ).at
    reason = f"{verdict.reason}; {KEPT_ASIDE}"
    return replace(verdict, action=Action.SUSPECT, at=at, reason=reason)


def _word(error: TikTokError) -> str:
    """Return a short reason: the kind of the error and TikTok's code, or what happened if no code came."""
    kinds = {
        AskCreatorError: "refused",
        BackOffError: "tiktok_trouble",
        InDoubtError: "in_doubt",
        NotSentError: "not_sent",
        StopEveryoneError: "app_stopped",
        WaitError: "quota_spent",
    }
    kind = next((name for kind, name in kinds.items() if isinstance(error, kind)), "failed")
    if error.code is not None:
        return f"{kind} {error.code}"
    return f"{kind}: {error}" if isinstance(error, NotSentError | InDoubtError) else kind


@dataclass(frozen=True)
class FleetEvidence:
    """How the attempts of the last few minutes ended, for all grants but the one that is judged.

    Attributes:
        refreshed: attempts that brought a pair.
        refused: grants that TikTok called gone.
        stopped: grants whose attempt met an error about our app or request.
        troubled: attempts that were not sent, are in doubt, or met TikTok's own trouble; not those of `short`.
        troubled_grants: the grants of these attempts.
        app_refused: grants for which TikTok refused the app or its secret since the last attempt that brought a pair.
        unsent: attempts of `troubled` that were not sent.
        short: attempts that were not sent for want of descriptors or memory on a host of ours: no trouble of TikTok's.
    """

    refreshed: int
    refused: int
    stopped: int
    troubled: int
    troubled_grants: int
    app_refused: int = 0
    unsent: int = 0
    short: int = 0


def hold_reason(evidence: FleetEvidence) -> str | None:
    """Return why no creator may be asked to authorize again for now, or None.

    A restored backup, or another system that refreshes the same grants, makes TikTok call many grants gone at once.
    These grants wait, and all others are refreshed as usual.

    Args:
        evidence: the last `BRAKE_WINDOW`, without the grant that was refused just now.
    """
    total = evidence.refreshed + evidence.refused + evidence.stopped + evidence.troubled
    if evidence.refused >= FEWEST_REFUSALS and evidence.refused > REFUSED_SHARE * total:
        return f"TikTok calls an unlikely share of grants gone: {evidence.refused} of {total} in five minutes"
    return None


def brake_reason(evidence: FleetEvidence, error: TikTokError, *, failures: int) -> str | None:
    """Return why the whole app must stop refreshing, or None.

    A few grants are no evidence while others are refreshed: for a token that was issued to another app, TikTok may
    answer that the app is unknown. So the app's own codes stop it when a second grant meets them and none was refreshed
    in between; or at once if no grant was refreshed lately and this one has not failed before.

    Args:
        evidence: the last `BRAKE_WINDOW`, without the grant that met the error.
        error: the error just met.
        failures: failed attempts in a row of the grant that met it, before this one.
    """
    stops = isinstance(error, StopEveryoneError)
    stopped = evidence.stopped + stops
    alone = evidence.refreshed == 0 and failures == 0
    if stops and error.code in WRONG_APP_CODES and (evidence.app_refused or alone):
        return f"TikTok refuses the app or its secret (code {error.code})"
    total = evidence.refreshed + evidence.refused + stopped + evidence.troubled
    if stopped >= FEWEST_STOPS and stopped > evidence.refreshed:
        return f"TikTok refuses our requests: {stopped} of {total}"
    spread = evidence.troubled_grants >= FEWEST_TROUBLED_GRANTS
    if spread and evidence.troubled >= FEWEST_TROUBLES and evidence.troubled > TROUBLED_SHARE * total:
        if 2 * evidence.unsent > evidence.troubled:
            return f"TikTok was not reached (network, name server or proxy): {evidence.unsent} of {total} were not sent"
        return f"TikTok does not answer as it should: {evidence.troubled} of {total}"
    return None
