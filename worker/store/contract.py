"""The terms of TikTok's contract as answers have shown them, and the notices of their changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text, update

from worker.policy.contract import Change, Term, change_of, weigh
from worker.store.clock import now
from worker.store.engine import Transactions, reads, writes
from worker.store.models import GRANTS, REFRESHABLE, TERMS
from worker.store.outbox import insert_notice, insert_unless_known
from worker.store.rows import AnyRow, app_of, is_of_app
from worker.store.values import TermView

CONTRACT_CHANGED = "contract_changed"
FLEET_LIMIT = 3
"""More grants than this make no difference to what counts as a change."""


class Contract(Transactions):
    """Terms that are known."""

    @reads
    def terms(self, connection: Connection) -> dict[str, TermView]:
        """Return the terms of the store's app, by name."""
        return {
            row.term: TermView(_term(row), before=row.value_before, changed_at=row.changed_at)
            for row in connection.execute(select(TERMS).where(TERMS.c.app_id == app_of(connection)))
        }

    @writes
    def note_terms(self, connection: Connection, seen: Sequence[tuple[int, Mapping[str, str]]]) -> list[Change]:
        """Weigh what answers show against what is known, and write a notice for each change.

        The same change of the same term is announced once a day at most, however often it comes and goes.

        Args:
            connection: given by the decorator.
            seen: for each answer its grant and its terms, in the order in which they came.

        Returns:
            The changes.
        """
        names = sorted({term for _, terms in seen for term in terms})
        mine = (TERMS.c.app_id == app_of(connection), TERMS.c.term.in_(names))
        rows = connection.execute(select(TERMS).where(*mine).order_by(TERMS.c.term).with_for_update())
        before: dict[str, Term] = {row.term: _term(row) for row in rows}
        few = select(GRANTS.c.id).where(is_of_app(connection), text(REFRESHABLE)).limit(FLEET_LIMIT)
        fleet = connection.execute(select(func.count()).select_from(few.subquery())).scalar_one()
        known = dict(before)
        for grant_id, terms in seen:
            for term, value in terms.items():
                known[term] = weigh(known.get(term), term, value, grant_id, fleet=fleet)
        changes = []
        for term in names:
            if known[term] == before.get(term):
                continue
            values: dict[str, Any] = {
                "value": known[term].value,
                "odd_value": known[term].odd,
                "odd_ids": list(known[term].odd_grants) or None,
            }
            old = before.get(term)
            if old is None:
                _add(connection, term, values)
                continue
            if old.value != known[term].value:
                changes.append(change_of(term, old.value, known[term].value))
                values |= {"value_before": old.value, "changed_at": now()}
            connection.execute(update(TERMS).where(*mine[:1], TERMS.c.term == term).values(**values))
        for change in changes:
            _announce(connection, change)
        return changes


def _add(connection: Connection, term: str, values: dict[str, Any]) -> None:
    connection.execute(insert_unless_known(connection, TERMS).values(app_id=app_of(connection), term=term, **values))


def _announce(connection: Connection, change: Change) -> None:
    day = connection.execute(select(now())).scalar_one().date()
    key = f"contract:{app_of(connection)}:{change.term}:{day}:{change.now}"[:KEY_LENGTH]
    data = {"term": change.term, "before": change.before, "now": change.now}
    insert_notice(connection, key, CONTRACT_CHANGED, change.told, data=data)


KEY_LENGTH = 255


def _term(row: AnyRow) -> Term:
    return Term(row.value, row.odd_value, tuple(row.odd_ids or ()))
