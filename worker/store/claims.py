"""Claims: the right to refresh one grant for a bounded time, won by one committed transaction."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select, text, true, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import ATTEMPTS, GRANTS, PAIRS
from worker.store.predicates import REFRESHABLE, UNRESOLVED
from worker.store.rows import PAIR_BYTES, AnyRow, is_attempt, lease_is_free, sealed_pair
from worker.store.values import Claim, GrantStatus, PairVersion

CLAIMED: Final = (
    GRANTS.c.id,
    GRANTS.c.creator_id,
    GRANTS.c.consent,
    GRANTS.c.generation,
    GRANTS.c.pair_generation,
    GRANTS.c.status,
    GRANTS.c.failures,
    GRANTS.c.jitter,
    GRANTS.c.issued_at,
    GRANTS.c.access_expires_at,
    GRANTS.c.refresh_expires_at,
    GRANTS.c.scope,
    GRANTS.c.lease_until,
    GRANTS.c.unproven_since,
)


class Claims(Transactions):
    """Winning, keeping and giving back the right to refresh a grant."""

    @writes
    def claim(
        self, connection: Connection, grant_id: int, *, owner: str, lease_seconds: float, force: bool = False
    ) -> Claim | None:
        """Claim a due grant: raise its generation, take the lease and write the attempt down, in one commit.

        Args:
            connection: given by the decorator.
            grant_id: the grant.
            owner: who claims, for people who look at the row.
            lease_seconds: how long the claim lasts, on the database's clock.
            force: True to claim a grant that is not due; a held lease is respected all the same.

        Returns:
            The claim, or None where the grant is unknown, not due, leased, or not to be refreshed at all.
        """
        won = connection.execute(
            update(GRANTS)
            .where(
                GRANTS.c.id == grant_id,
                text(REFRESHABLE),
                lease_is_free(),
                true() if force else GRANTS.c.next_refresh_at <= now(),
            )
            .values(
                generation=GRANTS.c.generation + 1,
                lease_owner=owner,
                lease_until=now() + milliseconds(lease_seconds),
                updated_at=now(),
            )
            .returning(*CLAIMED, now().label("now"))
        ).first()
        if won is None:
            return None
        connection.execute(
            insert(ATTEMPTS).values(
                grant_id=won.id, consent=won.consent, generation=won.generation, owner=owner, claimed_at=now()
            )
        )
        return _claim(won, owner, _versions(connection, won), _unresolved(connection, won))

    @writes
    def extend_lease(self, connection: Connection, claim: Claim, lease_seconds: float) -> bool:
        """Prolong a lease that is still held.

        Returns:
            False where it is lost: send nothing more under this claim; what TikTok answers is stored all the same.
        """
        extended = connection.execute(
            update(GRANTS)
            .where(holds_lease(claim), GRANTS.c.lease_until > now())
            .values(lease_until=now() + milliseconds(lease_seconds))
        )
        return extended.rowcount == 1

    @reads
    def lease_seconds_left(self, connection: Connection, claim: Claim) -> float:
        """Return for how many seconds the claim still holds; 0 where it is lost."""
        row = connection.execute(
            select(GRANTS.c.lease_until, now().label("now")).where(holds_lease(claim), GRANTS.c.lease_until > now())
        ).first()
        return 0.0 if row is None else float((row.lease_until - row.now).total_seconds())

    @writes
    def unclaim(self, connection: Connection, claim: Claim) -> bool:
        """Give a claim back under which nothing was sent: the attempt is forgotten, the schedule stays.

        The generation stays raised, so that no number is ever given twice.

        Returns:
            True where the lease was still this claim's.
        """
        freed = connection.execute(
            update(GRANTS).where(holds_lease(claim)).values(lease_owner=None, lease_until=None, updated_at=now())
        )
        connection.execute(
            delete(ATTEMPTS).where(
                is_attempt(claim.grant_id, claim.consent, claim.generation), ATTEMPTS.c.outcome.is_(None)
            )
        )
        return freed.rowcount == 1


def holds_lease(claim: Claim) -> ColumnElement[bool]:
    """The grant's lease was taken by this claim, and by none since."""
    return and_(
        GRANTS.c.id == claim.grant_id,
        GRANTS.c.generation == claim.generation,
        GRANTS.c.lease_owner == claim.owner,
    )


def _versions(connection: Connection, won: AnyRow) -> tuple[PairVersion, ...]:
    kept = connection.execute(
        select(PAIRS.c.generation, *PAIR_BYTES)
        .where(PAIRS.c.grant_id == won.id, PAIRS.c.consent == won.consent, PAIRS.c.wiped_at.is_(None))
        .order_by(PAIRS.c.generation.desc())
    )
    return tuple(PairVersion(won.consent, row.generation, sealed_pair(row)) for row in kept)


def _unresolved(connection: Connection, won: AnyRow) -> tuple[int, ...]:
    # Attempts older than the current pair are of no interest: the pair was won after them, so it is what TikTok
    # gave last. A newer one whose answer is not known may have rotated the current pair away.
    doubtful = connection.execute(
        select(ATTEMPTS.c.generation)
        .where(
            ATTEMPTS.c.grant_id == won.id,
            ATTEMPTS.c.consent == won.consent,
            ATTEMPTS.c.generation > won.pair_generation,
            ATTEMPTS.c.generation < won.generation,
            text(UNRESOLVED),
        )
        .order_by(ATTEMPTS.c.generation)
    )
    return tuple(doubtful.scalars())


def _claim(won: AnyRow, owner: str, versions: tuple[PairVersion, ...], unresolved: tuple[int, ...]) -> Claim:
    return Claim(
        grant_id=won.id,
        creator_id=won.creator_id,
        consent=won.consent,
        generation=won.generation,
        owner=owner,
        claimed_at=won.now,
        lease_until=won.lease_until,
        status=GrantStatus(won.status),
        versions=versions,
        unresolved=unresolved,
        failures=won.failures,
        jitter=won.jitter,
        issued_at=won.issued_at,
        access_expires_at=won.access_expires_at,
        refresh_expires_at=won.refresh_expires_at,
        scope=won.scope,
        pair_generation=won.pair_generation,
        unproven=won.unproven_since is not None,
    )
