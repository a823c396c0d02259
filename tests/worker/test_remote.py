"""A process that sends elsewhere and crashes or forks: its last words arrive, and nothing arrives twice."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import plain_environ
from tests.support.elsewhere import Elsewhere
from worker.cli.checks_places import telemetry
from worker.telemetry import SPANS, Fact, begin_remote, end_remote, remote

SCRIPT = """
import os
import worker.celery
from worker.telemetry import Fact, begin_remote, configure_logging, install_last_words, report
from worker.telemetry import SPANS, Span
configure_logging(log_format="json", level="INFO")
install_last_words()
begin_remote({"process": "parent"}, namespace=None)
with SPANS.over(Span("before")):
    report(Fact("refresh.stuck", {}, level="error"))
if not os.fork():
    report(Fact("store.unavailable", {}, level="error"))  # it has not begun to send
    begin_remote({"process": "child"}, namespace=None)
    with SPANS.over(Span("inside")):
        report(Fact("journal.failed", {}, level="error"))
    raise SystemExit
os.wait()
raise RuntimeError("the end")
"""


def test_last_words_and_a_forked_child_are_heard_once(tmp_path: Path) -> None:
    """A crash is sent although it is the last thing; a child sends what is its own, and not what its parent has."""
    with Elsewhere() as elsewhere:
        environ = plain_environ() | elsewhere.environ
        environ |= {"EVERTOKEN_REDIS_URL": "redis://127.0.0.1:1/0", "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    heard = sorted((event["tags"]["process"], event["logentry"]["message"]) for event in elsewhere.events())
    assert heard == [("child", "journal.failed"), ("parent", "process.crashed"), ("parent", "refresh.stuck")]
    spans = sorted((process, span.name) for process, span in elsewhere.spans())
    assert spans == [("child", "inside"), ("parent", "before")], ended.stderr


def test_the_doctor_names_what_a_library_would_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that only a worker's start would find is named, without its value; a good one sends nothing."""
    with Elsewhere() as elsewhere:
        for name, value in elsewhere.environ.items():
            monkeypatch.setenv(name, value)
        good = telemetry()
        monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "CANARY")
        bad = telemetry()

    assert (good.state, good.detail) == ("ok", "traces go to 127.0.0.1; errors go to 127.0.0.1")
    assert bad.state == "warn"
    assert "traces go nowhere: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT cannot be used" in bad.detail
    assert "CANARY" not in bad.detail
    assert (elsewhere.got, SPANS.call) == ([], None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "5sCANARY"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2kCANARY"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "CANARY"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "30sCANARY"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10sCANARY"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstdCANARY"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=1,x-other:CANARY"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=one,CANARY"),
    ],
)
def test_the_doctor_names_what_a_library_passes_over(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces go out all the same, but not as somebody believes; the value may be a secret, and is shown nowhere."""
    facts: list[Fact] = []
    written: list[logging.LogRecord] = []
    monkeypatch.setattr(remote, "report", facts.append)
    log = logging.Handler()
    monkeypatch.setattr(log, "emit", written.append)
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    with Elsewhere() as elsewhere:
        for variable, text in elsewhere.environ.items():
            monkeypatch.setenv(variable, text)
        monkeypatch.setenv(name, value)
        found = telemetry()
        begin_remote({}, namespace=None)
        end_remote(send=False)

    assert found.state == "warn"
    assert f"traces go to 127.0.0.1, without {name}: it cannot be used; errors" in found.detail
    assert "CANARY" not in found.detail
    assert [record for record in written if record.name.startswith("opentelemetry")] == []
    assert facts[0].fields == {"host": "127.0.0.1", "passed_over": name}
