"""Ends of attempts that brought no pair: back to the schedule, suspect, or the creator is asked to authorize.

A verdict holds only for the state in which it was reached. If another attempt, another consent or another pair has come
since the claim, the attempt's outcome is recorded and nothing else changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, exists, false, func, or_, select, text, update

from worker.policy.verdicts import EVIDENT, AttemptOutcome, Cause
from worker.store.clock import now
from worker.store.conditions import kept_aside
from worker.store.engine import Transactions, reads, writes
from worker.store.models import ATTEMPTS, GRANTS, PAIRS, REFRESHABLE
from worker.store.outbox import REAUTH_NEEDED, insert_notice, reauth_key
from worker.store.rows import attempt_view, is_attempt, is_of_app, lease_is_free
from worker.store.values import AttemptView, Claim, GrantStatus


@dataclass(frozen=True)
class _Answer:
    """How an attempt ended, for its row."""

    outcome: AttemptOutcome
    reason: str
    code: int | None
    http_status: int | None
    request_id: str | None
    cause: Cause | None = None


class Verdicts(Transactions):
    """Ending attempts without a pair."""

    @writes
    def release(
        self,
        connection: Connection,
        claim: Claim,
        *,
        outcome: AttemptOutcome,
        next_refresh_at: datetime,
        reason: str,
        failed: bool,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        cause: Cause | None = None,
    ) -> bool:
        """End an attempt and put the grant back on the schedule; its status stays as it is.

        Args:
            connection: given by the decorator.
            claim: the claim of the attempt.
            outcome: how it ended.
            next_refresh_at: when the grant is due again.
            reason: short safe text for people; it becomes the grant's `last_reason`.
            failed: whether this counts as a failure of the grant.
            code: TikTok's code.
            http_status: the HTTP status.
            request_id: TikTok's `request_id`.
            cause: what is behind it.

        Returns:
            False if the grant has changed since the claim, so that its schedule was left alone.
        """
        answer = _Answer(outcome, reason, code, http_status, request_id, cause)
        values = {"next_refresh_at": next_refresh_at, "last_reason": reason}
        return _end(connection, claim, answer, values, failed=failed)

    @writes
    def suspect(
        self,
        connection: Connection,
        claim: Claim,
        *,
        next_refresh_at: datetime,
        reason: str,
        outcome: AttemptOutcome,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        cause: Cause | None = None,
    ) -> bool:
        """End an attempt and mark the grant as suspect: its access token is served, and the grant is tried again.

        Arguments and result are those of `release`; it always counts as a failure.
        """
        answer = _Answer(outcome, reason, code, http_status, request_id, cause)
        values = {
            "next_refresh_at": next_refresh_at,
            "last_reason": reason,
            "status": GrantStatus.SUSPECT.value,
        }
        return _end(connection, claim, answer, values, failed=True)

    @writes
    def ask_reauth(
        self,
        connection: Connection,
        claim: Claim,
        *,
        reason: str,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        cause: Cause | None = None,
    ) -> bool:
        """End an attempt with the verdict that the creator must authorize again, and write one notice.

        Returns:
            False if the grant has changed since the claim: then nobody is asked.
        """
        answer = _Answer(AttemptOutcome.REFUSED, reason, code, http_status, request_id, cause)
        values = {"last_reason": reason, "status": GrantStatus.NEEDS_REAUTH.value}
        asked = _end(connection, claim, answer, values, failed=True)
        if asked:
            key = reauth_key(claim.grant_id, claim.consent, claim.pair_generation)
            data = {"verdict": _verdict_of(connection, claim.grant_id)}
            insert_notice(connection, key, REAUTH_NEEDED, reason, grant_id=claim.grant_id, data=data)
        return asked

    @writes
    def ask_suspect(self, connection: Connection, grant_id: int, reason: str) -> bool:
        """Ask the creator of a suspect grant to authorize again, because a person decided so, and write one notice.

        Returns:
            False if the grant is no longer suspect, or an unread answer is kept aside: then nobody is asked.
        """
        values = {"status": GrantStatus.NEEDS_REAUTH.value, "last_reason": reason, "updated_at": now()}
        suspect = (GRANTS.c.id == grant_id) & (GRANTS.c.status == GrantStatus.SUSPECT.value) & lease_is_free()
        suspect &= ~exists().where(kept_aside())
        asked = connection.execute(
            update(GRANTS).where(suspect).values(**values).returning(GRANTS.c.consent, GRANTS.c.pair_generation)
        ).first()
        if asked is None:
            return False
        data = {"verdict": _verdict_of(connection, grant_id)}
        insert_notice(connection, reauth_key(grant_id, *asked), REAUTH_NEEDED, reason, grant_id=grant_id, data=data)
        return True

    @writes
    def record_outcome(
        self,
        connection: Connection,
        grant_id: int,
        consent: int,
        generation: int,
        *,
        outcome: AttemptOutcome,
        reason: str,
        code: int | None = None,
        http_status: int | None = None,
    ) -> bool:
        """Record how an attempt of a dead process ended; the grant itself is left alone.

        Returns:
            True if the attempt had no outcome, or was in doubt and now has a better one.
        """
        answer = _Answer(outcome, reason, code, http_status, None)
        return _finish(connection, grant_id, consent, generation, answer)

    @writes
    def note_narrowed(self, connection: Connection, grant_id: int, consent: int, generation: int) -> None:
        """Note that the answer of an attempt, whose pair is stored, had fewer scopes than the one before."""
        narrowed = {"verdict": Cause.SCOPE_NARROWED.value}
        connection.execute(update(ATTEMPTS).where(is_attempt(grant_id, consent, generation)).values(**narrowed))
        current = and_(GRANTS.c.id == grant_id, GRANTS.c.consent == consent, GRANTS.c.pair_generation == generation)
        connection.execute(update(GRANTS).where(current).values(**narrowed))

    @reads
    def verdict_counts(self, connection: Connection) -> dict[str, int]:
        """Return how many suspect grants, and grants whose creators must authorize again, there are by verdict."""
        unwell = GRANTS.c.status.in_([GrantStatus.SUSPECT.value, GrantStatus.NEEDS_REAUTH.value])
        verdict = func.coalesce(GRANTS.c.verdict, Cause.UNKNOWN.value)
        counted = select(verdict, func.count()).where(is_of_app(connection), unwell).group_by(verdict)
        return {row[0]: row[1] for row in connection.execute(counted)}

    @writes
    def note_aside(self, connection: Connection, grant_id: int, consent: int, generation: int) -> None:
        """Note that an unread answer of an attempt is kept aside; call it before the answer is moved there.

        As long as this stands and no newer pair has come, nobody is asked to authorize again.
        """
        attempt = is_attempt(grant_id, consent, generation)
        connection.execute(update(ATTEMPTS).where(attempt).values(aside_at=func.coalesce(ATTEMPTS.c.aside_at, now())))

    @writes
    def forget_aside(self, connection: Connection, grant_id: int, consent: int, generation: int) -> bool:
        """Note that no answer of an attempt is kept aside any more; return True if one was."""
        kept = is_attempt(grant_id, consent, generation) & ATTEMPTS.c.aside_at.is_not(None)
        return connection.execute(update(ATTEMPTS).where(kept).values(aside_at=None)).rowcount == 1

    @reads
    def attempts_aside(self, connection: Connection, grant_id: int) -> list[AttemptView]:
        """Return the attempts, newer than the grant's pair, of which an unread answer is kept aside; newest first."""
        kept = (
            select(ATTEMPTS)
            .join(GRANTS, kept_aside())
            .where(GRANTS.c.id == grant_id)
            .order_by(ATTEMPTS.c.generation.desc())
        )
        return [attempt_view(row) for row in connection.execute(kept)]


def _end(connection: Connection, claim: Claim, answer: _Answer, values: dict[str, Any], *, failed: bool) -> bool:
    # The row is locked first: a pair that is being saved is seen here, or waits for us.
    connection.execute(select(GRANTS.c.id).where(GRANTS.c.id == claim.grant_id).with_for_update(key_share=True))
    _finish(connection, claim.grant_id, claim.consent, claim.generation, answer)
    newest = and_(
        GRANTS.c.id == claim.grant_id, GRANTS.c.consent == claim.consent, GRANTS.c.generation == claim.generation
    )
    freed = {"lease_owner": None, "lease_until": None, "updated_at": now()}
    if failed:
        values = values | {"failures": GRANTS.c.failures + 1}
    if answer.cause is not None:
        values = values | {"verdict": _unless_evident(answer.cause)}
    applied = connection.execute(
        update(GRANTS).where(newest, text(REFRESHABLE), _nothing_came_since(claim)).values(**freed, **values)
    )
    if applied.rowcount == 1:
        return True
    connection.execute(update(GRANTS).where(newest).values(**freed))
    return False


def _unless_evident(cause: Cause) -> Any:
    """Return the verdict to store: a refusal that shows nothing does not take back what an earlier one showed."""
    if cause is not Cause.UNKNOWN:
        return cause.value
    evident = GRANTS.c.verdict.in_([each.value for each in EVIDENT])
    return case((and_(text("failures > 0"), evident), GRANTS.c.verdict), else_=cause.value)


def _verdict_of(connection: Connection, grant_id: int) -> str:
    return connection.execute(select(GRANTS.c.verdict).where(GRANTS.c.id == grant_id)).scalar() or Cause.UNKNOWN.value


def _nothing_came_since(claim: Claim) -> ColumnElement[bool]:
    """The current pair, and the kept ones, are those that the claim showed."""
    other = exists().where(
        PAIRS.c.grant_id == GRANTS.c.id,
        PAIRS.c.consent == claim.consent,
        PAIRS.c.generation.not_in(claim.kept),
        PAIRS.c.wiped_at.is_(None),
    )
    return and_(GRANTS.c.pair_generation == claim.pair_generation, ~other)


def _finish(connection: Connection, grant_id: int, consent: int, generation: int, answer: _Answer) -> bool:
    in_doubt = AttemptOutcome.IN_DOUBT
    better = ATTEMPTS.c.outcome == in_doubt.value if answer.outcome is not in_doubt else false()
    finished = connection.execute(
        update(ATTEMPTS)
        .where(is_attempt(grant_id, consent, generation), or_(ATTEMPTS.c.outcome.is_(None), better))
        .values(
            outcome=answer.outcome.value,
            finished_at=now(),
            code=answer.code,
            http_status=answer.http_status,
            request_id=answer.request_id,
            reason=answer.reason,
            verdict=answer.cause,
        )
    )
    return finished.rowcount == 1
