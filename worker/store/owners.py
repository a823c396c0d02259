"""The owner of an imported pair as TikTok named it: the pair is confirmed, or held if it is another creator's."""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, writes
from worker.store.models import GRANTS
from worker.store.values import CurrentPair

HOLD_SECONDS: Final = 86_400.0


class Owners(Transactions):
    """Records what TikTok said about the owner of a pair; nothing changes if a newer pair has come."""

    @writes
    def confirm_owner(self, connection: Connection, pair: CurrentPair, *, scope: str) -> None:
        """Mark a pair as confirmed, so that it is used like any other.

        Args:
            connection: given by the decorator.
            pair: the pair that TikTok was asked about.
            scope: the scopes to store, sorted and comma separated.
        """
        connection.execute(
            update(GRANTS)
            .where(_is_current(pair.grant_id, pair.consent, pair.generation))
            .values(unproven_since=None, scope=scope, updated_at=now())
        )

    @writes
    def hold_pair(
        self, connection: Connection, grant_id: int, consent: int, generation: int, *, belongs_to: str
    ) -> None:
        """Hold a pair of another creator, so that it is not refreshed, not used for pulls and not handed out.

        The grant is due again after `HOLD_SECONDS`, to be held again.

        Args:
            connection: given by the decorator.
            grant_id: the grant.
            consent: the pair's consent.
            generation: the pair's generation.
            belongs_to: the owner that TikTok named.
        """
        connection.execute(
            update(GRANTS)
            .where(_is_current(grant_id, consent, generation))
            .values(
                belongs_to=belongs_to,
                last_reason=f"the imported pair belongs to creator {belongs_to}",
                next_refresh_at=now() + milliseconds(HOLD_SECONDS),
                next_pull_at=None,
                updated_at=now(),
            )
        )


def _is_current(grant_id: int, consent: int, generation: int) -> ColumnElement[bool]:
    return and_(GRANTS.c.id == grant_id, GRANTS.c.consent == consent, GRANTS.c.pair_generation == generation)
