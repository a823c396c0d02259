"""Forgetting creators: every row that has a creator's key is deleted, and a tombstone without the id stays.

A table has a creator's key if it has a column `grant_id` or `creator_id`. Its rows are found by that column, whatever
else the table is for, so a new table is covered when its key has one of these names. Rows that hang on such a row by
another key go with it (ON DELETE CASCADE). A test refuses tables that are neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, or_, select, text, tuple_, update

from worker.errors import UnknownCreatorError
from worker.store.clock import now
from worker.store.engine import Transactions, reads, writes
from worker.store.grants import end_here
from worker.store.models import ATTEMPTS, BELONGS, CONSUMERS, GRANTS, METADATA, NOTICES, TOMBSTONES, UNFINISHED
from worker.store.rows import is_of_app
from worker.store.values import GrantStatus, NewConsent, Tombstone
from worker.vault.redaction import redact

CREATOR_KEYS: Final = ("grant_id", "creator_id")
FORGOTTEN: Final = "(forgotten)"
"""Stands for the id of a forgotten creator whose pair was once imported under another id."""


def creator_hash(creator_id: str) -> str:
    """Return the hash by which a tombstone is found."""
    return hashlib.sha256(creator_id.encode()).hexdigest()


def keyed_tables() -> list[Table]:
    """Return the tables whose rows a creator's key finds, but for the grants; those that hang on others come first."""
    tables = [table for table in reversed(METADATA.sorted_tables) if table not in (GRANTS, TOMBSTONES)]
    return [table for table in tables if any(key in table.c for key in CREATOR_KEYS)]


class Tombstones(Transactions):
    """Removing creators."""

    @writes
    def begin_forgetting(self, connection: Connection, creator_id: str, *, known: bool = False) -> int | None:
        """Revoke a creator's grant here, as `mark_revoked` does without a wipe, and note that all of it is to go.

        Without a grant all that is stored under the creator's id, such as links, is deleted at once.

        Args:
            connection: given by the decorator.
            creator_id: the creator.
            known: True if something of the creator is kept outside the database.

        Returns:
            The grant's id; None if there is no grant, and nothing is left to do in the database.

        Raises:
            UnknownCreatorError: nothing is stored of this creator, and no tombstone either.
        """
        grant = connection.execute(
            select(GRANTS).where(is_of_app(connection), GRANTS.c.creator_id == creator_id).with_for_update()
        ).first()
        buried = creator_id in _tombstones(connection, [creator_id])
        if grant is None:
            known = bool(sum(_delete_rows(connection, creator_id, None))) or known
            if not known and not buried:
                raise UnknownCreatorError(f"there is nothing of creator {redact(creator_id)}")
            if known:
                _bury(connection, creator_id, buried=buried, grant_id=None, finished_at=now())
            return None
        if grant.status != GrantStatus.REVOKED.value:
            end_here(connection, grant)
        if not _is_being_forgotten(connection, grant.id):
            _bury(connection, creator_id, buried=buried, grant_id=grant.id, finished_at=None)
        return int(grant.id)

    @reads
    def tombstones(self, connection: Connection, creator_ids: Collection[str]) -> dict[str, Tombstone]:
        """Return the tombstones of those creators who have one."""
        return _tombstones(connection, creator_ids)

    @reads
    def newest_tombstone(self, connection: Connection) -> datetime | None:
        """Return when a creator was last forgotten; None if none ever was."""
        newest: datetime | None = connection.execute(select(func.max(TOMBSTONES.c.finished_at))).scalar_one()
        return newest

    @reads
    def being_forgotten(self, connection: Connection, limit: int) -> list[tuple[int, str]]:
        """Return grant and creator of those whose rows are not all removed yet, the first asked first."""
        left = (
            select(GRANTS.c.id, GRANTS.c.creator_id)
            .join_from(TOMBSTONES, GRANTS, GRANTS.c.id == TOMBSTONES.c.grant_id)
            .where(text(f"tombstones.{UNFINISHED}"), is_of_app(connection))
        )
        return [(row.id, row.creator_id) for row in connection.execute(left.order_by(TOMBSTONES.c.id).limit(limit))]

    @writes
    def delete_some_rows(self, connection: Connection, grant_id: int, limit: int) -> int:
        """Delete some of the rows that hang on a revoked grant; return how many, 0 once none is left."""
        creator_id = _ended_creator(connection, grant_id)
        if creator_id is None:
            return 0
        return next((count for count in _delete_rows(connection, creator_id, grant_id, limit=limit) if count), 0)

    @writes
    def end_forgetting(self, connection: Connection, grant_id: int) -> bool | None:
        """Delete a revoked grant with all that is left, and close its tombstone.

        Returns:
            False if the creator has authorized again meanwhile: then the data stays, and the tombstone is removed. None
            if another process has ended it before, in either way.
        """
        creator_id = _ended_creator(connection, grant_id)
        mine = (TOMBSTONES.c.grant_id == grant_id) & text(UNFINISHED)
        if creator_id is None:
            cancelled = connection.execute(delete(TOMBSTONES).where(mine)).rowcount
            return False if cancelled else None
        sum(_delete_rows(connection, creator_id, grant_id))
        _forget_as_owner(connection, creator_id)
        _forget_in_scopes(connection, creator_id)
        connection.execute(delete(GRANTS).where(GRANTS.c.id == grant_id))
        connection.execute(update(TOMBSTONES).where(mine).values(finished_at=now()))
        return True


def barred(connection: Connection, items: Iterable[NewConsent]) -> set[str]:
    """Return the creators among these consents who were forgotten, unless the pair was surely issued since."""
    found = list(items)
    buried = _tombstones(connection, [item.creator_id for item in found])
    return {
        item.creator_id
        for item in found
        if item.creator_id in buried and (not item.dated or buried[item.creator_id].covers(item.issued_at))
    }


def _tombstones(connection: Connection, creator_ids: Collection[str]) -> dict[str, Tombstone]:
    by_hash = {creator_hash(creator_id): creator_id for creator_id in creator_ids}
    if not by_hash:
        return {}
    columns = (TOMBSTONES.c.creator_hash, TOMBSTONES.c.asked_at, TOMBSTONES.c.finished_at)
    rows = connection.execute(select(*columns).where(TOMBSTONES.c.creator_hash.in_(list(by_hash))))
    return {by_hash[row.creator_hash]: Tombstone(row.asked_at, row.finished_at) for row in rows}


def _bury(connection: Connection, creator_id: str, *, buried: bool, **values: Any) -> None:
    if buried:
        again = update(TOMBSTONES).where(TOMBSTONES.c.creator_hash == creator_hash(creator_id))
        connection.execute(again.values(asked_at=now(), **values))
    else:
        connection.execute(insert(TOMBSTONES).values(creator_hash=creator_hash(creator_id), asked_at=now(), **values))


def _is_being_forgotten(connection: Connection, grant_id: int) -> bool:
    found = select(TOMBSTONES.c.id).where(TOMBSTONES.c.grant_id == grant_id, text(UNFINISHED))
    return connection.execute(found).first() is not None


def _ended_creator(connection: Connection, grant_id: int) -> str | None:
    """Return the creator of a revoked grant, whose row is locked; None if the grant is in use again or gone."""
    row = connection.execute(
        select(GRANTS.c.creator_id)
        .where(GRANTS.c.id == grant_id, GRANTS.c.status == GrantStatus.REVOKED.value)
        .with_for_update()
    ).first()
    return None if row is None else str(row.creator_id)


def _delete_rows(
    connection: Connection, creator_id: str, grant_id: int | None, *, limit: int | None = None
) -> Iterator[int]:
    """Delete a creator's rows, table by table, at most `limit` of each; yield how many."""
    for table in keyed_tables():
        rows = _rows_of(table, creator_id, grant_id)
        if rows is None:
            continue
        if limit is None:
            yield connection.execute(delete(table).where(rows)).rowcount
            continue
        key = tuple(table.primary_key)
        some = select(*key).where(rows).limit(limit)
        yield connection.execute(delete(table).where(tuple_(*key).in_(some))).rowcount


def _rows_of(table: Table, creator_id: str, grant_id: int | None) -> ColumnElement[bool] | None:
    found = []
    if "grant_id" in table.c and grant_id is not None:
        found.append(table.c.grant_id == grant_id)
    if "creator_id" in table.c:
        found.append(table.c.creator_id == creator_id)
    return or_(*found) if found else None


def _forget_as_owner(connection: Connection, creator_id: str) -> None:
    """Take a creator's id out of grants that hold a pair of the creator, and out of what was said about them."""
    holds = (text(BELONGS), GRANTS.c.belongs_to == creator_id)
    held = list(connection.execute(select(GRANTS.c.id).where(*holds)).scalars())
    if not held:
        return
    for table, column in ((ATTEMPTS, ATTEMPTS.c.reason), (NOTICES, NOTICES.c.detail)):
        without = func.replace(column, creator_id, FORGOTTEN)
        connection.execute(update(table).where(table.c.grant_id.in_(held)).values({column: without}))
    reason = func.replace(GRANTS.c.last_reason, creator_id, FORGOTTEN)
    connection.execute(update(GRANTS).where(*holds).values(belongs_to=FORGOTTEN, last_reason=reason))


def _forget_in_scopes(connection: Connection, creator_id: str) -> None:
    """Take a creator out of the lists of consumers; a consumer whose list becomes empty may ask about nobody."""
    listed = select(CONSUMERS.c.id, CONSUMERS.c.scope).where(CONSUMERS.c.scope.is_not(None)).with_for_update()
    for row in connection.execute(listed).all():
        if creator_id in row.scope["creators"]:
            left = [each for each in row.scope["creators"] if each != creator_id]
            narrowed = row.scope | {"creators": left}
            connection.execute(update(CONSUMERS).where(CONSUMERS.c.id == row.id).values(scope=narrowed))
