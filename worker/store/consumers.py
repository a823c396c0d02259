"""Consumers of tokens over HTTP: their keys, kept as hashes, and the audit rows of what was handed out to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from worker.errors import NotFoundError, UsageError
from worker.policy.scope import ANY_END, ConsumerScope
from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import CONSUMERS, GRANTS, HAND_OUTS
from worker.store.outbox import insert_unless_known
from worker.store.rows import AnyRow, app_of, grant_columns, grant_view, is_of_app
from worker.store.values import ConsumerView, GrantStatus, GrantView, HandOut, HandOutView


class Consumers(Transactions):
    """Consumers, their keys, and who got which token when."""

    @writes
    def add_consumer(
        self, connection: Connection, name: str, *, handle: str, key_hash: str, scope: ConsumerScope
    ) -> ConsumerView:
        """Store a consumer.

        Args:
            connection: given by the decorator.
            name: the operator's name for it.
            handle: the public part of its key.
            key_hash: SHA-256 of the whole key, in hexadecimal.
            scope: the creators that it may ask about.

        Raises:
            UsageError: another consumer has this name, and was not revoked.
        """
        listed = {"creators": sorted(scope.creators), "references": sorted(scope.references)}
        statement = insert_unless_known(connection, CONSUMERS).values(
            app_id=app_of(connection),
            name=name,
            handle=handle,
            key_hash=key_hash,
            scope=None if scope.everyone else listed,
            created_at=now(),
        )
        row = connection.execute(statement.returning(*CONSUMERS.c)).first()
        if row is None:
            raise UsageError(f"there is a consumer {name} already; revoke it first, or choose another name")
        return _view(row)

    @reads
    def consumers(self, connection: Connection, *, revoked: bool = False) -> list[ConsumerView]:
        """Return the consumers by name; with `revoked` also those whose keys were revoked, newest last."""
        wanted = true() if revoked else CONSUMERS.c.revoked_at.is_(None)
        rows = connection.execute(
            select(CONSUMERS).where(_is_ours(connection), wanted).order_by(CONSUMERS.c.name, CONSUMERS.c.id)
        )
        return [_view(row) for row in rows]

    @reads
    def consumer_of(self, connection: Connection, handle: str) -> ConsumerView | None:
        """Return the consumer whose key has this public part; None if there is none or it was revoked."""
        found = select(CONSUMERS).where(
            _is_ours(connection), CONSUMERS.c.handle == handle, CONSUMERS.c.revoked_at.is_(None)
        )
        row = connection.execute(found).first()
        return None if row is None else _view(row)

    @writes
    def revoke_consumer(self, connection: Connection, name: str) -> ConsumerView:
        """Revoke a consumer's key for good; its row and audit rows stay.

        Raises:
            NotFoundError: no consumer of this name has a key that works.
        """
        named = and_(_is_ours(connection), CONSUMERS.c.name == name, CONSUMERS.c.revoked_at.is_(None))
        row = connection.execute(
            update(CONSUMERS).where(named).values(revoked_at=now()).returning(*CONSUMERS.c)
        ).first()
        if row is None:
            raise NotFoundError(f"there is no consumer {name} whose key works; `consumers list` names them")
        return _view(row)

    @writes
    def note_hand_outs(self, connection: Connection, given: Sequence[HandOut]) -> None:
        """Store which tokens were handed out to whom, and count them for each consumer."""
        rows = [
            {
                "consumer_id": each.consumer_id,
                "grant_id": each.grant_id,
                "consent": each.consent,
                "generation": each.generation,
            }
            for each in given
        ]
        connection.execute(_NOTE, rows)
        # In the order of their ids, so that two processes never wait for each other.
        counts = sorted(Counter(each.consumer_id for each in given).items())
        connection.execute(_COUNT, [{"of_consumer": consumer_id, "more": count} for consumer_id, count in counts])

    @reads
    def hand_outs(
        self,
        connection: Connection,
        *,
        consumer: str | None = None,
        creator_id: str | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[HandOutView]:
        """Return a page of what was handed out, newest first.

        Args:
            connection: given by the decorator.
            consumer: only to consumers of this name.
            creator_id: only tokens of this creator.
            before_id: the last id of the page before.
            limit: most rows to return.
        """
        wanted: list[ColumnElement[bool]] = [_is_ours(connection)]
        if consumer is not None:
            wanted.append(CONSUMERS.c.name == consumer)
        if creator_id is not None:
            wanted.append(GRANTS.c.creator_id == creator_id)
        if before_id is not None:
            wanted.append(HAND_OUTS.c.id < before_id)
        rows = connection.execute(
            select(
                HAND_OUTS.c.id,
                HAND_OUTS.c.at,
                CONSUMERS.c.name,
                GRANTS.c.creator_id,
                HAND_OUTS.c.consent,
                HAND_OUTS.c.generation,
            )
            .select_from(HAND_OUTS)
            .join(CONSUMERS, CONSUMERS.c.id == HAND_OUTS.c.consumer_id)
            .outerjoin(GRANTS, GRANTS.c.id == HAND_OUTS.c.grant_id)
            .where(*wanted)
            .order_by(HAND_OUTS.c.id.desc())
            .limit(limit)
        )
        return [HandOutView(*row) for row in rows]

    @writes
    def prune_hand_outs(self, connection: Connection, older_than_seconds: float, limit: int) -> int:
        """Delete audit rows that are older than this; return how many."""
        old = (
            select(HAND_OUTS.c.id)
            .where(HAND_OUTS.c.at <= now() - milliseconds(older_than_seconds))
            .order_by(HAND_OUTS.c.at)
            .limit(limit)
        )
        return connection.execute(delete(HAND_OUTS).where(HAND_OUTS.c.id.in_(old))).rowcount

    @reads
    def grant_in_scope(self, connection: Connection, creator_id: str, scope: ConsumerScope) -> int | None:
        """Return the id of a creator's grant, or None if there is none or it is not in the scope."""
        found = select(GRANTS.c.id, GRANTS.c.reference).where(is_of_app(connection), GRANTS.c.creator_id == creator_id)
        row = connection.execute(found).first()
        return int(row.id) if row is not None and scope.permits(creator_id, row.reference) else None

    @reads
    def grants_in_scope(
        self,
        connection: Connection,
        scope: ConsumerScope,
        *,
        status: GrantStatus | None = None,
        after_id: int = 0,
        limit: int = 100,
    ) -> list[GrantView]:
        """Return a page of the grants in a scope, in the order of their ids; arguments as for `grants`."""
        page = select(*grant_columns(connection)).where(is_of_app(connection), GRANTS.c.id > after_id, _in_scope(scope))
        if status is not None:
            page = page.where(GRANTS.c.status == status.value)
        return [grant_view(row) for row in connection.execute(page.order_by(GRANTS.c.id).limit(limit))]


# Made once: making a statement takes longer than running it, and rows come a thousand times a second.
_NOTE: Final = insert(HAND_OUTS).values(at=now())
_COUNT: Final = (
    update(CONSUMERS)
    .where(CONSUMERS.c.id == bindparam("of_consumer"))
    .values(handed_out=CONSUMERS.c.handed_out + bindparam("more"), last_used_at=now())
)


def _is_ours(connection: Connection) -> ColumnElement[bool]:
    return CONSUMERS.c.app_id == app_of(connection)


def _in_scope(scope: ConsumerScope) -> ColumnElement[bool]:
    """Say in SQL what `ConsumerScope.permits` says."""
    if scope.everyone:
        return true()
    whole = [each for each in scope.references if not each.endswith(ANY_END)]
    begins = [each[:-1] for each in scope.references if each.endswith(ANY_END)]
    return or_(
        false(),
        GRANTS.c.creator_id.in_(scope.creators),
        GRANTS.c.reference.in_(whole),
        *(_begins_with(begin) for begin in begins),
    )


def _begins_with(begin: str) -> ColumnElement[bool]:
    # Not LIKE, which does not tell capitals from small letters on SQLite.
    return func.substr(GRANTS.c.reference, 1, len(begin)) == begin


def _view(row: AnyRow) -> ConsumerView:
    listed: dict[str, Any] = row.scope or {}
    return ConsumerView(
        consumer_id=row.id,
        name=row.name,
        handle=row.handle,
        key_hash=row.key_hash,
        scope=ConsumerScope(
            everyone=row.scope is None,
            creators=frozenset(listed.get("creators", ())),
            references=frozenset(listed.get("references", ())),
        ),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        handed_out=row.handed_out,
        revoked_at=row.revoked_at,
    )
