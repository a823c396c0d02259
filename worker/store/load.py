"""The load to come: how many grants are due when, by the length of their access tokens' lives."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, case, exists, func, select, type_coerce

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads
from worker.store.models import ATTEMPTS, GRANTS
from worker.store.rows import is_of_app
from worker.store.values import GrantStatus


class LoadSlice(NamedTuple):
    """Grants with tokens of one life that are due in the same stretch of time.

    Attributes:
        life_seconds: from the issue of the access token to its end, to the minute.
        slice: number of the stretch, counted from now; 0 holds what is due already.
        grants: how many.
        refreshed: True if a refresh brought the tokens; False for the first pair of a consent. If that was imported,
            its life may be only what was left of it.
    """

    life_seconds: int
    slice: int
    grants: int
    refreshed: bool


class Load(Transactions):
    """When the grants that are refreshed come due."""

    @reads
    def load(self, connection: Connection, *, slice_seconds: int) -> list[LoadSlice]:
        """Return how many grants are due in which stretch of time; it reads every grant once.

        Args:
            connection: given by the decorator.
            slice_seconds: length of a stretch.
        """
        at = connection.execute(select(now())).scalar_one()
        grant = GRANTS.c
        life = type_coerce(grant.access_expires_at - grant.issued_at, BigInteger) // milliseconds(60)
        ahead = type_coerce(grant.next_refresh_at - at, BigInteger) // milliseconds(slice_seconds)
        number = case((grant.next_refresh_at <= at, 0), else_=ahead).label("number")
        attempt = ATTEMPTS.c  # pruning keeps the newest attempt of each grant
        refreshed = exists().where(
            attempt.grant_id == grant.id,
            attempt.consent == grant.consent,
            attempt.generation == grant.pair_generation,
        )
        rows = connection.execute(
            select(life.label("life"), number, func.count().label("grants"), refreshed.label("refreshed"))
            .where(is_of_app(connection), grant.status.in_([GrantStatus.ACTIVE.value, GrantStatus.SUSPECT.value]))
            .group_by("life", "number", "refreshed")
            .order_by("life", "number", "refreshed")
        )
        return [LoadSlice(int(row.life) * 60, int(row.number), row.grants, bool(row.refreshed)) for row in rows]
