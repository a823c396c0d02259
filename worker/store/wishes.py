"""Refreshes that people wish for many grants at once: which are chosen, which are left out, and why.

A wish makes a grant due. It shortens no pause after a failure, since the time of the next attempt is a part of the
verdict, and what is due goes out as the quota, the brake and pauses permit.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select, text, update
from sqlalchemy.types import Text

from worker.store.clock import now
from worker.store.conditions import conditions, is_serving
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS, REFERENCED
from worker.store.rows import AMONG, among, is_of_app, is_paused, lease_is_free
from worker.store.values import ChosenGrant, GrantFilter, LeftOut, Wish

CHOSEN: Final = "chosen"


class Wishes(Transactions):
    """Making many grants due."""

    @reads
    def wish(self, connection: Connection, which: GrantFilter, limit: int) -> Wish:
        """Return what `request_refreshes` would make due now, and change nothing."""
        return _wish(connection, which, limit)

    @writes
    def request_refreshes(self, connection: Connection, which: GrantFilter, limit: int) -> Wish:
        """Make those grants due now that meet a filter and would be refreshed later; those whose token ends first.

        Args:
            connection: given by the decorator.
            which: the filter.
            limit: most grants to make due.
        """
        wish = _wish(connection, which, limit)
        ids = among(connection, [grant.grant_id for grant in wish.chosen])
        listed = text(AMONG[connection.dialect.name]).bindparams(ids=ids)
        free = update(GRANTS).where(listed, _lot(connection) == CHOSEN)
        connection.execute(free.values(next_refresh_at=now(), updated_at=now()))
        return wish


def _wish(connection: Connection, which: GrantFilter, limit: int) -> Wish:
    meets, lot = _meets(connection, which), _lot(connection)
    counts = select(lot.label("lot"), func.count().label("grants")).where(*meets).group_by("lot")
    found = {row.lot: row.grants for row in connection.execute(counts)}
    first = (
        select(GRANTS.c.id, GRANTS.c.creator_id, GRANTS.c.access_expires_at)
        .where(*meets, lot == CHOSEN)
        .order_by(GRANTS.c.access_expires_at, GRANTS.c.id)
        .limit(limit)
    )
    chosen = tuple(ChosenGrant(row.id, row.creator_id, row.access_expires_at) for row in connection.execute(first))
    return Wish(
        matching=sum(found.values()),
        chosen=chosen,
        beyond_limit=found.pop(CHOSEN, 0) - len(chosen),
        left_out={LeftOut(name): count for name, count in sorted(found.items())},
    )


def _meets(connection: Connection, which: GrantFilter) -> list[ColumnElement[bool]]:
    at = connection.execute(select(now())).scalar_one()
    meets = [is_of_app(connection)]
    if which.status is not None:
        meets.append(GRANTS.c.status == which.status.value)
    if which.condition is not None:
        meets.append(conditions(connection, at)[which.condition])
    if which.reference is not None:
        meets.append(and_(text(REFERENCED), GRANTS.c.reference == which.reference))
    if which.ends_before is not None:
        meets.append(GRANTS.c.access_expires_at < which.ends_before)
    if which.ends_within is not None:
        meets.append(GRANTS.c.access_expires_at < at + which.ends_within)
    return meets


def _lot(connection: Connection) -> ColumnElement[Any]:
    """Return in SQL what becomes of a grant: chosen, or left out and why."""
    return case(
        (or_(~is_serving(), GRANTS.c.belongs_to.is_not(None)), LeftOut.ENDED.value),
        (is_paused(connection), LeftOut.PAUSED.value),
        (~lease_is_free(), LeftOut.UNDER_WAY.value),
        (GRANTS.c.failures > 0, LeftOut.FAILING.value),
        (GRANTS.c.next_refresh_at <= now(), LeftOut.DUE.value),
        else_=CHOSEN,
    ).cast(Text)
