"""For how long the tokens of the fleet last, and how many creators have none: what the exporter counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, select, type_coerce

from worker.store.clock import now
from worker.store.conditions import is_serving
from worker.store.engine import Transactions, reads
from worker.store.models import GRANTS
from worker.store.rows import is_of_app
from worker.store.values import GrantStatus


class TokenLives(NamedTuple):
    """How long access tokens last, over all grants that are refreshed.

    Attributes:
        within: for each bound, how many access tokens end within that number of seconds.
        grants: how many there are.
        seconds: what is left of all of them together; an ended token counts below 0.
        late_seconds: creator-seconds without a valid token in the window, of grants that are refreshed.
        waiting_seconds: the same of creators who have to authorize again.
    """

    within: tuple[int, ...]
    grants: int
    seconds: float
    late_seconds: float
    waiting_seconds: float


class Figures(Transactions):
    """Figures of the whole fleet."""

    @reads
    def token_lives(self, connection: Connection, bounds: Sequence[float], *, window_seconds: float) -> TokenLives:
        """Return how long access tokens last; it reads every grant once.

        Args:
            connection: given by the decorator.
            bounds: seconds, rising.
            window_seconds: the time until now in which creator-seconds without a token are counted.
        """
        at = connection.execute(select(now())).scalar_one()
        grant, window = GRANTS.c, int(window_seconds * 1000)
        left = type_coerce(grant.access_expires_at - at, BigInteger)
        lost = case((left <= -window, window), (left < 0, -left), else_=0)
        waits = grant.status == GrantStatus.NEEDS_REAUTH.value

        def total(value: ColumnElement[Any], which: ColumnElement[bool]) -> ColumnElement[Any]:
            return func.coalesce(func.sum(case((which, value), else_=0)), 0)

        row = connection.execute(
            select(
                func.count(case((is_serving(), 1))),
                total(left, is_serving()),
                total(lost, is_serving()),
                total(lost, waits),
                *(
                    func.count(case((is_serving() & (grant.access_expires_at <= at + timedelta(seconds=bound)), 1)))
                    for bound in bounds
                ),
            ).where(is_of_app(connection))
        ).one()
        grants, seconds, late, waiting, *within = row
        return TokenLives(tuple(within), grants, float(seconds) / 1000, float(late) / 1000, float(waiting) / 1000)
