"""Log lines: structlog over standard logging, one line per fact, with redaction as the second line of defence."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Final, Literal

import structlog

from worker.telemetry.facts import Fact
from worker.vault.redaction import redact_event

LINE_LIMIT: Final = 16_384
"""Letters of a line; each text in it has a limit of its own already."""
KEPT: Final = ("event", "level", "logger", "timestamp")


def configure_logging(*, log_format: Literal["json", "console"], level: str) -> None:
    """Send every logger of this process, ours and the libraries', through one redacting formatter to standard error.

    Args:
        log_format: `json` for one object a line, `console` for text.
        level: least level written, such as `INFO`.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _Bounded(renderer)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _hush_libraries(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _hush_libraries(level: str) -> None:
    # These speak of connections and headers at DEBUG, and of every task at INFO; our facts tell more in fewer lines.
    for name in ("urllib3", "requests", "amqp", "kombu", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(level)))
    # At INFO it echoes every statement, at DEBUG every row, sealed bytes included.
    logging.getLogger("sqlalchemy").setLevel(max(logging.WARNING, logging.getLevelName(level)))
    if level != "DEBUG":
        # The request's own would call each expired message a revoked task, which here is said of consents.
        for name in ("celery.worker.strategy", "celery.worker.request", "celery.app.trace", "celery.beat"):
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _Bounded:
    """Renders an event; one that would become a long line is told without its fields."""

    def __init__(self, renderer: structlog.typing.Processor) -> None:
        self._render = renderer

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> Any:
        line = self._render(logger, name, dict(event))
        if len(line) <= LINE_LIMIT:
            return line
        kept = {key: event[key] for key in KEPT if key in event}
        return self._render(logger, name, kept | {"left_out": f"{len(event) - len(kept)} fields, {len(line)} letters"})


def log_fact(fact: Fact) -> None:
    """Write a fact as one log line."""
    getattr(structlog.stdlib.get_logger("evertoken"), fact.level)(fact.name, **fact.fields)


def _redact(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    del logger, method
    return redact_event(event)
