"""Time passes for rows: what would take minutes or hours is moved into the past by SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from worker.store import Store

LONG_AGO_SECONDS = 5


def run_sql(store: Store, *statements: str, **values: Any) -> list[Any]:
    """Run statements in one transaction beside the store's own, and return the rows of the last."""

    def work(connection: Connection) -> list[Any]:
        rows: list[Any] = []
        for statement in statements:
            result = connection.execute(text(statement), values)
            rows = list(result) if result.returns_rows else []
        return rows

    return store.transact(work, writes=True)


def milliseconds(at: datetime) -> int:
    """Return an instant as the tables hold it."""
    return round(at.timestamp() * 1000)


def end_leases(store: Store) -> None:
    """Let every lease run out; its holder must be dead or done."""
    past = milliseconds(store.ping()) - LONG_AGO_SECONDS * 1000
    run_sql(store, "UPDATE grants SET lease_until = :past WHERE lease_until IS NOT NULL", past=past)


def make_due(store: Store, since: datetime) -> list[int]:
    """Make due, and return, the grants that were not refreshed since then and still can be."""
    unsettled = "status IN ('active', 'suspect') AND (issued_at < :since OR status = 'suspect')"
    rows = run_sql(
        store,
        f"UPDATE grants SET next_refresh_at = :past WHERE {unsettled}",  # noqa: S608 - a constant of this function
        "UPDATE brake SET next_probe_at = :past WHERE reason IS NOT NULL",
        f"SELECT id FROM grants WHERE {unsettled} ORDER BY id",  # noqa: S608 - a constant of this function
        past=milliseconds(store.ping()) - LONG_AGO_SECONDS * 1000,
        since=milliseconds(since),
    )
    return [row[0] for row in rows]


def end_tokens_of_suspects(store: Store) -> None:
    """Let the access tokens of suspect grants end."""
    past = milliseconds(store.ping()) - LONG_AGO_SECONDS * 1000
    run_sql(store, "UPDATE grants SET access_expires_at = :past WHERE status = 'suspect'", past=past)
