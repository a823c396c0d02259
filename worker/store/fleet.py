"""The fleet as a whole: counts for people and metrics, the coming load, and the evidence for the brake."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    case,
    exists,
    false,
    func,
    select,
    text,
    true,
    type_coerce,
)

from worker.policy.contract import ACCESS_LIFE
from worker.policy.verdicts import WRONG_APP_CODES, AttemptOutcome, Cause, FleetEvidence
from worker.store.clock import milliseconds, now
from worker.store.conditions import conditions, is_serving, kept_aside, newest_attempt
from worker.store.engine import Transactions, reads
from worker.store.models import ATTEMPTS, FINISHED, GRANTS, TERMS, UNRESOLVED
from worker.store.rows import app_of, is_of_app, lease_is_free
from worker.store.values import FleetStatus, GrantCondition, GrantStatus


class LoadSlice(NamedTuple):
    """Grants with tokens of one life that are due in the same slice of time.

    Attributes:
        life_seconds: from the issue of the access token to its end, to the minute.
        slice: number of the slice, counted from now; 0 also holds what is due already.
        grants: how many.
        refreshed: True if a refresh brought the tokens; False for the first pair of a consent. If that was imported,
            its life may be only what was left of it.
    """

    life_seconds: int
    slice: int
    grants: int
    refreshed: bool


class Fleet(Transactions):
    """Counts over all grants."""

    @reads
    def fleet_status(self, connection: Connection) -> FleetStatus:
        """Return the counts that people and metrics look at; it reads every grant once."""
        # The clock is read once and passed as a value: an expression would be computed again for every row.
        at = connection.execute(select(now())).scalar_one()
        row = connection.execute(_counts(connection, at).where(is_of_app(connection))).one()
        return FleetStatus(
            total=row.total,
            by_status={status.value: getattr(row, status.value) for status in GrantStatus},
            fresh=row.fresh,
            due=row.due,
            overdue=row.overdue,
            expired=row.expired,
            retrying=row.retrying,
            in_doubt=row.suspect + _in_doubt(connection),
            needs_reauth=row.needs_reauth,
            unproven=row.unproven,
            held=row.held,
            aside=_aside(connection),
            paused=row.paused,
            least_seconds_left=None if row.first_end is None else (row.first_end - at).total_seconds(),
            paused_seconds_left=None if row.paused_end is None else (row.paused_end - at).total_seconds(),
            oldest_due_seconds=0.0 if row.first_due is None else (at - row.first_due).total_seconds(),
        )

    @reads
    def evidence(self, connection: Connection, *, window_seconds: float, without: int | None = None) -> FleetEvidence:
        """Return how the attempts of the last seconds ended, for all grants but the one left out.

        Refusals of consents whose end has passed do not count, since they were expected: creators who agreed in one
        campaign are refused together a year later, and the others must be refreshed all the same.
        """
        outcome = ATTEMPTS.c.outcome
        short = func.coalesce(ATTEMPTS.c.verdict == Cause.SHORTAGE_HERE.value, false())
        unsent = (outcome == AttemptOutcome.NOT_SENT.value) & ~short
        troubled = unsent | (outcome == AttemptOutcome.IN_DOUBT.value)
        foreseen = func.coalesce(GRANTS.c.refresh_expires_at <= ATTEMPTS.c.finished_at, false())
        refused_app = (outcome == AttemptOutcome.STOPPED.value) & ATTEMPTS.c.code.in_(WRONG_APP_CODES)
        last_pair = _last_pair(now() - milliseconds(window_seconds))
        ended = ATTEMPTS.c.finished_at > now() - milliseconds(window_seconds)
        if without is not None:
            ended = ended & (ATTEMPTS.c.grant_id != without)
        row = connection.execute(
            select(
                func.count().filter(outcome == AttemptOutcome.REFRESHED.value).label("refreshed"),
                _grants((outcome == AttemptOutcome.REFUSED.value) & ~foreseen).label("refused"),
                _grants(outcome == AttemptOutcome.STOPPED.value).label("stopped"),
                func.count().filter(troubled).label("troubled"),
                _grants(troubled).label("troubled_grants"),
                _grants(refused_app & (ATTEMPTS.c.finished_at > last_pair)).label("app_refused"),
                func.count().filter(unsent).label("unsent"),
                func.count().filter(short).label("short"),
            )
            .select_from(ATTEMPTS)
            .with_hint(ATTEMPTS, "INDEXED BY ix_attempts_finished", "sqlite")
            .join(GRANTS, GRANTS.c.id == ATTEMPTS.c.grant_id)
            .where(text(FINISHED), ended, is_of_app(connection))
        ).one()
        return FleetEvidence(
            refreshed=row.refreshed,
            refused=row.refused,
            stopped=row.stopped,
            troubled=row.troubled,
            troubled_grants=row.troubled_grants,
            app_refused=row.app_refused,
            unsent=row.unsent,
            short=row.short,
        )

    @reads
    def load(self, connection: Connection, *, slice_seconds: int) -> list[LoadSlice]:
        """Return how many grants are due in each slice of time; it reads every grant once.

        If TikTok has changed the life of access tokens, grants that it has not refreshed since count with the new life.

        Args:
            connection: given by the decorator.
            slice_seconds: length of a slice.
        """
        at = connection.execute(select(now())).scalar_one()
        grant = GRANTS.c
        life = type_coerce(grant.access_expires_at - grant.issued_at, BigInteger) // milliseconds(60)
        changed = connection.execute(
            select(TERMS.c.value, TERMS.c.changed_at).where(
                TERMS.c.app_id == app_of(connection), TERMS.c.term == ACCESS_LIFE, TERMS.c.changed_at.is_not(None)
            )
        ).first()
        if changed is not None:
            life = case((grant.issued_at < changed.changed_at, int(changed.value) // 60), else_=life)
        ahead = type_coerce(grant.next_refresh_at - at, BigInteger) // milliseconds(slice_seconds)
        number = case((grant.next_refresh_at <= at, 0), else_=ahead).label("number")
        attempt = ATTEMPTS.c  # pruning keeps the newest attempt of each grant
        refreshed = exists().where(
            attempt.grant_id == grant.id,
            attempt.consent == grant.consent,
            attempt.generation == grant.pair_generation,
        )
        rows = connection.execute(
            select(life.label("life"), number, func.count().label("grants"), refreshed.label("refreshed"))
            .where(is_of_app(connection), grant.status.in_([GrantStatus.ACTIVE.value, GrantStatus.SUSPECT.value]))
            .group_by("life", "number", "refreshed")
            .order_by("life", "number", "refreshed")
        )
        return [LoadSlice(int(row.life) * 60, int(row.number), row.grants, bool(row.refreshed)) for row in rows]


def _last_pair(since: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return when the newest attempt that brought a pair ended, or `since` if that was earlier."""
    other = ATTEMPTS.alias("brought")
    brought = (text("brought.finished_at IS NOT NULL"), other.c.outcome == AttemptOutcome.REFRESHED.value)
    newest = select(func.max(other.c.finished_at)).where(*brought, other.c.finished_at > since)
    return func.coalesce(newest.scalar_subquery(), since)


def _grants(which: ColumnElement[bool]) -> ColumnElement[int]:
    """Count the grants of these attempts; a grant that is tried repeatedly counts once."""
    return func.count(case((which, ATTEMPTS.c.grant_id)).distinct())


def _counts(connection: Connection, at: datetime) -> Select[*tuple[Any, ...]]:
    """Return the query that reads every grant once; conditions that depend on attempts are counted separately."""
    grant, is_a = GRANTS.c, conditions(connection, at)
    by_attempts = {GrantCondition.IN_DOUBT, GrantCondition.ASIDE}
    counts = {
        "total": true(),
        **{status.value: grant.status == status.value for status in GrantStatus},
        **{condition.value: is_a[condition] for condition in GrantCondition if condition not in by_attempts},
    }
    return select(
        *(func.count(case((counted, 1))).label(name) for name, counted in counts.items()),
        func.min(case((is_serving(), grant.access_expires_at))).label("first_end"),
        func.min(case((is_a[GrantCondition.PAUSED], grant.access_expires_at))).label("paused_end"),
        func.min(case((is_a[GrantCondition.DUE], grant.next_refresh_at))).label("first_due"),
    )


def _in_doubt(connection: Connection) -> int:
    """Return how many active grants' newest attempt was sent, or may have been, and has no complete answer."""
    return connection.execute(
        select(func.count())
        .select_from(ATTEMPTS)
        .join(GRANTS, newest_attempt())
        .where(text(UNRESOLVED), is_of_app(connection), GRANTS.c.status == GrantStatus.ACTIVE.value, lease_is_free())
    ).scalar_one()


def _aside(connection: Connection) -> int:
    """Return how many serving grants wait for the operator, because an unread answer is kept aside."""
    return connection.execute(
        select(func.count(GRANTS.c.id.distinct()))
        .select_from(ATTEMPTS)
        .join(GRANTS, kept_aside())
        .where(is_of_app(connection), is_serving())
    ).scalar_one()
