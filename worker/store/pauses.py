"""Pauses: what people want left alone for a while is neither refreshed nor pulled, and its schedule stays.

A pause is a rule and no mark on grants: it covers the whole app, a reference or a creator, and so also grants that are
stored later. Claims, scans and pulls ask for the rules within their own statements; an attempt whose claim was won
before is not touched, and its pair is stored.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select

from worker.errors import NotFoundError, UnknownCreatorError
from worker.store.clock import now
from worker.store.conditions import is_serving
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS, PAUSES
from worker.store.outbox import add_unless_known
from worker.store.rows import app_of, is_of_app, is_paused, lease_is_free, paused_since
from worker.store.values import Paused, PauseView
from worker.vault.redaction import redact


class Pauses(Transactions):
    """Stopping and resuming the refreshes and pulls of grants."""

    @writes
    def pause(self, connection: Connection, *, reference: str = "", creator_id: str = "") -> Paused:
        """Pause the whole app, a reference or a creator; what is paused already keeps its time.

        Args:
            connection: given by the decorator.
            reference: only grants with this reference; empty for all.
            creator_id: only this creator; empty for all.

        Returns:
            What the pause covers.

        Raises:
            UnknownCreatorError: no such creator.
            NotFoundError: no grant has this reference.
        """
        _refuse_unknown(connection, reference, creator_id)
        changed = add_unless_known(
            connection,
            PAUSES,
            app_id=app_of(connection),
            reference=reference,
            creator_id=creator_id,
            paused_at=now(),
        )
        return _covered(connection, reference, creator_id, changed=changed)

    @writes
    def resume(self, connection: Connection, *, reference: str = "", creator_id: str = "") -> Paused:
        """End a pause of the whole app, a reference or a creator; other pauses stay.

        What is due by then goes out with the next scan, as any backlog does.

        Args:
            connection: given by the decorator.
            reference: the reference that was paused; empty for another pause.
            creator_id: the creator who was paused; empty for another pause.

        Returns:
            What the ended pause covered; its `still_paused` counts the grants that another pause covers.

        Raises:
            UnknownCreatorError: neither such a pause nor such a creator is known.
            NotFoundError: neither such a pause nor a grant with this reference is known.
        """
        ended = connection.execute(
            delete(PAUSES).where(
                PAUSES.c.app_id == app_of(connection),
                PAUSES.c.reference == reference,
                PAUSES.c.creator_id == creator_id,
            )
        )
        if ended.rowcount == 0:  # the pause of a creator who was forgotten meanwhile can be ended all the same
            _refuse_unknown(connection, reference, creator_id)
        return _covered(connection, reference, creator_id, changed=ended.rowcount == 1)

    @reads
    def pauses(self, connection: Connection) -> list[PauseView]:
        """Return the pauses, the oldest first."""
        rules = select(PAUSES).where(PAUSES.c.app_id == app_of(connection))
        rows = connection.execute(rules.order_by(PAUSES.c.paused_at, PAUSES.c.reference, PAUSES.c.creator_id))
        return [PauseView(row.reference, row.creator_id, row.paused_at) for row in rows]

    @reads
    def paused_since(self, connection: Connection, creator_id: str) -> datetime | None:
        """Return since when a creator's grant has been paused; None if it is not."""
        found = select(paused_since(connection)).where(is_of_app(connection), GRANTS.c.creator_id == creator_id)
        since: datetime | None = connection.execute(found).scalar()
        return since


def _refuse_unknown(connection: Connection, reference: str, creator_id: str) -> None:
    covered = _named(reference, creator_id)
    if covered and connection.execute(select(GRANTS.c.id).where(is_of_app(connection), *covered)).first() is None:
        if creator_id:
            raise UnknownCreatorError(f"there is no grant of creator {redact(creator_id)}")
        raise NotFoundError(f"no grant has the reference {redact(reference)}")


def _named(reference: str, creator_id: str) -> list[ColumnElement[bool]]:
    named = [GRANTS.c.creator_id == creator_id] if creator_id else []
    return [*named, GRANTS.c.reference.is_not(None), GRANTS.c.reference == reference] if reference else named


def _covered(connection: Connection, reference: str, creator_id: str, *, changed: bool) -> Paused:
    row = connection.execute(
        select(
            func.count().label("grants"),
            func.count().filter(is_paused(connection)).label("still_paused"),
            func.count().filter(~lease_is_free()).label("under_way"),
        ).where(is_of_app(connection), is_serving(), *_named(reference, creator_id))
    ).one()
    return Paused(changed=changed, grants=row.grants, still_paused=row.still_paused, under_way=row.under_way)
