"""Lines that Celery and kombu repeat: the first of each cause is written, others are counted, and the end is said."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.daemon import plain_environ
from worker.telemetry import Fact, repeats
from worker.telemetry.repeats import CONSUMER, MINUTE, MOST_CAUSES, QUIET_SECONDS, REDIS, Repeats

LOST = "consumer: Connection to broker lost. Trying to re-establish the connection... (server:ResponseError)"
REFRESH = "maybe_refresh_binding_expiry: Redis error, will retry"

PROJECT = Path(__file__).resolve().parents[2]
ENDS = f"""
import logging
from worker.telemetry import configure_logging, log_fact
from worker.telemetry.repeats import REDIS, Repeats
configure_logging(log_format="json", level="INFO")
logging.getLogger(REDIS).addFilter(Repeats(log_fact))
for _ in range(3):
    try:
        raise ValueError("refused client_secret=CANARY&x=1 redis://user:CANARY@host")
    except ValueError:
        logging.getLogger(REDIS).warning("{REFRESH}", exc_info=True)
"""

WHERE = """
import logging
import worker.consumer
known = [logging.root, *map(logging.getLogger, sorted(logging.root.manager.loggerDict))]
print(*(logger.name for logger in known if logger.filters or any(handler.filters for handler in logger.handlers)))
"""


def cannot(why: str = "full", seconds: int = 2) -> str:
    """Return the line of a try that failed."""
    return f"consumer: Cannot connect to redis://host: {why}.\nTrying again in {seconds}.00 seconds... (1/None)\n"


class Log:
    """What both loggers write, with a clock that the test moves and no thread that looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.facts, self.looks = 1000.0, list[Fact](), 0
        monkeypatch.setattr(repeats, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(Repeats, "_watch", lambda _: None)
        self.repeats = Repeats(self.facts.append)

    def writes(self, text: str, *, name: str = CONSUMER, error: str = "") -> bool:
        """Return True if a line is written."""
        trace = (ValueError, ValueError(error), None) if error else None
        return self.repeats.filter(logging.LogRecord(name, logging.ERROR, "", 0, text, None, trace))

    def wait(self, seconds: float) -> bool:
        """Let time pass and look as the thread does; return False if nothing is left to watch."""
        self.now += seconds
        return self.repeats._goes_on()

    def said(self) -> list[tuple[str, object]]:
        """Return what was reported since, with how often a line was not written."""
        said: list[tuple[str, object]] = [
            (fact.name, fact.fields.get("times", fact.fields.get("unwritten"))) for fact in self.facts
        ]
        self.facts.clear()
        return said


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """Nothing is written yet, and the worker is connected."""
    log = Log(monkeypatch)
    log.repeats.ready()
    return log


def test_the_first_line_of_each_cause_is_written_and_the_others_are_counted_each_minute(log: Log) -> None:
    """Whenever Celery tries next; another error is another cause, and its line is written too."""
    assert log.writes(LOST)
    written = []
    for number in range(480):
        written.append(log.writes(cannot(seconds=number)))
        log.wait(0.25)

    assert written == [True] + [False] * 479
    assert log.said() == [("log.repeated", 239), ("log.repeated", 240)]
    assert log.writes(cannot("read-only"))
    log.repeats.ready()
    assert log.said() == [("log.calm", 479)]


def test_each_loss_of_a_connection_is_written(log: Log) -> None:
    """However soon it comes; once the worker has come back, so is each other line of the new outage."""
    for _ in range(3):
        assert log.writes(LOST)
        assert log.writes(cannot())
        assert log.writes(LOST)  # the worker was connected for a moment and took no messages
        assert not log.writes(cannot())
        log.repeats.ready()
        assert log.said() == [("log.calm", 1)]
    assert log.writes(LOST)
    log.repeats.ready()
    assert log.said() == []  # nothing was held back


def test_an_outage_without_a_loss_of_the_connection_ends_with_its_last_line(log: Log) -> None:
    """A full Redis hands out messages; but a worker that lost its connection and is silent is not out of trouble."""
    for _ in range(2):
        assert log.writes(REFRESH, name=REDIS, error="full")
        assert not log.writes(REFRESH, name=REDIS, error="full")
        assert log.writes(REFRESH, name=REDIS, error="read-only")
        assert log.wait(QUIET_SECONDS - 1)
        assert log.said() == []
        assert not log.wait(1)
        assert log.said() == [("log.calm", 1)]

    assert log.writes(REFRESH, name=REDIS, error="full")
    assert log.writes(LOST)
    assert log.wait(MINUTE / 2)
    assert log.writes(cannot())
    assert log.wait(MINUTE / 2)
    assert not log.writes(cannot())
    assert log.said() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (CONSUMER, "Received unregistered task of type x"),
        (REDIS, "Could not restore message"),
    ],
)
def test_other_lines_are_never_held_back(log: Log, name: str, text: str) -> None:
    """Errors of another kind from the same loggers; nor is anything said of them."""
    assert all(log.writes(text, name=name) for _ in range(10))
    log.wait(MINUTE)
    log.repeats.ready()
    assert log.said() == []


def test_more_causes_than_are_remembered_are_written(log: Log) -> None:
    """The memory is bounded, and what does not fit in is not lost."""
    causes = [cannot(f"cause {number}") for number in range(MOST_CAUSES + 1)]
    assert all(log.writes(cause) for cause in causes)

    assert not log.writes(causes[0])
    assert log.writes(causes[-1])


def test_what_goes_wrong_here_ends_nothing_and_hides_no_line(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's loop runs through this filter: a line that cannot be formatted, or no thread, is no error of its own."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    odd = logging.LogRecord(CONSUMER, logging.ERROR, "", 0, "%d", ("no number",), None)
    assert log.repeats.filter(odd)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert all(log.writes(cannot()) for _ in range(3))


def test_what_a_process_counted_is_reported_at_its_end_without_secrets() -> None:
    """An outage may outlast a worker, and a library's error may hold what it was given."""
    ended = subprocess.run([sys.executable, "-c", ENDS], cwd=PROJECT, capture_output=True, text=True, check=True)
    first, count = map(json.loads, ended.stderr.splitlines())

    assert first["event"] == REFRESH
    assert (count["event"], count["times"], count["level"]) == ("log.repeated", 2, "warning")
    assert count["line"].startswith(f"{REFRESH}: refused")
    assert "CANARY" not in ended.stderr


@pytest.mark.parametrize(
    ("broker", "loggers"), [({}, [CONSUMER, REDIS]), ({"EVERTOKEN_BROKER_URL": "amqp://user:word@host/vhost"}, [])]
)
def test_no_other_logger_has_the_filter(broker: dict[str, str], loggers: list[str], tmp_path: Path) -> None:
    """So it never sees a fact of ours; over RabbitMQ, which is tried every few seconds at most, it sees no line."""
    ended = subprocess.run(
        [sys.executable, "-c", WHERE], env=plain_environ() | broker, cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    assert ended.stdout.split() == loggers
