"""Claims: the right to refresh grants for a bounded time, won for a whole group by one committed transaction.

A row that another transaction holds locked is left out rather than waited for: its holder is at work on that grant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import JSON, BigInteger, Double, Integer, LargeBinary, Text, TypeEngine

from worker.store.clock import NOW, Instant, milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import ATTEMPTS, BRAKE, GRANTS, PAIRS, REFRESHABLE, UNRESOLVED
from worker.store.rows import AMONG, BRAKE_STATE, PAIR_BYTES, AnyRow, among, sealed_pair
from worker.store.values import BrakeState, Claim, Claimable, GrantStatus, PairVersion

GRANT_COLUMNS: Final[dict[str, type[TypeEngine[Any]]]] = {
    "id": BigInteger,
    "creator_id": Text,
    "consent": Integer,
    "generation": Integer,
    "pair_generation": Integer,
    "status": Text,
    "failures": Integer,
    "jitter": Double,
    "issued_at": Instant,
    "access_expires_at": Instant,
    "refresh_expires_at": Instant,
    "scope": Text,
    "lease_until": Instant,
    "updated_at": Instant,
    "unproven_since": Instant,
}
"""What a claim returns of its grant; `updated_at` is the database's time of the claim."""
PAIR_COLUMNS: Final = {"sealed_access": LargeBinary, "sealed_refresh": LargeBinary, "key_id": BigInteger}
CURRENT_PAIR: Final = (
    "p.grant_id = g.id AND p.consent = g.consent AND p.generation = g.pair_generation AND p.wiped_at IS NULL"
)
# Attempts older than the current pair are of no interest: the pair was won after them, so it is what TikTok gave last.
# A newer one whose answer is not known may have rotated the current pair away.
IN_DOUBT: Final = (
    "a.grant_id = g.id AND a.consent = g.consent AND a.generation > g.pair_generation"
    f" AND a.generation < g.generation AND {UNRESOLVED}"
)
KEPT: Final = "k.grant_id = g.id AND k.consent = g.consent AND k.wiped_at IS NULL"


NOT_PAUSED: Final = (
    "NOT EXISTS (SELECT 1 FROM pauses WHERE app_id = :app AND reference = '' AND creator_id = '')"
    " AND creator_id NOT IN (SELECT creator_id FROM pauses WHERE app_id = :app)"
    " AND (reference IS NULL"
    " OR reference NOT IN (SELECT reference FROM pauses WHERE app_id = :app AND reference <> ''))"
)
"""No pause covers the grant, asked in the statement of the claim itself: as `is_paused` of `rows`."""


def _due(dialect: str) -> str:
    return (
        f"{AMONG[dialect]} AND {REFRESHABLE} AND app_id IN ('', :app) AND {NOT_PAUSED}"
        f" AND (lease_until IS NULL OR lease_until <= {NOW[dialect]})"
        f" AND (:force OR next_refresh_at <= {NOW[dialect]})"
    )


def _win(dialect: str, where: str) -> str:
    """Return the UPDATE that takes the lease of grants."""
    return f"""
        UPDATE grants SET generation = generation + 1, lease_owner = :owner,
               lease_until = {NOW[dialect]} + :lease, updated_at = {NOW[dialect]}
         WHERE {where}
        RETURNING {", ".join(GRANT_COLUMNS)}"""  # noqa: S608 - our own words, no value


_CLAIMABLE: Final = {
    dialect: text(f"""
        SELECT due.id AS due, {", ".join(f"b.{column.name}" for column in BRAKE_STATE)}
          FROM (SELECT 1 AS one) AS always
          LEFT JOIN {BRAKE.name} b ON b.app_id IN ('', :app)
          LEFT JOIN (SELECT id FROM grants WHERE {_due(dialect)}) AS due ON TRUE""")  # noqa: S608 - our own words
    .bindparams(force=False)
    .columns(due=BigInteger, **{column.name: column.type for column in BRAKE_STATE})
    for dialect in NOW
}
"""How the brake stands and what is due, asked at once; a row without an id if nothing is."""
_POSTGRESQL: Final = text(f"""
    WITH open AS MATERIALIZED (
      SELECT id FROM grants WHERE {_due("postgresql")} ORDER BY id FOR NO KEY UPDATE SKIP LOCKED),
    g AS ({_win("postgresql", "id IN (SELECT id FROM open)")}),
    noted AS (
      INSERT INTO attempts (grant_id, consent, generation, owner, claimed_at)
      SELECT id, consent, generation, :owner, updated_at FROM g)
    SELECT g.*, p.sealed_access, p.sealed_refresh, p.key_id,
           ARRAY(SELECT k.generation FROM pairs k WHERE {KEPT}) AS kept,
           ARRAY(SELECT a.generation FROM attempts a WHERE {IN_DOUBT}) AS unresolved
      FROM g LEFT JOIN pairs p ON {CURRENT_PAIR}""").columns(  # noqa: S608 - our own words, no value
    **GRANT_COLUMNS, **PAIR_COLUMNS, kept=ARRAY(Integer), unresolved=ARRAY(Integer)
)
_SQLITE: Final = (
    text(_win("sqlite", _due("sqlite"))).columns(**GRANT_COLUMNS),
    text(f"""
        INSERT INTO attempts (grant_id, consent, generation, owner, claimed_at)
        SELECT id, consent, generation, :owner, updated_at FROM grants WHERE {AMONG["sqlite"]}"""),  # noqa: S608 - our own words, no value
    text(f"""
        SELECT g.id, p.sealed_access, p.sealed_refresh, p.key_id,
               (SELECT json_group_array(k.generation) FROM pairs k WHERE {KEPT}) AS kept,
               (SELECT json_group_array(a.generation) FROM attempts a WHERE {IN_DOUBT}) AS unresolved
          FROM grants g LEFT JOIN pairs p ON {CURRENT_PAIR}
         WHERE g.{AMONG["sqlite"]}""").columns(  # noqa: S608 - our own words, no value
        id=BigInteger, **PAIR_COLUMNS, kept=JSON, unresolved=JSON
    ),
)


class Claims(Transactions):
    """Winning, keeping and giving back the right to refresh grants."""

    @reads
    def claimable(self, connection: Connection, ids: Sequence[int]) -> Claimable:
        """Return which of these grants a claim would win now, in their order, and how the brake stands."""
        asked = {"ids": among(connection, ids), "app": self.app_id}
        rows = connection.execute(_CLAIMABLE[connection.dialect.name], asked).all()
        due = {row.due for row in rows}
        return Claimable(due=tuple(grant_id for grant_id in ids if grant_id in due), brake=BrakeState(*rows[0][1:]))

    @writes
    def claim_group(
        self, connection: Connection, ids: Sequence[int], *, owner: str, lease_seconds: float, force: bool = False
    ) -> list[Claim]:
        """Claim due grants: raise their generations, take the leases and insert the attempts, in one commit.

        Args:
            connection: given by the decorator.
            ids: the grants.
            owner: who claims, for people who look at the rows.
            lease_seconds: how long the claims last, on the database's clock.
            force: True to claim grants that are not due; a held lease is respected all the same.

        Returns:
            The claims that were won, in the order of the ids. A grant is left out that is unknown, not due, leased, not
            to be refreshed at all, paused, or locked by another transaction.
        """
        wanted = {"owner": owner, "lease": milliseconds(lease_seconds), "force": force, "app": self.app_id}
        if connection.dialect.name == "postgresql":
            rows = connection.execute(_POSTGRESQL, {"ids": among(connection, ids), **wanted})
            claims = {row.id: _claim(row, row, owner) for row in rows}
        else:
            win, note, read = _SQLITE
            won = {row.id: row for row in connection.execute(win, {"ids": among(connection, ids), **wanted}).all()}
            ours = {"ids": among(connection, list(won))}
            connection.execute(note, {"owner": owner, **ours})
            claims = {row.id: _claim(won[row.id], row, owner) for row in connection.execute(read, ours)}
        return [claims[grant_id] for grant_id in dict.fromkeys(ids) if grant_id in claims]

    @reads
    def kept_versions(self, connection: Connection, claim: Claim) -> tuple[PairVersion, ...]:
        """Return the stored pairs of a claim's consent that were not wiped, newest first."""
        kept = connection.execute(
            select(PAIRS.c.generation, *PAIR_BYTES)
            .where(PAIRS.c.grant_id == claim.grant_id, PAIRS.c.consent == claim.consent, PAIRS.c.wiped_at.is_(None))
            .order_by(PAIRS.c.generation.desc())
        )
        return tuple(PairVersion(claim.consent, row.generation, sealed_pair(row)) for row in kept)

    @writes
    def extend_lease(self, connection: Connection, claim: Claim, lease_seconds: float) -> bool:
        """Extend a lease that is still held.

        Returns:
            False if it is lost: send nothing more under this claim; an answer of TikTok is stored all the same.
        """
        extended = connection.execute(
            update(GRANTS)
            .where(holds_lease(claim), GRANTS.c.lease_until > now())
            .values(lease_until=now() + milliseconds(lease_seconds))
        )
        return extended.rowcount == 1

    @writes
    def give_back(self, connection: Connection, claims: Sequence[Claim]) -> int:
        """Give back claims under which nothing was sent: their attempts are deleted, the schedules stay.

        The generations stay raised, so that no number is ever used twice.

        Returns:
            How many leases were still those of the claims.
        """
        freed = connection.execute(
            update(GRANTS)
            .where(
                tuple_(GRANTS.c.id, GRANTS.c.generation, GRANTS.c.lease_owner).in_(
                    [(claim.grant_id, claim.generation, claim.owner) for claim in claims]
                )
            )
            .values(lease_owner=None, lease_until=None, updated_at=now())
        )
        connection.execute(
            delete(ATTEMPTS).where(
                tuple_(ATTEMPTS.c.grant_id, ATTEMPTS.c.consent, ATTEMPTS.c.generation).in_(
                    [(claim.grant_id, claim.consent, claim.generation) for claim in claims]
                ),
                ATTEMPTS.c.outcome.is_(None),
            )
        )
        return freed.rowcount


def holds_lease(claim: Claim) -> ColumnElement[bool]:
    """The grant's lease was taken by this claim, and by none since."""
    return and_(
        GRANTS.c.id == claim.grant_id,
        GRANTS.c.generation == claim.generation,
        GRANTS.c.lease_owner == claim.owner,
    )


def _claim(won: AnyRow, with_pair: AnyRow, owner: str) -> Claim:
    return Claim(
        grant_id=won.id,
        creator_id=won.creator_id,
        consent=won.consent,
        generation=won.generation,
        owner=owner,
        claimed_at=won.updated_at,
        lease_until=won.lease_until,
        status=GrantStatus(won.status),
        sealed=None if with_pair.key_id is None else sealed_pair(with_pair),
        kept=tuple(sorted(with_pair.kept, reverse=True)),
        unresolved=tuple(sorted(with_pair.unresolved)),
        failures=won.failures,
        jitter=won.jitter,
        issued_at=won.issued_at,
        access_expires_at=won.access_expires_at,
        refresh_expires_at=won.refresh_expires_at,
        scope=won.scope,
        pair_generation=won.pair_generation,
        unproven=won.unproven_since is not None,
    )
