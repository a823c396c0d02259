"""Results on their way to the database."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.ground import silent
from worker.errors import StoreUnavailableError
from worker.refresh.commits import RETRY_STUCK_SECONDS, PatientCommits


class Database:
    """A database that is away, refuses some writes, or takes all."""

    def __init__(self) -> None:
        self.away = False
        self.refuses: set[str] = set()
        self.took: list[str] = []

    def answers(self) -> bool:
        """Return whether it answers at all."""
        return not self.away

    def write(self, name: str) -> None:
        """Take a write, or not."""
        if self.away or name in self.refuses:
            raise StoreUnavailableError("away")
        self.took.append(name)


def commits_of(database: Database, *, stop: threading.Event | None = None) -> PatientCommits:
    """Return patient commits that give up after a blink."""
    return PatientCommits(patience_seconds=0.01, alive=database.answers, stop=stop or threading.Event(), hook=silent)


def test_a_result_is_kept_while_the_database_is_away_and_written_before_new_work() -> None:
    """What the database did not take is left over, blocks new claims, and is written once it is back."""
    database = Database()
    commits = commits_of(database)
    database.away = True

    assert not commits.run(lambda: database.write("pair"))
    assert not commits.settle()

    database.away = False
    assert commits.settle()
    assert database.took == ["pair"]


def test_a_result_that_a_living_database_refuses_holds_up_nothing_else() -> None:
    """One row that cannot be written is put aside, the others go on, and it is tried again later."""
    database = Database()
    commits = commits_of(database)
    database.refuses = {"bad"}

    assert not commits.run(lambda: database.write("bad"))
    assert commits.settle()
    assert commits.run(lambda: database.write("good"))

    database.refuses.clear()
    assert commits.retry_stuck() == 0
    assert database.took == ["good", "bad"]


def test_stuck_results_are_reported_once_tried_again_and_reported_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fact when the first result is refused, none for the next, none at each try, and one when all are stored."""
    database, reported = Database(), list[str]()
    commits = PatientCommits(
        patience_seconds=0.01,
        alive=database.answers,
        stop=threading.Event(),
        hook=lambda fact: reported.append(fact.name),
    )
    database.refuses = {"bad", "worse"}
    for name in ("bad", "worse"):
        commits.run(lambda name=name: database.write(name))  # type: ignore[misc]  # a default binds the loop's name
    assert commits.settle()
    assert reported == ["results.stuck"]

    database.refuses.clear()
    assert commits.settle()
    assert (database.took, reported) == ([], ["results.stuck"])  # it is not time yet

    later = time.monotonic() + RETRY_STUCK_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert commits.settle()
    assert reported == ["results.stuck", "results.stored"]
    assert database.took == ["bad", "worse"]


def test_a_result_without_a_journal_record_is_tried_until_it_is_written() -> None:
    """If nothing else holds the pair, the tries do not end."""
    database = Database()
    database.away = True
    tries = []

    def write() -> None:
        tries.append(1)
        if len(tries) == 4:
            database.away = False
        database.write("pair")

    assert commits_of(database).run(write, until_done=True)
    assert database.took == ["pair"]


def test_the_end_of_the_process_ends_the_waiting() -> None:
    """A process that is asked to stop does not hang on a database that is away."""
    stop, database = threading.Event(), Database()
    database.away = True
    stop.set()

    assert not commits_of(database, stop=stop).run(lambda: database.write("pair"), until_done=True)


def test_a_result_without_a_journal_record_is_tried_a_while_longer_when_the_process_ends() -> None:
    """A warm shutdown while the database is away for a moment does not cost the pair."""
    database, stop = Database(), threading.Event()
    database.away = True
    stop.set()
    tries = []

    def write() -> None:
        tries.append(1)
        database.away = len(tries) < 3
        database.write("pair")

    commits = PatientCommits(patience_seconds=20, alive=database.answers, stop=stop, hook=silent)
    assert commits.run(write, until_done=True)
    assert database.took == ["pair"]


def test_a_process_that_ends_does_not_wait_for_ever() -> None:
    """If the database stays away, the last tries end; a process whose journal holds the result does not wait at all."""
    database, stop = Database(), threading.Event()
    database.away = True
    stop.set()
    tries = []

    def write() -> None:
        tries.append(1)
        database.write("pair")

    assert not commits_of(database, stop=stop).run(write, until_done=True)
    tries.clear()
    assert not PatientCommits(patience_seconds=20, alive=database.answers, stop=stop, hook=silent).run(write)
    assert len(tries) == 1
