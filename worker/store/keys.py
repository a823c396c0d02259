"""Which sealing keys are in use: a key has a sentinel only if all living processes hold the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, exists, func, select, text, update

from worker.policy.verdicts import Cause
from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.grants import wipe_pairs
from worker.store.models import GRANTS, PAIRS, REFRESHABLE, SENTINELS, WORKERS
from worker.store.outbox import REAUTH_NEEDED, add_unless_known, insert_notice, reauth_key
from worker.store.rows import is_current_pair
from worker.store.values import GrantStatus

KEYS_LOCK: Final = 4_851_702_134
"""Number of the advisory lock under which processes join the list and keys are taken into use, one after the other."""


@dataclass(frozen=True)
class AbandonedKey:
    """What became of a lost key: pairs that were wiped, creators who are asked, and living processes that hold it."""

    pairs: int = 0
    asked: int = 0
    held_by: tuple[str, ...] = ()


class Keys(Transactions):
    """Sentinels: a known text sealed with each key in use, so that a process can prove that it holds that key."""

    @reads
    def sentinels(self, connection: Connection) -> dict[int, bytes]:
        """Return the sealed sentinel of each key in use."""
        return {row.key_id: bytes(row.sealed) for row in connection.execute(select(SENTINELS))}

    @writes
    def adopt_key(
        self, connection: Connection, key_id: int, sealed: bytes, *, living_seconds: float
    ) -> tuple[str, ...]:
        """Take a key into use by storing its sentinel, if every living process holds the key.

        This and `hello` run one after the other, so that no process can join the list unseen meanwhile.

        Args:
            connection: given by the decorator.
            key_id: the key.
            sealed: its sentinel; if the key has one already, that one is kept.
            living_seconds: how long a silent process counts as living.

        Returns:
            The names of the processes that lack it; empty if it is in use.
        """
        keys_in_turn(connection)
        if connection.execute(select(SENTINELS.c.key_id).where(SENTINELS.c.key_id == key_id)).first() is not None:
            return ()
        living = select(WORKERS.c.instance_id, WORKERS.c.key_ids).where(
            WORKERS.c.last_seen_at > now() - milliseconds(living_seconds)
        )
        lacking = [row.instance_id for row in connection.execute(living) if str(key_id) not in row.key_ids.split(",")]
        if not lacking:
            add_unless_known(connection, SENTINELS, key_id=key_id, sealed=sealed)
        return tuple(sorted(lacking))

    @writes
    def retire_key(self, connection: Connection, key_id: int) -> bool:
        """Take a key out of use by deleting its sentinel, unless a stored pair needs it.

        Returns:
            False if a pair needs it.
        """
        keys_in_turn(connection)
        needed = select(PAIRS.c.key_id).where(PAIRS.c.key_id == key_id, PAIRS.c.wiped_at.is_(None)).limit(1)
        if connection.execute(needed).first() is not None:
            return False
        connection.execute(delete(SENTINELS).where(SENTINELS.c.key_id == key_id))
        return True

    @writes
    def abandon_key(self, connection: Connection, key_id: int, reason: str, *, living_seconds: float) -> AbandonedKey:
        """Wipe the pairs that a lost key sealed, and ask each creator whose current pair it sealed, once.

        Grants whose current pair another key sealed go on; they lose older pairs at most.

        Args:
            connection: given by the decorator.
            key_id: the key.
            reason: short safe text, for the grants and their notices.
            living_seconds: for how long a process that is silent counts as living.

        Returns:
            What was done; nothing if a living process holds the key, which is named.
        """
        keys_in_turn(connection)
        living = select(WORKERS.c.instance_id, WORKERS.c.key_ids).where(
            WORKERS.c.last_seen_at > now() - milliseconds(living_seconds)
        )
        holders = [row.instance_id for row in connection.execute(living) if str(key_id) in row.key_ids.split(",")]
        if holders:
            return AbandonedKey(held_by=tuple(sorted(holders)))
        sealed = (PAIRS.c.key_id == key_id) & PAIRS.c.wiped_at.is_(None)
        lost = exists().where(is_current_pair(), sealed)
        asked = connection.execute(
            update(GRANTS)
            .where(text(REFRESHABLE), lost)
            .values(
                status=GrantStatus.NEEDS_REAUTH.value,
                last_reason=reason,
                verdict=Cause.LOST_HERE.value,
                lease_owner=None,
                lease_until=None,
                updated_at=now(),
            )
            .returning(GRANTS.c.id, GRANTS.c.consent, GRANTS.c.pair_generation)
        ).all()
        data = {"verdict": Cause.LOST_HERE.value}
        for row in asked:
            insert_notice(connection, reauth_key(*row), REAUTH_NEEDED, reason, grant_id=row.id, data=data)
        wiped = wipe_pairs(connection, sealed)
        connection.execute(delete(SENTINELS).where(SENTINELS.c.key_id == key_id))
        return AbandonedKey(pairs=wiped, asked=len(asked))

    @reads
    def key_usage(self, connection: Connection) -> dict[int, int]:
        """Return how many stored pairs each key has sealed; wiped ones do not count."""
        used = (
            select(PAIRS.c.key_id, func.count().label("pairs"))
            .where(PAIRS.c.wiped_at.is_(None))
            .group_by(PAIRS.c.key_id)
        )
        return {row.key_id: row.pairs for row in connection.execute(used)}


def keys_in_turn(connection: Connection) -> None:
    """Let one transaction at a time decide about keys; SQLite has only one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": KEYS_LOCK})
