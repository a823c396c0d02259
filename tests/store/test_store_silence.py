"""What a failing statement shows: neither the error of the store nor the driver's own holds a value of it."""

from __future__ import annotations

import traceback

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from worker.errors import StoreUnavailableError
from worker.store import Store

VALUES = {"sealed": "CANARY sealed bytes"}


def test_the_driver_layers_error_hides_values(store: Store) -> None:
    """Whoever prints it in a hurry, in a handler of their own, prints the statement alone."""

    def work(connection: Connection) -> str:
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text("SELECT :sealed FROM nowhere"), VALUES)
        connection.rollback()
        return f"{caught.value} {caught.value!r}"

    shown = store.transact(work, writes=False)
    assert "nowhere" in shown
    assert "CANARY" not in shown


def test_the_stores_error_hides_values_and_chains_nothing(store: Store) -> None:
    """PostgreSQL quotes a value that it cannot take; what leaves the store has its kind alone."""
    statement = {"sqlite": "SELECT :sealed FROM nowhere", "postgresql": "SELECT CAST(:sealed AS integer)"}[store.kind]

    with pytest.raises(StoreUnavailableError) as caught:
        store.transact(lambda connection: connection.execute(text(statement), VALUES).all(), writes=False)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None
