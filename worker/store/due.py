"""The due scan: which grants are refreshed next, in an order that lets none expire that could be saved.

Healthy grants (active, no failure since the last pair) go before failing ones, which take a bounded share of a batch
while healthy ones wait. Both are ordered by the time that their access tokens have left; those that ended already
come right after the ones that are about to, because the latter can still be saved.

A scan reads about as much as it returns, whatever the size of the fleet. Few due grants are read by the index on
`next_refresh_at` and sorted here. A crowd is walked by the index on `access_expires_at`, whose front is due.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, select, text

from worker.policy.backoff import SUSPECT_CEILING
from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads
from worker.store.models import FAILING, GRANTS, HEALTHY
from worker.store.rows import is_of_app, is_paused, lease_is_free
from worker.store.values import DueGrant

FEW: Final = 2000
FAILING_SHARE: Final = 0.1
"""Largest part of a batch for grants that failed before, while healthy ones wait."""
ABOUT_TO_END: Final = timedelta(minutes=10)
"""Tokens that end within this time go before those that ended already."""


class _Crowd(NamedTuple):
    """A part of the fleet that is ordered on its own, with its predicate and its two indexes."""

    where: str
    by_due_time: str
    by_time_left: str


_HEALTHY: Final = _Crowd(HEALTHY, "ix_grants_healthy_due", "ix_grants_healthy_order")
_FAILING: Final = _Crowd(FAILING, "ix_grants_failing_due", "ix_grants_failing_order")


class DueScan(Transactions):
    """What is due for a refresh.

    Attributes:
        few: at most this many due grants are read and sorted in memory; more are walked by index.
    """

    few: int = FEW

    @reads
    def due(self, connection: Connection, limit: int) -> list[DueGrant]:
        """Return grants to refresh now, most urgent first; leased and paused ones are left out."""
        at = _clock(connection)
        failing = _most_urgent(connection, _FAILING, limit, at, few=self.few)
        share = math.ceil(limit * FAILING_SHARE)
        healthy = _most_urgent(connection, _HEALTHY, limit, at, few=self.few)
        room = max(limit - len(healthy), min(share, len(failing)))
        failing = failing[:room]
        return healthy[: limit - len(failing)] + failing

    @reads
    def due_count(self, connection: Connection) -> int:
        """Return how many grants are due, and neither leased nor paused."""
        return sum(
            connection.execute(_due(connection, crowd, crowd.by_due_time, func.count().label("due"))).scalar_one()
            for crowd in (_HEALTHY, _FAILING)
        )

    @reads
    def due_seconds(self, connection: Connection) -> float:
        """Return how many seconds the oldest due grant has been due; 0 if none is due."""
        longest = [
            connection.execute(
                _due(connection, crowd, crowd.by_due_time, GRANTS.c.next_refresh_at, now())
                .order_by(GRANTS.c.next_refresh_at)
                .limit(1)
            ).first()
            for crowd in (_HEALTHY, _FAILING)
        ]
        return max(((row[1] - row[0]).total_seconds() for row in longest if row is not None), default=0.0)

    @reads
    def passed_over_seconds(self, connection: Connection) -> float:
        """Return for how many seconds an access token has been ended that scans pass over; 0 if there is none.

        Such a grant is due at a time that lies ahead, though no plan and no back-off leads there: it was written while
        the database's clock was ahead. Leased and paused grants do not count.
        """
        longest = [
            connection.execute(
                select(GRANTS.c.access_expires_at, now())
                .with_hint(GRANTS, f"INDEXED BY {crowd.by_time_left}", "sqlite")
                .where(text(crowd.where), is_of_app(connection), GRANTS.c.access_expires_at <= now())
                .where(GRANTS.c.next_refresh_at > now() + milliseconds(wait.total_seconds()))
                .where(lease_is_free(), ~is_paused(connection))
                .order_by(GRANTS.c.access_expires_at)
                .limit(1)
            ).first()
            for crowd, wait in ((_HEALTHY, timedelta(0)), (_FAILING, SUSPECT_CEILING))
        ]
        return max(((row[1] - row[0]).total_seconds() for row in longest if row is not None), default=0.0)


def _due(connection: Connection, crowd: _Crowd, index: str, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
    """Return the query of a crowd's due grants; SQLite is told the index, PostgreSQL finds it by its statistics."""
    return (
        select(*columns)
        .select_from(GRANTS)
        .with_hint(GRANTS, f"INDEXED BY {index}", "sqlite")
        .where(text(crowd.where), is_of_app(connection), GRANTS.c.next_refresh_at <= now(), lease_is_free())
        .where(~is_paused(connection))
    )


def _most_urgent(connection: Connection, crowd: _Crowd, limit: int, at: datetime, *, few: int) -> list[DueGrant]:
    columns = (GRANTS.c.id, GRANTS.c.access_expires_at, GRANTS.c.failures)
    # The order is not used here; without it PostgreSQL may read the table from its start instead of the index.
    by_due_time = _due(connection, crowd, crowd.by_due_time, *columns).order_by(GRANTS.c.next_refresh_at)
    rows = connection.execute(by_due_time.limit(few + 1)).all()
    if len(rows) <= few:
        return sorted(
            (DueGrant(row.id, row.access_expires_at, row.failures) for row in rows),
            key=lambda grant: _urgency(grant, at),
        )[:limit]
    expires_at = GRANTS.c.access_expires_at
    found: list[DueGrant] = []
    for band in (
        (expires_at > at) & (expires_at <= at + ABOUT_TO_END),
        expires_at <= at,
        expires_at > at + ABOUT_TO_END,
    ):
        walk = _due(connection, crowd, crowd.by_time_left, *columns).where(band).order_by(expires_at)
        rows = connection.execute(walk.limit(limit - len(found))).all()
        found.extend(DueGrant(row.id, row.access_expires_at, row.failures) for row in rows)
        if len(found) >= limit:
            break
    return found


def _urgency(grant: DueGrant, at: datetime) -> tuple[int, datetime, int]:
    ended, ends_soon = grant.access_expires_at <= at, grant.access_expires_at <= at + ABOUT_TO_END
    band = 1 if ended else 0 if ends_soon else 2
    return band, grant.access_expires_at, grant.grant_id


def _clock(connection: Connection) -> datetime:
    return connection.execute(select(now())).scalar_one()
