"""Consent links that were given out: what each was made for, when it ends, and whether it was used."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from worker.store.clock import milliseconds, now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import LINKS
from worker.store.values import ConsentLink


class Links(Transactions):
    """One consent link at a time."""

    @writes
    def add_link(
        self,
        connection: Connection,
        handle: str,
        *,
        life_seconds: float,
        reference: str | None = None,
        creator_id: str | None = None,
    ) -> None:
        """Store a link.

        Args:
            connection: given by the decorator.
            handle: names the link; see `worker.links`.
            life_seconds: for how long it is valid.
            reference: the operator's own name for the creator.
            creator_id: the only creator who may use it; None for any.
        """
        connection.execute(
            insert(LINKS).values(
                handle=handle,
                reference=reference,
                creator_id=creator_id,
                made_at=now(),
                ends_at=now() + milliseconds(life_seconds),
            )
        )

    @reads
    def link(self, connection: Connection, handle: str) -> ConsentLink | None:
        """Return a link, or None if there is no such link."""
        columns = (LINKS.c.reference, LINKS.c.creator_id, LINKS.c.ends_at, LINKS.c.used_at, now().label("now"))
        row = connection.execute(select(*columns).where(LINKS.c.handle == handle)).first()
        return None if row is None else ConsentLink(*row)

    @writes
    def take_link(self, connection: Connection, handle: str) -> bool:
        """Mark a link as used; return False if it is used already, has ended, or is unknown."""
        free = (LINKS.c.handle == handle) & LINKS.c.used_at.is_(None) & (LINKS.c.ends_at >= now())
        return connection.execute(update(LINKS).where(free).values(used_at=now())).rowcount == 1

    @writes
    def free_link(self, connection: Connection, handle: str) -> None:
        """Make a link usable again, because its code brought nothing."""
        connection.execute(update(LINKS).where(LINKS.c.handle == handle).values(used_at=None))
