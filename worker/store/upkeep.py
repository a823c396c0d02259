"""Upkeep of what is stored: stale attempts, superseded pairs, re-sealing and old history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, or_, select, text, tuple_, update

from worker.policy.notice_kinds import NEWS
from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.grants import wipe_pairs
from worker.store.models import ATTEMPTS, FINISHED, GRANTS, LINKS, NOTICES, OPEN, PAIRS, SUPERSEDED, WIPED, WORKERS
from worker.store.rows import PAIR_BYTES, is_current_pair, is_of_app, sealed_pair
from worker.store.values import GrantStatus, StaleAttempt, StoredPair
from worker.vault.sealing import SealedPair


class Upkeep(Transactions):
    """Background work: close stale attempts, wipe and delete old rows, and seal pairs again."""

    @reads
    def stale_attempts(self, connection: Connection, limit: int) -> list[StaleAttempt]:
        """Return attempts without an outcome that no longer hold a lease, oldest first."""
        holds = and_(
            GRANTS.c.consent == ATTEMPTS.c.consent,
            GRANTS.c.generation == ATTEMPTS.c.generation,
            GRANTS.c.lease_until > now(),
        )
        stale = (
            select(
                ATTEMPTS.c.grant_id,
                ATTEMPTS.c.consent,
                ATTEMPTS.c.generation,
                ATTEMPTS.c.owner,
                ATTEMPTS.c.claimed_at,
            )
            .join_from(ATTEMPTS, GRANTS, and_(GRANTS.c.id == ATTEMPTS.c.grant_id, func.coalesce(~holds, True)))
            .where(text(OPEN))
            .order_by(ATTEMPTS.c.claimed_at)
            .limit(limit)
        )
        return [StaleAttempt(*row) for row in connection.execute(stale)]

    @reads
    def all_pairs(
        self,
        connection: Connection,
        after: tuple[int, int, int] = (0, 0, 0),
        limit: int = 500,
        *,
        not_sealed_with: int | None = None,
    ) -> list[StoredPair]:
        """Return stored pairs that were not wiped, in the order of their keys.

        Args:
            connection: given by the decorator.
            after: key of the last pair of the batch before.
            limit: most pairs to return.
            not_sealed_with: leave out pairs that are sealed with this key already.
        """
        key = (PAIRS.c.grant_id, PAIRS.c.consent, PAIRS.c.generation)
        batch = (
            select(*key, GRANTS.c.creator_id, *PAIR_BYTES)
            .join_from(PAIRS, GRANTS, GRANTS.c.id == PAIRS.c.grant_id)
            .where(tuple_(*key) > tuple_(*after), PAIRS.c.wiped_at.is_(None), is_of_app(connection))
            .order_by(*key)
            .limit(limit)
        )
        if not_sealed_with is not None:
            batch = batch.where(PAIRS.c.key_id != not_sealed_with)
        return [
            StoredPair(row.grant_id, row.creator_id, row.consent, row.generation, sealed_pair(row))
            for row in connection.execute(batch)
        ]

    @writes
    def reseal(self, connection: Connection, rows: Sequence[tuple[StoredPair, SealedPair]]) -> int:
        """Replace sealed bytes by others of the same pair, if the old bytes are still stored.

        Returns:
            How many pairs were replaced.
        """
        replaced = 0
        swap = (
            update(PAIRS)
            .where(
                PAIRS.c.grant_id == bindparam("of_grant"),
                PAIRS.c.consent == bindparam("of_consent"),
                PAIRS.c.generation == bindparam("of_generation"),
                PAIRS.c.sealed_access == bindparam("old_access"),
                PAIRS.c.sealed_refresh == bindparam("old_refresh"),
            )
            .values(
                sealed_access=bindparam("new_access"),
                sealed_refresh=bindparam("new_refresh"),
                key_id=bindparam("new_key_id"),
            )
        )
        for row, sealed in rows:
            replaced += connection.execute(
                swap,
                {
                    "of_grant": row.grant_id,
                    "of_consent": row.consent,
                    "of_generation": row.generation,
                    "old_access": row.sealed.sealed_access,
                    "old_refresh": row.sealed.sealed_refresh,
                    "new_access": sealed.sealed_access,
                    "new_refresh": sealed.sealed_refresh,
                    "new_key_id": sealed.key_id,
                },
            ).rowcount
        return replaced

    @writes
    def wipe_superseded(self, connection: Connection, older_than_seconds: float, limit: int) -> int:
        """Empty the sealed columns of pairs that were replaced long ago; the current pair is never touched.

        Pairs of a failing or suspect grant are kept: TikTok may still accept one of them.

        Returns:
            How many pairs were wiped.
        """
        safe = or_(
            GRANTS.c.status == GrantStatus.REVOKED.value,
            and_(GRANTS.c.status == GrantStatus.ACTIVE.value, GRANTS.c.failures == 0, ~is_current_pair()),
        )
        key = (PAIRS.c.grant_id, PAIRS.c.consent, PAIRS.c.generation)
        old = (
            select(*key)
            .join_from(PAIRS, GRANTS, GRANTS.c.id == PAIRS.c.grant_id)
            .where(text(SUPERSEDED), PAIRS.c.superseded_at <= _before(older_than_seconds), safe)
            .order_by(PAIRS.c.superseded_at)
            .limit(limit)
        )
        return wipe_pairs(connection, tuple_(*key).in_(old))

    @writes
    def wipe_lost(self, connection: Connection, older_than_seconds: float, limit: int) -> int:
        """Empty the sealed columns of pairs whose creators were asked to authorize again long ago; return how many.

        TikTok has refused these pairs for good, so they are of use to nobody but a thief.
        """
        key = (PAIRS.c.grant_id, PAIRS.c.consent, PAIRS.c.generation)
        lost = (
            select(*key)
            .join_from(GRANTS, PAIRS, GRANTS.c.id == PAIRS.c.grant_id)
            .where(
                is_of_app(connection),
                GRANTS.c.status == GrantStatus.NEEDS_REAUTH.value,
                GRANTS.c.updated_at <= _before(older_than_seconds),
                PAIRS.c.wiped_at.is_(None),
            )
            .limit(limit)
        )
        return wipe_pairs(connection, tuple_(*key).in_(lost))

    @writes
    def prune_attempts(self, connection: Connection, older_than_seconds: float, limit: int) -> int:
        """Delete attempts that ended long ago; return how many.

        Each grant's newest attempt stays, and so do attempts with an unread answer that is kept aside.
        """
        newest = select(GRANTS.c.generation).where(GRANTS.c.id == ATTEMPTS.c.grant_id).scalar_subquery()
        key = (ATTEMPTS.c.grant_id, ATTEMPTS.c.consent, ATTEMPTS.c.generation)
        old = (
            select(*key)
            .where(
                text(FINISHED),
                ATTEMPTS.c.finished_at <= _before(older_than_seconds),
                ATTEMPTS.c.generation < newest,
                ATTEMPTS.c.aside_at.is_(None),
            )
            .order_by(ATTEMPTS.c.finished_at)
            .limit(limit)
        )
        return connection.execute(delete(ATTEMPTS).where(tuple_(*key).in_(old))).rowcount

    @writes
    def prune_pairs(self, connection: Connection, older_than_seconds: float, limit: int) -> int:
        """Delete pairs that were wiped long ago, except current ones; return how many."""
        key = (PAIRS.c.grant_id, PAIRS.c.consent, PAIRS.c.generation)
        old = (
            select(*key)
            .where(text(WIPED), PAIRS.c.wiped_at <= _before(older_than_seconds), _not_pointed_to())
            .order_by(PAIRS.c.wiped_at)
            .limit(limit)
        )
        return connection.execute(delete(PAIRS).where(tuple_(*key).in_(old))).rowcount

    @writes
    def prune_delivered(self, connection: Connection, older_than_seconds: float) -> int:
        """Delete old delivered notices, processes and links; return how many rows."""
        before = _before(older_than_seconds)
        over = or_(NOTICES.c.delivered_at <= before, and_(NOTICES.c.kind.in_(NEWS), NOTICES.c.created_at <= before))
        notices = connection.execute(delete(NOTICES).where(over))
        links = connection.execute(delete(LINKS).where(LINKS.c.ends_at <= before))
        workers = connection.execute(delete(WORKERS).where(WORKERS.c.last_seen_at <= before))
        return notices.rowcount + links.rowcount + workers.rowcount


def _before(seconds: float) -> ColumnElement[Any]:
    return now() - milliseconds(seconds)


def _not_pointed_to() -> ColumnElement[bool]:
    return ~select(GRANTS.c.id).where(is_current_pair()).correlate(PAIRS).exists()
