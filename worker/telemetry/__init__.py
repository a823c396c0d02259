"""Log lines and metrics of the daemon: one fact for each outcome."""

from worker.telemetry.facts import Fact, FactValue, Hook
from worker.telemetry.last_words import install_last_words, log_uncaught
from worker.telemetry.logs import configure_logging, log_fact, one_write
from worker.telemetry.metrics import count_answer, count_fact, count_hand_out, report, serve_metrics

__all__ = [
    "Fact",
    "FactValue",
    "Hook",
    "configure_logging",
    "count_answer",
    "count_fact",
    "count_hand_out",
    "install_last_words",
    "log_fact",
    "log_uncaught",
    "one_write",
    "report",
    "serve_metrics",
]
