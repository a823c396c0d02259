"""A grant's history in plain words: what was decided when, why, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from worker.policy.renewal import emergency_at, next_refresh
from worker.policy.verdicts import CAUSE_WORDS, AttemptOutcome
from worker.policy.wording import moment, paused, span
from worker.store import AttemptView, GrantStatus, GrantView, SnapshotView

_OUTCOMES: Final = {
    AttemptOutcome.REFRESHED: "TikTok gave a new pair, and it was stored",
    AttemptOutcome.NOT_SENT: "nothing was sent: TikTok could not be reached",
    AttemptOutcome.IN_DOUBT: "sent, and no complete answer came: TikTok may or may not have rotated the pair",
    AttemptOutcome.REFUSED: "TikTok says that the grant is gone",
    AttemptOutcome.BACKED_OFF: "TikTok had trouble of its own, or the quota was spent",
    AttemptOutcome.STOPPED: "TikTok refused our app, its secret or the request; the creator did not cause it",
    AttemptOutcome.MISFIT: "the answer did not fit this creator and was not stored here",
}
_SAME_INSTANT_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Event:
    """One thing that happened to a grant.

    Attributes:
        kind: `consent`, `attempt`, `pull` or `status`.
        text: what and why, in words.
    """

    at: datetime
    kind: str
    text: str


@dataclass(frozen=True)
class Next:
    """What comes next, and why; an instant is None if nothing is planned."""

    refresh_at: datetime | None
    refresh_why: str
    pull_at: datetime | None
    pull_why: str


def events(grant: GrantView, attempts: Sequence[AttemptView], snapshots: Iterable[SnapshotView]) -> list[Event]:
    """Return what happened, oldest first, as far back as the history is kept."""
    found = [Event(grant.created_at, "consent", "the grant was stored first: the creator authorized, or was imported")]
    found += [Event(item.finished_at or item.claimed_at, "attempt", _attempt(item)) for item in attempts]
    found += _later_consents(grant, attempts)
    found += [Event(item.pulled_at, "pull", f"account data pulled: {len(item.data)} fields") for item in snapshots]
    if grant.status in {GrantStatus.NEEDS_REAUTH, GrantStatus.REVOKED, GrantStatus.SUSPECT}:
        found.append(Event(grant.updated_at, "status", _standing(grant)))
    return sorted(found, key=lambda event: event.at)


def verdict_words(verdict: str) -> str:
    """Return a verdict with its meaning; one of a later version stays a word."""
    known = {cause.value: words for cause, words in CAUSE_WORDS.items()}
    return f"{verdict}: {known[verdict]}" if verdict in known else verdict


def what_next(grant: GrantView, aside: Sequence[AttemptView], *, now: datetime, renew_at: float) -> Next:
    """Return what is planned for a grant.

    Args:
        grant: the grant.
        aside: its attempts of which an unread answer is kept aside.
        now: the database's time.
        renew_at: the setting; the fraction of the life at which the renewal window begins.
    """
    why = _why_never(grant) or _why_then(grant, now=now, renew_at=renew_at) + _why_nobody_is_asked(aside)
    pull_at = None if grant.paused_since is not None else grant.next_pull_at
    return Next(planned_refresh(grant), why, pull_at, _why_pull(grant))


def planned_refresh(grant: GrantView) -> datetime | None:
    """Return when a grant's next refresh is due, or None if there will be none."""
    return None if _why_never(grant) else grant.next_refresh_at


def _later_consents(grant: GrantView, attempts: Sequence[AttemptView]) -> list[Event]:
    """Return one event for each consent after the first; only the start of the current pair is known exactly."""
    begun: dict[int, datetime] = {}
    for item in attempts:
        begun[item.consent] = min(item.claimed_at, begun.get(item.consent, item.claimed_at))
    if grant.consent > 1:
        begun[grant.consent] = min(grant.issued_at, begun.get(grant.consent, grant.issued_at))
    return [
        Event(at, "consent", f"consent {consent} was current by then: the creator authorized again, or was replaced")
        for consent, at in begun.items()
        if consent > 1
    ]


def _attempt(item: AttemptView) -> str:
    text = f"attempt {item.generation} of consent {item.consent} by {item.owner}: "
    if item.outcome is None:
        return text + "begun, no outcome yet; its process works on it, or died"
    text += _OUTCOMES[item.outcome]
    details = [item.reason] if item.reason else []
    details += [f"verdict {verdict_words(item.verdict)}"] if item.verdict else []
    details += [f"code {item.code}"] if item.code is not None else []
    details += [f"HTTP {item.http_status}"] if item.http_status is not None else []
    details += [f"request {item.request_id}"] if item.request_id else []
    if item.finished_at is not None:
        details.append(f"took {(item.finished_at - item.claimed_at).total_seconds():.2f} s")
    return text + (f" ({', '.join(details)})" if details else "")


def _standing(grant: GrantView) -> str:
    said = [grant.last_reason] if grant.last_reason else []
    said += [f"verdict {verdict_words(grant.verdict)}"] if grant.verdict else []
    reason = f" ({', '.join(said)})" if said else ""
    if grant.status is GrantStatus.SUSPECT:
        return f"suspect{reason}: the access token is served until the refusal is checked again"
    if grant.status is GrantStatus.REVOKED:
        if grant.ending_at is not None:
            return "revoked here and no longer used; TikTok has not confirmed, and workers tell it again"
        return "revoked here; its pairs were wiped"
    return f"the creator was asked to authorize again{reason}"


def _why_never(grant: GrantView) -> str | None:
    if grant.status is GrantStatus.NEEDS_REAUTH:
        return "the creator must authorize again: `authorize url` makes the link"
    if grant.status is GrantStatus.REVOKED:
        return "the grant was revoked here"
    if grant.belongs_to is not None:
        return f"held: TikTok says that the imported pair belongs to creator {grant.belongs_to}"
    if grant.paused_since is not None:
        return f"{paused(grant.paused_since)}; by its schedule it is due at {moment(grant.next_refresh_at)} UTC"
    return None


def _why_then(grant: GrantView, *, now: datetime, renew_at: float) -> str:
    if grant.lease_owner and grant.lease_until and grant.lease_until > now:
        return f"being refreshed now by {grant.lease_owner}, whose lease ends in {span(grant.lease_until - now)}"
    late = " (due now)" if grant.next_refresh_at <= now else ""
    emergency = emergency_at(issued_at=grant.issued_at, expires_at=grant.access_expires_at)
    if grant.failures:
        urgent = "; the token ends soon, so the waits are shorter" if now >= emergency else ""
        return f"tried again after {grant.failures} failures ({grant.last_reason or 'no reason kept'}){urgent}{late}"
    planned = next_refresh(
        issued_at=grant.issued_at, expires_at=grant.access_expires_at, renew_at=renew_at, jitter=grant.jitter
    )
    if abs((planned.at - grant.next_refresh_at).total_seconds()) < _SAME_INSTANT_SECONDS:
        return planned.reason + late
    if grant.next_refresh_at < planned.at:
        return "earlier than the renewal window: a first refresh is spread over time, or somebody requested it" + late
    return (grant.last_reason or "put off") + late


def _why_nobody_is_asked(aside: Sequence[AttemptView]) -> str:
    if not aside:
        return ""
    owners = ", ".join(dict.fromkeys(attempt.owner for attempt in aside))
    return (
        f"; an answer that may hold the new pair is kept aside by {owners} (host:process) and the creator is not asked "
        "to authorize meanwhile: on that host `grants aside` lists it, `grants place RECORD` stores its pair, and "
        "`grants discard RECORD` removes it if there is none"
    )


def _why_pull(grant: GrantView) -> str:
    if grant.paused_since is not None:
        return paused(grant.paused_since)
    if grant.next_pull_at is None:
        return "none is due until the next pair is stored"
    if grant.pull_failures:
        return f"tried again after {grant.pull_failures} failures"
    return "due by schedule or by EVERTOKEN_PULL_SECONDS, or because a pair was stored or somebody requested it"
