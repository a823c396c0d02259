"""Grants that were revoked here and whose end is not complete: TikTok has not confirmed, or a late pair came.

`grants.ending_at` marks them. It is set in the transaction that revokes a grant, or that stores a pair under a revoked
one, and emptied in the transaction that wipes the last pair. So a process that ends in between leaves work, not a gap.
"""

from __future__ import annotations

from sqlalchemy import Connection, case, exists, func, null, or_, select, text, tuple_, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.grants import wipe_pairs
from worker.store.models import ENDING, GRANTS, PAIRS, TOMBSTONES, UNFINISHED
from worker.store.rows import CURRENT_PAIR, current_pair, is_of_app, lease_is_free, pull_lease_is_free
from worker.store.values import CurrentPair, EndingGrant, EndingsWaiting, GrantStatus


class Endings(Transactions):
    """Bringing revocations to their end."""

    @reads
    def endings_due(self, connection: Connection, limit: int) -> list[int]:
        """Return the ids of revoked grants whose end should be tried now, the longest due first."""
        due = select(GRANTS.c.id).where(is_of_app(connection), text(ENDING), GRANTS.c.ending_at <= now())
        return list(connection.execute(due.order_by(GRANTS.c.ending_at).limit(limit)).scalars())

    @reads
    def ending(self, connection: Connection, grant_id: int) -> EndingGrant | None:
        """Return a grant whose end is not complete; None if it is complete, or the grant is not revoked."""
        row = connection.execute(
            select(
                GRANTS.c.creator_id,
                (now() - GRANTS.c.updated_at).label("waited"),
                or_(~lease_is_free(), ~pull_lease_is_free()).label("busy"),
            ).where(GRANTS.c.id == grant_id, GRANTS.c.status == GrantStatus.REVOKED.value, text(ENDING))
        ).first()
        if row is None:
            return None
        newest = connection.execute(
            select(*CURRENT_PAIR)
            .join_from(GRANTS, PAIRS, GRANTS.c.id == PAIRS.c.grant_id)
            .where(GRANTS.c.id == grant_id, PAIRS.c.wiped_at.is_(None))
            .order_by(PAIRS.c.consent.desc(), PAIRS.c.generation.desc())
            .limit(1)
        ).first()
        return EndingGrant(
            grant_id=grant_id,
            creator_id=row.creator_id,
            pair=None if newest is None else current_pair(newest),
            busy=bool(row.busy),
            waited_seconds=max(0.0, row.waited / 1000),
        )

    @writes
    def end_revocation(self, connection: Connection, grant_id: int, pair: CurrentPair | None) -> None:
        """Wipe a pair that TikTok will take no more, and all older ones; a pair that came since is tried again.

        Nothing changes if the creator has authorized again meanwhile.

        Args:
            connection: given by the decorator.
            grant_id: the grant.
            pair: the pair; None if none was left.
        """
        revoked = connection.execute(
            select(GRANTS.c.id)
            .where(GRANTS.c.id == grant_id, GRANTS.c.status == GrantStatus.REVOKED.value)
            .with_for_update(key_share=True)
        ).first()
        if revoked is None:
            return
        if pair is not None:
            place = tuple_(PAIRS.c.consent, PAIRS.c.generation)
            wipe_pairs(connection, (PAIRS.c.grant_id == grant_id) & (place <= tuple_(pair.consent, pair.generation)))
        left = exists().where(PAIRS.c.grant_id == grant_id, PAIRS.c.wiped_at.is_(None))
        connection.execute(
            update(GRANTS).where(GRANTS.c.id == grant_id).values(ending_at=case((left, now()), else_=null()))
        )

    @writes
    def put_off_ending(self, connection: Connection, grant_id: int, seconds: float) -> None:
        """Try the end of a revoked grant again after some seconds."""
        put_off = update(GRANTS).where(GRANTS.c.id == grant_id, text(ENDING))
        connection.execute(put_off.values(ending_at=now() + milliseconds(seconds)))

    @reads
    def endings_waiting(self, connection: Connection) -> EndingsWaiting:
        """Return how many revocations and removals are not complete."""
        revoking = select(func.count(), func.min(GRANTS.c.updated_at)).where(is_of_app(connection), text(ENDING))
        forgetting = select(func.count(), func.min(TOMBSTONES.c.asked_at)).where(text(UNFINISHED))
        (grants, revoked_at), (creators, asked_at) = (
            connection.execute(counted).one() for counted in (revoking, forgetting)
        )
        return EndingsWaiting(
            revoking=grants,
            forgetting=creators,
            oldest_at=min((at for at in (revoked_at, asked_at) if at is not None), default=None),
        )
