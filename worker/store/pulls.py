"""Pulls of account data: which are due, the right to pull, and the snapshots that they stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, TextClause, case, func, literal, null, select, text, update

from worker.store.clock import Instant, milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS, HEALTHY, PAIRS, PULL_WANTED, SNAPSHOTS
from worker.store.rows import CURRENT_PAIR, current_pair, is_current_pair, is_of_app, is_paused, pull_lease_is_free
from worker.store.values import CurrentPair, PullClaim, SnapshotView


class Pulls(Transactions):
    """Account-data pulls and their snapshots."""

    @reads
    def due_pulls(self, connection: Connection, limit: int) -> list[int]:
        """Return the ids of grants whose pull is due and not under way, the longest due first."""
        wanted = (
            select(GRANTS.c.id)
            .with_hint(GRANTS, "INDEXED BY ix_grants_pull_wanted", "sqlite")
            .where(*_pull_is_due(connection))
            .order_by(GRANTS.c.next_pull_at)
            .limit(limit)
        )
        return list(connection.execute(wanted).scalars())

    @reads
    def pulls_wait(self, connection: Connection, seconds: float) -> bool:
        """Return True if a pull has been due for at least these seconds and is not under way."""
        waiting = (
            select(GRANTS.c.id)
            .with_hint(GRANTS, "INDEXED BY ix_grants_pull_wanted", "sqlite")
            .where(*_pull_is_due(connection), GRANTS.c.next_pull_at <= now() - milliseconds(seconds))
            .limit(1)
        )
        return connection.execute(waiting).first() is not None

    @reads
    def is_pull_due(self, connection: Connection, grant_id: int) -> bool:
        """Return True if a claim on this pull would be won now."""
        wanted = select(GRANTS.c.id).where(GRANTS.c.id == grant_id, *_pull_is_due(connection))
        return connection.execute(wanted).first() is not None

    @reads
    def unused_pairs(
        self, connection: Connection, after_id: int, stretch: int, *, unused_seconds: float, limit: int
    ) -> tuple[list[CurrentPair], int]:
        """Return current pairs, valid and proven, of healthy grants of which TikTok has said nothing for long.

        Paused grants are left out.

        Args:
            connection: given by the decorator.
            after_id: only grants after this id.
            stretch: how many ids to look at.
            unused_seconds: least time since the last refresh, pull or look-up.
            limit: most pairs to return.

        Returns:
            The pairs in the order of their grants' ids, and the id to go on after; 0 for the beginning.
        """
        grant, before = GRANTS.c, now() - milliseconds(unused_seconds)
        unused = (
            select(*CURRENT_PAIR)
            .join_from(GRANTS, PAIRS, is_current_pair())
            .where(
                is_of_app(connection),
                grant.id > after_id,
                grant.id <= after_id + stretch,
                text(f"grants.{HEALTHY.replace(' AND ', ' AND grants.')}"),
                grant.access_expires_at > now(),
                grant.issued_at <= before,
                func.coalesce(grant.pulled_at, grant.issued_at) <= before,
                func.coalesce(grant.checked_at, grant.issued_at) <= before,
                grant.unproven_since.is_(None),
                grant.belongs_to.is_(None),
                PAIRS.c.wiped_at.is_(None),
                ~is_paused(connection),
            )
            .order_by(grant.id)
            .limit(limit)
        )
        found = [current_pair(row) for row in connection.execute(unused)]
        if len(found) == limit:
            return found, found[-1].grant_id
        last = connection.execute(select(func.max(grant.id))).scalar() or 0
        return found, after_id + stretch if after_id + stretch < last else 0

    @writes
    def note_checked(self, connection: Connection, grant_id: int) -> None:
        """Note that TikTok was asked about a grant's access token just now."""
        connection.execute(update(GRANTS).where(GRANTS.c.id == grant_id).values(checked_at=now()))

    @writes
    def claim_pull(
        self, connection: Connection, grant_id: int, *, owner: str, lease_seconds: float
    ) -> PullClaim | None:
        """Claim a pull that is due, with the pair to read by.

        Returns:
            None if the grant is unknown, no pull is due, another holds the lease, or the grant is paused.
        """
        won = connection.execute(
            update(GRANTS)
            .where(GRANTS.c.id == grant_id, *_pull_is_due(connection))
            .values(pull_lease_owner=owner, pull_lease_until=now() + milliseconds(lease_seconds))
            .returning(GRANTS.c.pull_failures, GRANTS.c.pull_lease_until, GRANTS.c.next_pull_at)
        ).first()
        if won is None:
            return None
        pair = connection.execute(
            select(*CURRENT_PAIR).join_from(GRANTS, PAIRS, is_current_pair()).where(GRANTS.c.id == grant_id)
        ).one()
        return PullClaim(
            grant_id=grant_id,
            owner=owner,
            pair=current_pair(pair),
            pull_failures=won.pull_failures,
            lease_until=won.pull_lease_until,
            wanted_at=won.next_pull_at,
        )

    @writes
    def end_pull(self, connection: Connection, claim: PullClaim, *, next_pull_at: datetime | None) -> None:
        """End a pull that brought something, even if its lease has run out.

        If another pull was requested since the claim, that request stays.

        Args:
            connection: given by the decorator.
            claim: the claim of the pull.
            next_pull_at: when the next pull is wanted; None for the one that follows the next refresh.
        """
        again = null() if next_pull_at is None else literal(next_pull_at, Instant)
        connection.execute(
            update(GRANTS)
            .where(GRANTS.c.id == claim.grant_id)
            .values(pulled_at=now(), pull_failures=0, next_pull_at=_unless_wanted_since(claim, again))
        )
        _free_lease(connection, claim)

    @writes
    def defer_pull(
        self, connection: Connection, claim: PullClaim, *, next_pull_at: datetime | None, failed: bool
    ) -> None:
        """End a pull that brought nothing.

        Args:
            connection: given by the decorator.
            claim: the claim of the pull.
            next_pull_at: when to try again; None for no pull until another is requested.
            failed: whether this counts as a failure.
        """
        connection.execute(
            update(GRANTS)
            .where(GRANTS.c.id == claim.grant_id)
            .values(
                next_pull_at=_unless_wanted_since(
                    claim, null() if next_pull_at is None else literal(next_pull_at, Instant)
                ),
                pull_failures=GRANTS.c.pull_failures + int(failed),
            )
        )
        _free_lease(connection, claim)

    @reads
    def snapshots(self, connection: Connection, grant_id: int, limit: int = 10) -> list[SnapshotView]:
        """Return a grant's snapshots, newest first."""
        stored = select(SNAPSHOTS).where(SNAPSHOTS.c.grant_id == grant_id).order_by(SNAPSHOTS.c.id.desc()).limit(limit)
        return [SnapshotView(row.grant_id, row.pulled_at, row.data) for row in connection.execute(stored)]


def _pull_is_due(connection: Connection) -> tuple[ColumnElement[bool] | TextClause, ...]:
    due = (text(PULL_WANTED), is_of_app(connection), GRANTS.c.next_pull_at <= now(), pull_lease_is_free())
    return *due, ~is_paused(connection)


def _unless_wanted_since(claim: PullClaim, at: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the next time of a pull: the given one, unless another pull was requested after the claim."""
    return case((GRANTS.c.next_pull_at == claim.wanted_at, at), else_=GRANTS.c.next_pull_at)


def _free_lease(connection: Connection, claim: PullClaim) -> None:
    connection.execute(
        update(GRANTS)
        .where(
            GRANTS.c.id == claim.grant_id,
            GRANTS.c.pull_lease_owner == claim.owner,
            GRANTS.c.pull_lease_until == claim.lease_until,
        )
        .values(pull_lease_owner=None, pull_lease_until=None)
    )
