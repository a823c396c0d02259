"""Writes and withdraws notices in the transaction of the change that they report; inserts rows unless they exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from worker.store.clock import now
from worker.store.models import NOTICES
from worker.vault.webhooks import new_message_id

REAUTH_KEY: Final = "reauth:{}:{}.{}"
SOON_KEY: Final = "soon:{}:{}:{}"
SCOPE_KEY: Final = "scope_missing:{}:{}:{}"
WARNED_DAYS: Final = (30, 7, 1)
"""How many days before the end of a consent a notice says so."""
REAUTH_NEEDED: Final = "reauth_needed"
RECOVERED: Final = "recovered"
REVOKED: Final = "revoked"
SCOPE_MISSING: Final = "scope_missing"
Place = tuple[int, int, int]
"""A grant, its consent, and the generation of its current pair."""


def insert_unless_known(connection: Connection, table: Table) -> Any:
    """Return an INSERT that does nothing if a row with its key exists."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def add_unless_known(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert a row unless one with its key exists; return True if it was inserted."""
    # RETURNING shows that on every driver; the row count of an INSERT does not.
    statement = insert_unless_known(connection, table).values(**values).returning(*table.primary_key)
    return connection.execute(statement).first() is not None


def insert_notice(
    connection: Connection,
    dedupe_key: str,
    kind: str,
    detail: str,
    *,
    grant_id: int | None = None,
    data: Mapping[str, Any] | None = None,
) -> bool:
    """Write a notice within a transaction unless one with this key exists; return True if it is new."""
    return add_unless_known(
        connection,
        NOTICES,
        dedupe_key=dedupe_key,
        message_id=new_message_id(),
        kind=kind,
        grant_id=grant_id,
        detail=detail,
        data=None if data is None else dict(data),
        created_at=now(),
        next_try_at=now(),
    )


def reauth_key(grant_id: int, consent: int, pair_generation: int) -> str:
    """Return the dedupe key of a request for a new authorization.

    It holds the generation of the current pair: a grant that recovered and is lost again needs another request.
    """
    return REAUTH_KEY.format(grant_id, consent, pair_generation)


def withdraw_requests(connection: Connection, grants: Iterable[Place]) -> None:
    """Delete the notices that ask these creators to authorize now or soon, unless they were delivered already."""
    keys = [
        key
        for grant_id, consent, generation in grants
        for key in (
            reauth_key(grant_id, consent, generation),
            *(SOON_KEY.format(grant_id, consent, days) for days in WARNED_DAYS),
        )
    ]
    connection.execute(delete(NOTICES).where(NOTICES.c.dedupe_key.in_(keys), NOTICES.c.delivered_at.is_(None)))


def announce_recovered(connection: Connection, grants: Iterable[Place]) -> None:
    """Write that a grant works again, for each of these grants with a notice that its creator has to authorize."""
    keys = {reauth_key(*place): place for place in grants}
    written = connection.execute(select(NOTICES.c.dedupe_key).where(NOTICES.c.dedupe_key.in_(list(keys)))).scalars()
    for key in written.all():
        grant_id, *_ = keys[key]
        detail = "the creator need not authorize any more: the grant works again"
        insert_notice(connection, f"{RECOVERED}:{key}", RECOVERED, detail, grant_id=grant_id)
