"""Storing the pair that an answer brought: a record of what TikTok has done already, so it is never refused.

The pair becomes a version in any case: after the lease ran out, from a replayed journal, for an older consent. The
grant's pointer only moves forward: to a higher generation of the same consent. A second time changes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from worker.errors import NotFoundError
from worker.store.clock import now
from worker.store.engine import Transactions, writes
from worker.store.models import ATTEMPTS, GRANTS, NOTICES, PAIRS
from worker.store.rows import is_attempt
from worker.store.values import AttemptOutcome, GrantStatus, NewPair, Saved

UNWELL: Final = frozenset({GrantStatus.SUSPECT, GrantStatus.NEEDS_REAUTH})


class Saving(Transactions):
    """Storing pairs."""

    @writes
    def save_pair(
        self,
        connection: Connection,
        grant_id: int,
        consent: int,
        generation: int,
        pair: NewPair,
        *,
        outcome: AttemptOutcome = AttemptOutcome.REFRESHED,
        request_id: str | None = None,
        want_pull: bool = True,
    ) -> Saved:
        """Store a pair and make it current, unless a newer one or a newer consent is.

        Where it becomes current the grant is active again, its failures are forgotten, and a notice that asks the
        creator to authorize is withdrawn if it was not delivered yet. Only the lease of this very attempt is freed.
        Of two pairs with the same number the first is kept.

        Args:
            connection: given by the decorator.
            grant_id: the grant.
            consent: the consent that the attempt belonged to.
            generation: the attempt's number.
            pair: what is stored.
            outcome: how the attempt ended.
            request_id: TikTok's `request_id`.
            want_pull: True to want an account-data pull where the pair becomes current.

        Raises:
            NotFoundError: no such grant.
        """
        grant = connection.execute(
            select(GRANTS).where(GRANTS.c.id == grant_id).with_for_update(key_share=True)
        ).first()
        if grant is None:
            raise NotFoundError(f"there is no grant {grant_id}")
        if pair.refresh_kept and pair.refresh_expires_at is None:
            pair = replace(pair, refresh_expires_at=_end_before(connection, grant_id, consent, generation))
        before = GrantStatus(grant.status)
        moves = grant.consent == consent and grant.pair_generation < generation and before is not GrantStatus.REVOKED
        moves = _add_version(connection, grant_id, consent, generation, pair, current=moves) and moves
        if moves:
            _supersede(connection, grant_id, consent, generation)
            _move_pointer(connection, grant_id, generation, pair, want_pull=want_pull)
            withdraw_reauth(connection, grant_id, consent, grant.pair_generation)
        _free_lease(connection, grant_id, generation)
        _finish_attempt(connection, is_attempt(grant_id, consent, generation), outcome, request_id)
        return Saved(
            grant_id=grant_id,
            moved=moves or (grant.consent, grant.pair_generation) == (consent, generation),
            revived=moves and before in UNWELL,
            status=GrantStatus.ACTIVE if moves else before,
        )


def withdraw_reauth(connection: Connection, grant_id: int, consent: int, pair_generation: int) -> None:
    """Delete the notice that asks a creator to authorize, unless it was delivered already."""
    key = reauth_key(grant_id, consent, pair_generation)
    connection.execute(delete(NOTICES).where(NOTICES.c.dedupe_key == key, NOTICES.c.delivered_at.is_(None)))


def reauth_key(grant_id: int, consent: int, pair_generation: int) -> str:
    """Return the key that makes the request for a new authorization one of a kind.

    The pair that was current belongs to it: a grant that came back to life and is lost again needs its creator again.
    """
    return f"reauth:{grant_id}:{consent}.{pair_generation}"


def insert_unless_known(connection: Connection, table: Table) -> Any:
    """Return an INSERT that leaves a row of the same key as it is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def add_unless_known(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one of the same key is there; return True where it was inserted."""
    # RETURNING tells it surely; the row count of an INSERT is not kept on every driver.
    statement = insert_unless_known(connection, table).values(**values).returning(*table.primary_key)
    return connection.execute(statement).first() is not None


def _end_before(connection: Connection, grant_id: int, consent: int, generation: int) -> datetime | None:
    """Return the end of the refresh token of the newest pair before this one, of the same consent."""
    return connection.execute(
        select(PAIRS.c.refresh_expires_at)
        .where(PAIRS.c.grant_id == grant_id, PAIRS.c.consent == consent, PAIRS.c.generation < generation)
        .order_by(PAIRS.c.generation.desc())
        .limit(1)
    ).scalar()


def _add_version(
    connection: Connection, grant_id: int, consent: int, generation: int, pair: NewPair, *, current: bool
) -> bool:
    """Add the pair; return False where one with this number is stored already."""
    return add_unless_known(
        connection,
        PAIRS,
        grant_id=grant_id,
        consent=consent,
        generation=generation,
        sealed_access=pair.sealed.sealed_access,
        sealed_refresh=pair.sealed.sealed_refresh,
        key_id=pair.sealed.key_id,
        issued_at=pair.issued_at,
        access_expires_at=pair.access_expires_at,
        refresh_expires_at=pair.refresh_expires_at,
        stored_at=now(),
        superseded_at=None if current else now(),
    )


def _supersede(connection: Connection, grant_id: int, consent: int, generation: int) -> None:
    connection.execute(
        update(PAIRS)
        .where(
            PAIRS.c.grant_id == grant_id,
            or_(PAIRS.c.consent != consent, PAIRS.c.generation != generation),
            PAIRS.c.superseded_at.is_(None),
        )
        .values(superseded_at=now())
    )


def _move_pointer(connection: Connection, grant_id: int, generation: int, pair: NewPair, *, want_pull: bool) -> None:
    values: dict[str, Any] = {
        "pair_generation": generation,
        "status": GrantStatus.ACTIVE.value,
        "issued_at": pair.issued_at,
        "access_expires_at": pair.access_expires_at,
        "refresh_expires_at": pair.refresh_expires_at,
        "next_refresh_at": pair.next_refresh_at,
        "failures": 0,
        "last_reason": None,
        "unproven_since": None,
        "belongs_to": None,
        "updated_at": now(),
    }
    if pair.scope is not None:
        values["scope"] = pair.scope
    if want_pull:
        values["next_pull_at"] = now()
    connection.execute(
        update(GRANTS).where(GRANTS.c.id == grant_id, GRANTS.c.pair_generation < generation).values(**values)
    )


def _free_lease(connection: Connection, grant_id: int, generation: int) -> None:
    connection.execute(
        update(GRANTS)
        .where(GRANTS.c.id == grant_id, GRANTS.c.generation == generation, GRANTS.c.lease_owner.is_not(None))
        .values(lease_owner=None, lease_until=None)
    )


def _finish_attempt(
    connection: Connection,
    attempt: ColumnElement[bool],
    outcome: AttemptOutcome,
    request_id: str | None,
) -> None:
    # A late pair turns an attempt in doubt into a refreshed one; nothing ever turns it back.
    connection.execute(
        update(ATTEMPTS)
        .where(
            attempt,
            or_(ATTEMPTS.c.outcome.is_(None), ATTEMPTS.c.outcome != AttemptOutcome.REFRESHED.value),
        )
        .values(outcome=outcome.value, finished_at=now(), request_id=request_id, reason=None)
    )
