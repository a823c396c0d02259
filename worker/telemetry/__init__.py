"""Log lines and metrics of the daemon: one fact for each outcome."""

from worker.telemetry.facts import Fact, FactValue, Hook
from worker.telemetry.last_words import install_last_words, log_uncaught
from worker.telemetry.logs import configure_logging, log_fact, one_write
from worker.telemetry.metrics import (
    CLAIM_TIME,
    PERMIT_TIME,
    SEND_TIME,
    STORE_TIME,
    begin_series,
    count_answer,
    count_fact,
    count_pull,
    count_refused,
    count_token_read,
    observe_call,
    report,
    serve_metrics,
)
from worker.telemetry.remote import begin_remote, end_remote, remote_places, tried_places
from worker.telemetry.spans import SPANS, Span

__all__ = [
    "CLAIM_TIME",
    "PERMIT_TIME",
    "SEND_TIME",
    "SPANS",
    "STORE_TIME",
    "Fact",
    "FactValue",
    "Hook",
    "Span",
    "begin_remote",
    "begin_series",
    "configure_logging",
    "count_answer",
    "count_fact",
    "count_pull",
    "count_refused",
    "count_token_read",
    "end_remote",
    "install_last_words",
    "log_fact",
    "log_uncaught",
    "observe_call",
    "one_write",
    "remote_places",
    "report",
    "serve_metrics",
    "tried_places",
]
