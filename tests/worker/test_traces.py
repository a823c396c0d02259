"""Traces: which spans there are, that no secret is in one, and that nothing waits for a collector."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.logged import logged_to
from tests.support.receiver import running_receiver
from tests.support.world import World
from tests.worker.test_notify import notifier_of
from worker.celery import TRACE, EvertokenTask, app
from worker.telemetry import SPANS, Span, remote_places
from worker.telemetry.metrics import REGISTRY
from worker.telemetry.otel import FLUSH_SECONDS, begin_traces
from worker.tiktok import transport

NewWorld = Callable[..., World]
Begin = Callable[[SpanExporter], Callable[[], None]]
PROJECT = Path(__file__).resolve().parents[2]
SECRET = "rft.CANARYCANARYCANARYCANARYCANARY!4821.va"

on_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log as a worker does, to a file, without variables of this machine."""
    for name in [name for name in os.environ if name.startswith(("OTEL_", "SENTRY_"))]:
        monkeypatch.delenv(name)
    with logged_to(tmp_path / "log"):
        yield


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begin to record, until the test ends."""
    with ExitStack() as ends:

        def start(exporter: SpanExporter) -> Callable[[], None]:
            ends.callback(begin_traces(exporter, about={"process": "test"}))
            return ends.pop_all().close

        yield start


class Recorder:
    """Spans in memory, that end with `spans`."""

    def __init__(self, begin: Begin) -> None:
        self._exporter = InMemorySpanExporter()
        self._end = begin(self._exporter)

    def spans(self) -> list[ReadableSpan]:
        """End the recording and return all spans."""
        self._end()
        return list(self._exporter.get_finished_spans())


@pytest.fixture
def recorder(begin: Begin) -> Recorder:
    """Record into memory."""
    return Recorder(begin)


def named(spans: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    """Return the spans of a name."""
    return [span for span in spans if span.name == name]


def texts(spans: Sequence[ReadableSpan]) -> str:
    """Return everything in spans as text."""
    return "\n".join(str(span.to_json()) for span in spans)


def count(fact: str) -> float:
    """Return how often a fact was counted."""
    return REGISTRY.get_sample_value("evertoken_facts_total", {"fact": fact}) or 0.0


@on_sqlite
def test_a_group_is_a_span_with_what_happened_in_it(new_world: NewWorld, recorder: Recorder) -> None:
    """It counts by outcome, and below it are permit, claim, each call with its request id, and the commit."""
    world = new_world()
    grants = world.creators(3)
    world.services.refresher.refresh_all([grant.grant_id for grant in grants])

    spans = recorder.spans()
    groups = named(spans, "refresh.group")
    assert sum(cast("int", group.attributes["refreshed"]) for group in groups if group.attributes) == 3
    inside = {span.name for span in spans if span.parent and span.parent.span_id in {g.context.span_id for g in groups}}
    assert inside == {"refresh.permit", "refresh.claim", "tiktok.call", "database.commit"}
    calls = named(spans, "tiktok.call")
    assert len(calls) == 3
    for call in calls:
        assert call.attributes is not None
        assert call.attributes["call"] == "tt_user/oauth2/refresh_token/"
        assert (call.attributes["code"], call.attributes["http_status"]) == (0, 200)
        assert str(call.attributes["request_id"]).startswith("20")
        assert cast("float", call.attributes["seconds"]) > 0
        assert (call.end_time or 0) > (call.start_time or 0) > 0
    facts = [event for span in spans for event in span.events if event.name == "refresh.saved"]
    assert {event.attributes["creator_id"] for event in facts if event.attributes} == {g.creator_id for g in grants}


@on_sqlite
def test_an_answer_is_read_for_a_trace_only_when_the_journal_has_it(
    new_world: NewWorld, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is received goes to disk first, with traces as without them; an error in reading harms nothing."""
    world, order = new_world(), list[str]()
    journal = world.services.journal
    sync = journal.sync

    def synced(written: Any) -> Any:
        order.append("journal")
        return sync(written)

    def told(raw: Any) -> Any:
        order.append("trace")
        raise RuntimeError

    monkeypatch.setattr(journal, "sync", synced)
    monkeypatch.setattr(transport, "told_of", told)

    assert world.services.refresher.refresh(world.creator().grant_id).kind == "refreshed"
    assert order == ["journal", "trace"]
    assert len(named(recorder.spans(), "tiktok.call")) == 1


@on_sqlite
def test_a_refused_refresh_is_a_span_with_its_code(new_world: NewWorld, recorder: Recorder) -> None:
    """The call is marked as failed, and TikTok's own text is not in it."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault("code", creator=grant.creator_id, call="refresh", times=2, code=40100, message=f"no {SECRET}")
    world.services.refresher.refresh(grant.grant_id)

    spans = recorder.spans()
    call = named(spans, "tiktok.call")[0]
    assert call.attributes is not None
    assert (call.attributes["code"], call.status.is_ok) == (40100, False)
    assert str(call.attributes["request_id"]).isalnum()
    assert set(call.attributes) == {"call", "seconds", "http_status", "code", "request_id", "error"}
    assert "CANARY" not in texts(spans)


@on_sqlite
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("code", {"code": 40107, "message": f"the token {SECRET} is gone"}),
        ("code", {"code": 99999, "message": f"https://user:CANARYword@host/?refresh_token={SECRET}"}),
        ("cut", {"at": 200}),
        ("wrong_creator", {"creator_id": "act.CANARYCANARYCANARYCANARYCANARY"}),
        ("status", {"status": 502}),
    ],
)
def test_no_token_is_in_a_span(new_world: NewWorld, recorder: Recorder, kind: str, how: dict[str, Any]) -> None:
    """Whatever TikTok answers: every token of the sandbox holds the word CANARY, and none of it is traced."""
    world = new_world()
    grant = world.creator()
    world.sandbox.fault(kind, creator=grant.creator_id, call="refresh", times=3, **how)
    world.services.refresher.refresh(grant.grant_id)
    other = world.creator()
    world.services.refresher.refresh(other.grant_id)
    world.services.store.request_pull(other.creator_id)
    world.services.puller.pull_all([other.grant_id])

    spans = recorder.spans()
    assert len(named(spans, "tiktok.call")) >= 3
    assert named(spans, "pull")[0].attributes == {"grant_id": other.grant_id, "outcome": "pulled"}
    assert "CANARY" not in texts(spans)
    assert "sandbox-secret" not in texts(spans)


def test_an_exception_leaves_its_type_and_no_text(recorder: Recorder) -> None:
    """A foreign exception's text may hold anything; the exception itself goes on."""
    fields: dict[str, Any] = {"reason": f"said {SECRET}", "access_token": "CANARYword", "grant_id": 7, "code": None}
    with pytest.raises(ValueError, match="CANARY"), SPANS.over(Span("work", fields)):
        raise ValueError(SECRET)

    (span,) = recorder.spans()
    assert span.status.description == "ValueError"
    assert dict(span.attributes or {}) == {
        "reason": "said <redacted>", "access_token": "<redacted>", "grant_id": 7,
    }  # fmt: skip
    assert "CANARY" not in texts([span])


@on_sqlite
def test_scans_tasks_and_notices_are_spans(new_world: NewWorld, recorder: Recorder) -> None:
    """A task's span belongs to the one whose message asked for it; a scan counts, and a delivery says where to."""
    world = new_world()
    world.creators(2)
    task: Any = type("Spanned", (EvertokenTask,), {"name": "tasks.spanned", "run": lambda _: None})()
    app.register_task(task)
    try:
        with SPANS.over(Span("publisher")):
            assert SPANS.carried is not None
            trace = SPANS.carried()
            assert len(world.services.scanner.refreshes()) >= 1
        for header in (trace, "no trace", 7):
            task.push_request(headers={TRACE: header})
            task()
            task.pop_request()
    finally:
        app.tasks.unregister(task.name)
    world.services.store.raise_alarm("stuck:1", "stuck", "a reason")
    with running_receiver() as receiver:
        notifier_of(world.services.store, receiver.url).deliver()

    spans = recorder.spans()
    assert (named(spans, "scan.refreshes")[0].attributes or {})["grants"] == 2
    publisher = named(spans, "publisher")[0].context.trace_id
    traces = [span.context.trace_id for span in named(spans, "tasks.spanned")]
    assert traces[0] == publisher
    assert publisher not in traces[1:]
    (delivery,) = named(spans, "notice.delivery")
    assert (delivery.attributes or {})["accepted"] is True


class Stuck(SpanExporter):
    """Takes spans and never returns until it is released."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Wait."""
        del spans
        self.begun.set()
        self.released.wait()
        return SpanExportResult.FAILURE


@on_sqlite
def test_a_stuck_collector_delays_no_refresh_and_no_end(
    new_world: NewWorld, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refreshes go on while nothing is taken and the queue is full, and the process ends after its short wait."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    stuck = Stuck()
    end = begin(stuck)
    try:
        world = new_world()
        grants = world.creators(12)
        assert world.services.refresher.refresh(grants[0].grant_id).kind == "refreshed"
        assert stuck.begun.wait(10)
        batch = world.services.refresher.refresh_all([grant.grant_id for grant in grants[1:]])
        assert len(batch.refreshed) == 11
        assert not stuck.released.is_set()
        began = time.monotonic()
        end()
        assert time.monotonic() - began < FLUSH_SECONDS + 3
    finally:
        stuck.released.set()


@on_sqlite
def test_a_collector_that_is_away_is_reported_once(
    new_world: NewWorld, begin: Begin, free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every loss is counted, one line is logged, and it shows neither the address nor what is said to it."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=CANARYheader")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    before = count("traces.unsent")
    exporter = OTLPSpanExporter(endpoint=f"http://user:CANARYword@127.0.0.1:{free_port}/v1/traces", timeout=0.3)
    end = begin(exporter)
    world = new_world()
    deadline = time.monotonic() + 20
    while count("traces.unsent") < before + 2 and time.monotonic() < deadline:
        assert world.services.refresher.refresh(world.creator().grant_id).kind == "refreshed"
    end()

    assert count("traces.unsent") >= before + 2
    log = (tmp_path / "log").read_text()
    assert log.count("traces.unsent") == 1
    assert "CANARY" not in log
    assert str(free_port) not in log


@on_sqlite
def test_a_real_collector_gets_spans_and_no_secret(new_world: NewWorld, begin: Begin) -> None:
    """The bytes that go over the wire hold the spans, and none of the tokens."""
    door = socket.create_server(("127.0.0.1", 0))
    got = list[bytes]()

    def serve() -> None:
        line, _ = door.accept()
        with line:
            while b"\r\n\r\n" not in (head := line.recv(65536, socket.MSG_PEEK)):
                pass
            start = head.index(b"\r\n\r\n") + 4
            length = next(int(each.split(b":")[1]) for each in head.lower().split(b"\r\n") if b"content-length" in each)
            got.append(line.recv(start + length, socket.MSG_WAITALL))
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=serve)
    thread.start()
    with closing(door):
        end = begin(OTLPSpanExporter(endpoint=f"http://127.0.0.1:{door.getsockname()[1]}/v1/traces"))
        world = new_world()
        world.services.refresher.refresh(world.creator().grant_id)
        end()
        thread.join(10)

    (sent,) = got
    assert b"refresh.group" in sent
    assert b"evertoken" in sent
    assert b"CANARY" not in sent


@pytest.mark.parametrize(
    ("environ", "host", "problem"),
    [
        ({}, None, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:CANARY@collector:4318"}, "collector", None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://one:4318/v1?key=CANARY"}, "one", None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "localhost", None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}, None, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}, None, None),
        ({"OTEL_TRACES_EXPORTER": "jaegerCANARY"}, None, "otlp or none"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None, "http/protobuf"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "CANARY"}, None, "OTEL_TRACES_SAMPLER can be"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER_ARG": "5%"}, None, "a number from 0 to 1"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "traceidratio"}, "localhost", None),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/CANARY"}, None, "cannot be read"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "CANARY:4318"}, None, "no address"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[CANARY"}, None, "no address"),
    ],
)
def test_the_usual_variables_switch_traces_on(environ: dict[str, str], host: str | None, problem: str | None) -> None:
    """Each is read as the specification says; what cannot be used is named, and no value is shown but the host."""
    place, _ = remote_places(environ)

    assert place.host == host
    assert (problem or "") in (place.problem or "")
    assert (place.problem is None) == (problem is None)
    assert "CANARY" not in repr(place)


SCRIPT = """
import sys
if "--without" in sys.argv:
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("opentelemetry", "sentry_sdk"):
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Missing())
    import importlib.metadata as metadata
    found = metadata.distribution
    def distribution(name):
        if name.startswith(("opentelemetry", "sentry")):
            raise metadata.PackageNotFoundError(name)
        return found(name)
    metadata.distribution = distribution
import worker.celery
from worker.telemetry import SPANS, begin_remote, configure_logging, end_remote
configure_logging(log_format="json", level="INFO")
begin_remote({"process": "test"}, namespace="here")
LOADED = {"opentelemetry.context", "opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "sentry_sdk"}
print(*sorted(LOADED & set(sys.modules)))
print(SPANS.call is None)
end_remote()
"""


def run(*words: str, **environ: str) -> tuple[str, str]:
    """Run the script in a process of its own and return what it wrote."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, *words],
        cwd=PROJECT, env={"PATH": os.environ["PATH"], "EVERTOKEN_REDIS_URL": "redis://127.0.0.1:1/0", **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stdout, ended.stderr


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    """A process without the variables loads neither library, and says nothing."""
    assert run() == ("\nTrue\n", "")


@pytest.mark.slow_suite
def test_without_the_extras_a_sentence_says_what_to_install() -> None:
    """The process goes on: tokens matter more than traces."""
    dsn, endpoint = "http://CANARYkey@127.0.0.1:9/1", "http://127.0.0.1:9"
    out, log = run("--without", SENTRY_DSN=dsn, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)

    assert out == "\nTrue\n"
    assert "install `evertoken[otel]`" in log
    assert "install `evertoken[sentry]`" in log
    assert "CANARY" not in log


@pytest.mark.slow_suite
def test_with_the_extras_both_begin() -> None:
    """Two lines say where to, by the host alone; the process ends although nobody listens there."""
    out, log = run(
        SENTRY_DSN="http://CANARYkey@127.0.0.1:9/1",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_HEADERS="key=CANARY",
    )

    assert out.splitlines()[1] == "False"
    assert ("traces.started" in log, "errors.started" in log) == (True, True)
    assert "CANARY" not in log


@pytest.mark.slow_suite
def test_a_variable_that_cannot_be_used_is_a_warning() -> None:
    """A number that is none ends no process, and no value of it is shown."""
    _, log = run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="CANARY")

    assert "traces.unusable" in log
    assert "CANARY" not in log
