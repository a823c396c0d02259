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
    count_token_read,
    observe_call,
    report,
    serve_metrics,
)

__all__ = [
    "CLAIM_TIME",
    "PERMIT_TIME",
    "SEND_TIME",
    "STORE_TIME",
    "Fact",
    "FactValue",
    "Hook",
    "begin_series",
    "configure_logging",
    "count_answer",
    "count_fact",
    "count_pull",
    "count_token_read",
    "install_last_words",
    "log_fact",
    "log_uncaught",
    "observe_call",
    "one_write",
    "report",
    "serve_metrics",
]
