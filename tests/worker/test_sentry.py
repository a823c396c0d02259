"""Errors to Sentry: what becomes an event, and that nothing in one is a secret."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.security.canary import Canary, Scan
from tests.support.logged import logged_to, set_up
from worker.celery import EvertokenTask, TaskCrashError, app
from worker.telemetry import Fact, log_fact, remote_places, sentry
from worker.telemetry.last_words import log_uncaught
from worker.telemetry.metrics import REGISTRY
from worker.telemetry.sentry import FLUSH_SECONDS, ReportingTransport, begin_errors
from worker.vault import redaction

SECRET = "rft.CANARYCANARYCANARYCANARYCANARY!4821.va"
DSN = "http://CANARYkey@127.0.0.1:9/1"


class InMemory(ReportingTransport):
    """Keeps what would be sent."""

    sent: list[bytes] = []  # noqa: RUF012 - the fixture empties it

    def capture_envelope(self, envelope: Any) -> None:
        """Keep the bytes."""
        self.sent.append(envelope.serialize())


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., list[bytes]]]:
    """Send errors into memory, or through another transport, while logging as a worker does."""
    with logged_to(tmp_path / "log"):
        yield from _begun()


def _begun() -> Iterator[Callable[..., list[bytes]]]:
    ends: list[Callable[[], None]] = []

    def start(transport: type[ReportingTransport] = InMemory, dsn: str = DSN) -> list[bytes]:
        InMemory.sent.clear()
        ends.append(begin_errors(dsn, release="evertoken@1", about={"process": "test"}, transport=transport))
        return InMemory.sent

    yield start
    for end in ends:
        end()


def events(sent: list[bytes]) -> list[dict[str, Any]]:
    """Return the events of envelopes, each after two lines of heads."""
    return [json.loads(envelope.split(b"\n", 2)[2]) for envelope in sent]


def crash() -> None:
    """Fail as a library might, with a secret in a variable, in the exception and in its cause."""
    token = SECRET
    try:
        os.environ[f"https://host/?refresh_token={token}"]
    except KeyError as error:
        raise RuntimeError(f"sent {token}", {"Access-Token": "CANARYword"}) from error


def test_a_crashed_task_is_an_event_without_its_secrets(begin: Callable[..., list[bytes]]) -> None:
    """It has both exceptions with their stacks, no variable, and no text that looks like a token."""
    sent = begin()
    task: Any = type("Crashing", (EvertokenTask,), {"name": "tasks.crashing", "run": lambda _: crash()})()
    app.register_task(task)
    try:
        with pytest.raises(TaskCrashError):
            task()
    finally:
        app.tasks.unregister(task.name)

    (event,) = events(sent)
    cause, error = event["exception"]["values"]
    assert (cause["type"], error["type"]) == ("KeyError", "RuntimeError")
    assert error["stacktrace"]["frames"][-1]["function"] == "crash"
    assert "vars" not in json.dumps(event)
    assert (event["release"], event["level"], event["tags"]["process"]) == ("evertoken@1", "error", "test")
    assert not {"request", "user", "breadcrumbs", "modules"} & set(event)
    scan = Scan([Canary("a token", b"CANARYCANARY"), Canary("a header", b"CANARYword")])
    assert scan.look("envelope", sent[0]) == []


def test_a_fact_for_a_person_is_an_event_and_others_are_not(begin: Callable[..., list[bytes]]) -> None:
    """Its fields come with it, redacted; warnings and news stay in the log."""
    sent = begin()
    log_fact(Fact("refresh.saved", {"grant_id": 1}))
    log_fact(Fact("call.failed", {"grant_id": 1}, level="warning"))
    log_fact(
        Fact("refresh.stuck", {"grant_id": 3, "reason": f"said {SECRET}", "password": "CANARYword"}, level="error")
    )

    (event,) = events(sent)
    assert event["logentry"]["message"] == "refresh.stuck"
    assert event["extra"] == {"grant_id": 3, "reason": "said <redacted>", "password": "<redacted>"}
    assert event["fingerprint"] == ["refresh.stuck"]


def test_an_uncaught_exception_is_an_event(begin: Callable[..., list[bytes]]) -> None:
    """What ends a process is told before it ends."""
    sent = begin()
    try:
        crash()
    except RuntimeError as error:
        log_uncaught(RuntimeError, error, error.__traceback__)

    (event,) = events(sent)
    assert event["level"] == "fatal"
    assert b"CANARY" not in sent[0]


def test_logging_that_is_set_up_again_keeps_sending(begin: Callable[..., list[bytes]], tmp_path: Path) -> None:
    """Celery sets logging up once more after a worker has begun."""
    sent = begin()
    set_up(tmp_path / "second")
    log_fact(Fact("refresh.stuck", {}, level="error"))

    assert len(sent) == 1


@pytest.mark.parametrize("fails_at", [1, 2])
def test_what_cannot_be_redacted_is_not_sent(
    begin: Callable[..., list[bytes]], monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Whether our event fails or what the library made of it: nothing goes out, and the work goes on."""
    sent, calls = begin(), list[int]()
    redact_event = redaction.redact_event

    def redact(event: Any) -> Any:
        calls.append(len(calls) + 1)
        if calls[-1] == fails_at:
            raise RecursionError
        return redact_event(event)

    monkeypatch.setattr("worker.telemetry.sentry.redact_event", redact)
    log_fact(Fact("refresh.stuck", {"reason": "x"}, level="error"))

    assert (sent, calls[-1]) == ([], fails_at)
    log_fact(Fact("refresh.stuck", {"reason": "x"}, level="error"))
    assert len(sent) == 1


def test_what_the_library_adds_is_redacted(begin: Callable[..., list[bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own variables may hold a secret too."""
    monkeypatch.setenv("SENTRY_ENVIRONMENT", f"prod {SECRET}")
    sent = begin()
    log_fact(Fact("refresh.stuck", {}, level="error"))

    assert events(sent)[0]["environment"] == "prod <redacted>"


def test_a_sentry_that_is_away_delays_nothing(
    begin: Callable[..., list[bytes]], tmp_path: Path, free_port: int
) -> None:
    """A hundred errors are handed over at once; the loss is counted, logged once, and shows no address."""
    before = REGISTRY.get_sample_value("evertoken_facts_total", {"fact": "errors.unsent"}) or 0.0
    sentry.LOSSES._logged_at = None
    begin(ReportingTransport, f"http://CANARYkey@127.0.0.1:{free_port}/1")
    began = time.monotonic()
    for number in range(100):
        log_fact(Fact("refresh.stuck", {"grant_id": number}, level="error"))
    assert time.monotonic() - began < FLUSH_SECONDS

    deadline = time.monotonic() + 30
    while (REGISTRY.get_sample_value("evertoken_facts_total", {"fact": "errors.unsent"}) or 0.0) < before + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    log = (tmp_path / "log").read_text()
    assert log.count("errors.unsent") == 1
    assert "CANARY" not in log
    assert str(free_port) not in log


@pytest.mark.parametrize(
    ("dsn", "host", "problem"),
    [
        ("", None, False),
        ("https://CANARY@sentry.example/1", "sentry.example", False),
        ("https://CANARY:CANARY@sentry.example/path/1", "sentry.example", False),
        ("CANARY", None, True),
        ("https://sentry.example/1", None, True),
        ("https://CANARY@sentry.example/", None, True),
        ("ftp://CANARY@sentry.example/1", None, True),
    ],
)
def test_the_dsn_switches_errors_on(dsn: str, host: str | None, problem: bool) -> None:
    """A DSN that is none is named, and of one that is only the host is shown."""
    _, place = remote_places(cast("dict[str, str]", {"SENTRY_DSN": dsn}))

    assert (place.host, place.problem is not None) == (host, problem)
    assert "CANARY" not in repr(place)
