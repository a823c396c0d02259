"""Lines that Celery and kombu repeat: the first and the end are written, what lies between is counted."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from worker.telemetry import Fact, repeats
from worker.telemetry.repeats import CONNECTION, MINUTE, MOST_KINDS, Repeats

CONSUMER = "celery.worker.consumer.consumer"


class Line:
    """Lines through a filter whose clock the test moves and whose thread does not run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.facts = 1000.0, list[Fact]()
        monkeypatch.setattr(repeats, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(Repeats, "_watch", lambda _: None)
        self.filter = Repeats(self.facts.append)

    def passes(self, text: str, name: str = CONSUMER, level: int = logging.ERROR) -> bool:
        """Return True if a line is written."""
        return self.filter.filter(logging.LogRecord(name, level, "", 0, text, None, None))

    def said(self) -> list[tuple[str, object]]:
        """Return what was said of repeated lines, with the number of times."""
        return [(fact.name, fact.fields["times"]) for fact in self.facts]


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    """A filter that has held back nothing."""
    return Line(monkeypatch)


def test_a_repeated_line_is_written_once_and_counted_each_minute(line: Line) -> None:
    """Whatever numbers it holds; another line is another cause."""
    written = []
    for number in range(480):
        written.append(line.passes(f"Cannot connect: full. Again in {number}.00 seconds"))
        line.now += 0.25
        line.filter.look()

    assert written == [True] + [False] * 479
    assert line.passes("Cannot connect: read-only")
    assert [name for name, _ in line.said()] == ["log.repeated"] * 2
    line.filter.end()
    assert sum(int(str(times)) for _, times in line.said()) == 479


def test_a_line_that_came_again_ends_with_an_all_clear_and_is_then_new(line: Line) -> None:
    """A second after the worker connected, or after a minute without it; one that came once needs none."""
    for _ in range(3):
        line.passes("Connection to broker lost", level=logging.WARNING)
    line.passes("Cannot connect")
    line.now += 5
    assert line.passes("Connected", CONNECTION, logging.INFO)
    assert not line.passes("Connection to broker lost", level=logging.WARNING)
    line.now += 1
    assert line.filter.look()
    assert line.said() == []
    line.passes("Connected", CONNECTION, logging.INFO)
    line.now += 2
    assert not line.filter.look()
    assert line.said() == [("log.calm", 3)]

    assert line.passes("Connection to broker lost", level=logging.WARNING)
    assert not line.passes("Connection to broker lost", level=logging.WARNING)
    line.now += MINUTE
    assert line.passes("Connection to broker lost", level=logging.WARNING)
    assert line.said() == [("log.calm", 3), ("log.calm", 1)]


@pytest.mark.parametrize(
    ("name", "level"),
    [("evertoken", logging.ERROR), ("celery.app.trace", logging.ERROR), (CONSUMER, logging.INFO)],
)
def test_other_lines_are_never_held_back(line: Line, name: str, level: int) -> None:
    """Ours, those of Celery's tasks, and what is no trouble."""
    assert all(line.passes("the same", name, level) for _ in range(10))


def test_more_different_lines_than_are_watched_are_written(line: Line) -> None:
    """The memory is bounded."""
    letters = [chr(ord("a") + number % 26) * (1 + number // 26) for number in range(MOST_KINDS + 1)]
    assert all(line.passes(each) for each in letters)
    assert not line.passes(letters[0])
    assert line.passes(letters[-1])
