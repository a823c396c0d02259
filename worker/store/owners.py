"""Whose an imported pair is, as TikTok said: confirmed, or another creator's, and then it is held back."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, writes
from worker.store.models import GRANTS
from worker.store.values import CurrentPair


class Owners(Transactions):
    """Writing down what TikTok said about the owner of a pair; nothing changes if a newer pair has come."""

    @writes
    def confirm_owner(self, connection: Connection, pair: CurrentPair, *, scope: str | None) -> None:
        """Let a pair be used like any other.

        Args:
            connection: given by the decorator.
            pair: the pair that TikTok was asked about.
            scope: the scopes that TikTok named, sorted and comma separated; None keeps the stored ones.
        """
        values = {"unproven_since": None} | ({} if scope is None else {"scope": scope})
        connection.execute(update(GRANTS).where(_still_current(pair)).values(updated_at=now(), **values))

    @writes
    def hold_pair(self, connection: Connection, pair: CurrentPair, *, belongs_to: str, seconds: float) -> None:
        """Keep a pair from being refreshed, pulled with and handed out, because it is another creator's.

        Args:
            connection: given by the decorator.
            pair: the pair that TikTok was asked about.
            belongs_to: whose TikTok says that it is.
            seconds: after which the grant is looked at again, to be held again.
        """
        connection.execute(
            update(GRANTS)
            .where(_still_current(pair))
            .values(
                belongs_to=belongs_to,
                last_reason=f"the imported pair belongs to creator {belongs_to}",
                next_refresh_at=now() + milliseconds(seconds),
                next_pull_at=None,
                updated_at=now(),
            )
        )


def _still_current(pair: CurrentPair) -> ColumnElement[bool]:
    return and_(
        GRANTS.c.id == pair.grant_id, GRANTS.c.consent == pair.consent, GRANTS.c.pair_generation == pair.generation
    )
