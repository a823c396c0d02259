"""Notices to people and systems, each written once and kept until it was delivered."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select, text, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS, NOTICES, UNDELIVERED
from worker.store.saving import add_unless_known
from worker.store.values import NoticeView

HOLD_SECONDS: Final = 60.0


class Notices(Transactions):
    """Messages that wait for delivery."""

    @writes
    def raise_alarm(
        self, connection: Connection, dedupe_key: str, kind: str, detail: str, *, grant_id: int | None = None
    ) -> bool:
        """Write a notice unless one with this key exists, delivered or not.

        Args:
            connection: given by the decorator.
            dedupe_key: what makes it one of a kind.
            kind: a short word that receivers sort by.
            detail: safe text.
            grant_id: the grant it is about; None for the whole app.

        Returns:
            True where it is new.
        """
        return insert_notice(connection, dedupe_key, kind, detail, grant_id=grant_id)

    @writes
    def pending_notices(self, connection: Connection, limit: int) -> list[NoticeView]:
        """Return notices to deliver now, oldest first, and hold them back from others for a while."""
        due = (
            select(NOTICES.c.id)
            .where(text(UNDELIVERED), NOTICES.c.next_try_at <= now())
            .order_by(NOTICES.c.next_try_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        held = connection.execute(
            update(NOTICES)
            .where(NOTICES.c.id.in_(due))
            .values(next_try_at=now() + milliseconds(HOLD_SECONDS))
            .returning(NOTICES.c.id)
        )
        return _views(connection, list(held.scalars()))

    @reads
    def undelivered_notices(self, connection: Connection, limit: int = 100) -> list[NoticeView]:
        """Return notices that were not delivered yet, oldest first, without holding them."""
        waiting = select(NOTICES.c.id).where(text(UNDELIVERED)).order_by(NOTICES.c.id).limit(limit)
        return _views(connection, list(connection.execute(waiting).scalars()))

    @reads
    def undelivered_count(self, connection: Connection) -> int:
        """Return how many notices were not delivered yet."""
        return connection.execute(select(func.count()).select_from(NOTICES).where(text(UNDELIVERED))).scalar_one()

    @writes
    def notice_delivered(self, connection: Connection, notice_id: int) -> None:
        """Note that a notice was accepted."""
        connection.execute(update(NOTICES).where(NOTICES.c.id == notice_id).values(delivered_at=now()))

    @writes
    def notice_failed(self, connection: Connection, notice_id: int, next_try_at: datetime) -> None:
        """Note that a notice was not accepted, and when it is tried again."""
        connection.execute(
            update(NOTICES)
            .where(NOTICES.c.id == notice_id)
            .values(failures=NOTICES.c.failures + 1, next_try_at=next_try_at)
        )


def insert_notice(
    connection: Connection, dedupe_key: str, kind: str, detail: str, *, grant_id: int | None = None
) -> bool:
    """Write a notice within a transaction unless one with this key exists; return True where it is new."""
    return add_unless_known(
        connection,
        NOTICES,
        dedupe_key=dedupe_key,
        kind=kind,
        grant_id=grant_id,
        detail=detail,
        created_at=now(),
        next_try_at=now(),
    )


def _views(connection: Connection, ids: list[int]) -> list[NoticeView]:
    rows = connection.execute(
        select(
            NOTICES.c.id,
            NOTICES.c.dedupe_key,
            NOTICES.c.kind,
            NOTICES.c.grant_id,
            GRANTS.c.creator_id,
            NOTICES.c.detail,
            NOTICES.c.created_at,
            NOTICES.c.failures,
        )
        .outerjoin_from(NOTICES, GRANTS, GRANTS.c.id == NOTICES.c.grant_id)
        .where(NOTICES.c.id.in_(ids))
        .order_by(NOTICES.c.id)
    )
    return [NoticeView(*row) for row in rows]
