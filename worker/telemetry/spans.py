"""Spans: what a process was doing, for how long, and how it ended. Nothing is recorded until tracing begins.

Until then a span is a `nullcontext` of the standard library, so a refresh passes no code of ours that it does not need.
`worker.telemetry.otel` takes the places over if the variables of OpenTelemetry ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from worker.telemetry.facts import FactValue

Told = Callable[[], Mapping[str, FactValue]]
"""Reads what a trace says of an answer, such as its code."""


@dataclass
class Span:
    """A stretch of work.

    Attributes:
        name: what is done, such as `refresh.group`.
        fields: plain values under the names that log lines use; those that are known at the end are added until then.
        parent: the W3C `traceparent` of what asked for this work in another process; None for what runs here.
        keeps_calls: True if answers of TikTok are read for the trace only when the span ends, by when the journal has
            them; False for reads of account data, which are large and need no journal.
    """

    name: str
    fields: dict[str, FactValue] = field(default_factory=dict)
    parent: str | None = None
    keeps_calls: bool = True


@dataclass
class Spans:
    """What records spans in this process.

    Attributes:
        over: records a span for as long as a `with` block takes.
        call: records a call to TikTok that has ended: its path, its seconds, and what reads its answer. None if nothing
            is recorded.
        carried: returns the `traceparent` of the running span, for messages to other processes, or None.
    """

    over: Callable[[Span], AbstractContextManager[Span]] = nullcontext
    call: Callable[[str, float, Told], None] | None = None
    carried: Callable[[], str | None] | None = None

    def stop(self) -> None:
        """Record nothing from now on."""
        self.over, self.call, self.carried = nullcontext, None, None


SPANS: Final = Spans()
