"""Arrival: which troubles of the database a starting worker waits for, and which end it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.ground import ground_of
from worker.errors import EvertokenError, JournalError, NotReadyError, StoreRefusedError, StoreUnavailableError
from worker.store import open_store
from worker.telemetry import Fact
from worker.upkeep import arrival

SERVER = "postgresql://u:p@127.0.0.1:9/name"


class Door:
    """Fails as told, once each, and then lets in."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.entered = 0

    def __call__(self) -> None:
        """Enter."""
        if self.errors:
            raise self.errors.pop(0)
        self.entered += 1


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses, none of which is waited for."""
    pauses: list[float] = []
    monkeypatch.setattr("worker.upkeep.arrival.time.sleep", pauses.append)
    return pauses


def arrive(door: Door, url: str = SERVER) -> tuple[list[Fact], int]:
    """Arrive, and return the facts and how often life was shown."""
    facts, shown = list[Fact](), list[None]()
    ground = ground_of(store=open_store(url), hook=facts.append)
    arrival.arrive(ground, door, alive=lambda: shown.append(None))
    return facts, len(shown)


def test_each_try_that_finds_the_server_away_is_logged_and_life_is_shown(slept: list[float]) -> None:
    """The pauses grow to a quarter of a minute, and the first success ends the wait."""
    door = Door(*(StoreUnavailableError("connection refused") for _ in range(6)))

    facts, shown = arrive(door)

    assert (door.entered, shown) == (1, 6)
    assert [fact.name for fact in facts] == ["store.awaited"] * 6
    assert facts[0].fields == {"reason": "connection refused", "again_in_seconds": 1.0}
    assert slept == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


@pytest.mark.parametrize(
    "error", [StoreRefusedError("lacks a right"), NotReadyError("not migrated"), JournalError("no room")], ids=str
)
def test_a_trouble_that_does_not_pass_by_itself_is_not_waited_for(slept: list[float], error: EvertokenError) -> None:
    """A database that answers, and a journal without room, end the worker as before."""
    with pytest.raises(type(error)):
        arrive(Door(error))

    assert slept == []


def test_a_missing_file_is_not_waited_for(slept: list[float], tmp_path: Path) -> None:
    """Nothing brings SQLite's file back by itself, so a wrong path is named at once."""
    with pytest.raises(StoreUnavailableError):
        arrive(Door(StoreUnavailableError("there is no file")), f"sqlite:///{tmp_path / 'no.db'}")

    assert slept == []
