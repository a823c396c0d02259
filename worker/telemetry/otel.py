"""Traces over OpenTelemetry: our spans, and the facts that happen in them, to a collector; imported only if asked for.

Only what the code names goes out. No library is instrumented, since such spans would hold addresses and headers, and so
tokens. The library sends from a thread of its own, out of a bounded queue: a collector that is away, slow or refuses
costs spans and delays nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from opentelemetry import context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.telemetry.facts import Fact, FactValue
from worker.telemetry.logs import add_handler, fact_of, remove_handler
from worker.telemetry.losses import Losses
from worker.telemetry.spans import SPANS, Span, Told
from worker.vault.redaction import redact_event

FLUSH_SECONDS: Final = 2.0
"""How long a process that ends waits for its last spans to be sent."""
RUNNING: Final = context.create_key("evertoken-span")
PROPAGATOR: Final = TraceContextTextMapPropagator()
HEADER: Final = "traceparent"
NOWHERE: Final = logging.NullHandler()


class Recorded:
    """Records one span while a block runs; whatever goes wrong here never reaches the block."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.span = span
        self.calls: list[Callable[[], None]] = []
        self._tracer = tracer

    def __enter__(self) -> Span:
        """Begin."""
        with suppress(Exception):
            parent = None if self.span.parent is None else PROPAGATOR.extract({HEADER: self.span.parent})
            self._recorded = self._tracer.start_span(self.span.name, parent)
            running = set_span_in_context(self._recorded, context.get_current())
            self._token = context.attach(context.set_value(RUNNING, self, running))
        return self.span

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """End with the span's fields; of an exception only its type is told, since its text may hold anything."""
        with suppress(Exception):
            context.detach(self._token)
            for end in self.calls:
                end()
            if kind is not None:
                self._recorded.set_status(Status(StatusCode.ERROR, kind.__name__))
            self._recorded.set_attributes(attributes(self.span.fields))
            self._recorded.end()


class Tracing:
    """Takes over the places of `SPANS`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        SPANS.over, SPANS.call, SPANS.carried = self.over, self.call, self.carried

    def over(self, span: Span) -> Recorded:
        """Return what records a span."""
        return Recorded(self._tracer, span)

    def call(self, path: str, seconds: float, told: Told) -> None:
        """Record a call to TikTok that has just ended; its answer is read now, or when the running span ends."""
        with suppress(Exception):
            ended = time.time_ns()
            span = self._tracer.start_span("tiktok.call", kind=SpanKind.CLIENT, start_time=ended - int(seconds * 1e9))

            def end() -> None:
                fields: dict[str, FactValue] = {"call": path, "seconds": seconds}
                with suppress(Exception):
                    fields |= told()
                if "error" in fields:
                    span.set_status(Status(StatusCode.ERROR, str(fields["error"])))
                span.set_attributes(attributes(fields))
                span.end(ended)

            running = context.get_value(RUNNING)
            if isinstance(running, Recorded) and running.span.keeps_calls:
                running.calls.append(end)
            else:
                end()

    def carried(self) -> str | None:
        """Return the `traceparent` of the running span."""
        carrier: dict[str, str] = {}
        with suppress(Exception):
            PROPAGATOR.inject(carrier)
        return carrier.get(HEADER)


class FactsInSpans(logging.Handler):
    """Adds each fact that is logged to the span in which it happens, with the fields of its log line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Add the fact of a record, if it is one."""
        fact = fact_of(record)
        with suppress(Exception):
            if fact is not None and (span := get_current_span()).is_recording():
                span.add_event(fact.name, attributes(fact.fields))
                if fact.level == "error":
                    span.set_status(Status(StatusCode.ERROR, fact.name))


class Reporting(SpanExporter):
    """Exports through another exporter, and reports when spans do not arrive."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._losses = Losses(lost=Fact("traces.unsent", level="warning"), over=Fact("traces.sent", level="warning"))

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export; called by the library's thread."""
        result, reason = SpanExportResult.FAILURE, "the collector is away, slow or refuses"
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the library's text may hold the address with its password
            reason = type(error).__name__
        if result is SpanExportResult.SUCCESS:
            self._losses.end()
        else:
            self._losses.note(reason, len(spans))
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)


def attributes(fields: Mapping[str, FactValue]) -> dict[str, Any]:
    """Return fields as OpenTelemetry takes them: redacted as log lines are, and without those that are None."""
    return {name: value for name, value in redact_event(fields).items() if value is not None}


def begin_traces(exporter: SpanExporter | None = None, *, about: Mapping[str, str]) -> Callable[..., None]:
    """Record spans from now on, and return what ends that; the library reads its own variables.

    What is returned takes `send`: False if what waits is not to be sent, since it belongs to the process that forked
    this one.

    Args:
        exporter: where spans go; the collector over OTLP by default.
        about: attributes of this process; the operator's take precedence.

    Raises:
        Exception: a variable of OpenTelemetry cannot be used.
    """
    library = logging.getLogger("opentelemetry")  # it logs addresses and values, so only `Complaints` hears it
    library.setLevel(logging.WARNING)
    library.propagate = False
    library.addHandler(NOWHERE)
    if exporter is None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - tests need no network
            OTLPSpanExporter,
        )

        exporter = OTLPSpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "evertoken", **about}).merge(OTELResourceDetector().detect()),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(Reporting(exporter)))
    Tracing(provider.get_tracer("evertoken"))
    handler = FactsInSpans()
    add_handler(handler)

    def end(*, send: bool = True) -> None:
        SPANS.stop()
        remove_handler(handler)
        if not send:
            return
        # The library would wait for half a minute.
        ending = threading.Thread(target=provider.shutdown, name="traces-end", daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)

    return end
