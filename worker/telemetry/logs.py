"""Log lines: structlog over standard logging, one line per fact, with redaction as the second line of defence."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from worker.telemetry.facts import Fact
from worker.vault.redaction import redact, redact_event

LINE_LIMIT: Final = 16_384
"""Letters of a line; each text in it is already limited on its own."""
KEPT: Final = ("event", "installation", "level", "logger", "timestamp")
LOGGER: Final = "evertoken"
LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_further: Final[list[logging.Handler]] = []
"""What takes records beside the log itself; it stays when logging is set up once more."""
_encode: Final = json.JSONEncoder(default=str).encode


def configure_logging(
    *, log_format: Literal["json", "console"], level: str, file: str | None = None, namespace: str | None = None
) -> None:
    """Send every logger of this process, ours and the libraries', through one redacting formatter.

    Args:
        log_format: `json` for one object a line, `console` for text.
        level: lowest level that is written, such as `INFO`.
        file: a file to append to; standard error by default.
        namespace: of this installation, which each line then has as `installation`, as metrics do.

    Raises:
        OSError: the file cannot be opened.
    """
    own = {"installation": namespace} if namespace else {}
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, event: {**event, **own},
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    bounded = _Bounded(_renderer(log_format, colors=file is None and sys.stderr.isatty()))
    lines = sys.stderr if file is None else Path(file).open("a", encoding="utf-8")  # noqa: SIM115 - open for good
    handler = _Lines(lines)
    handler.setFormatter(
        _Formatter(
            bounded,
            own,
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, bounded],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler, *_further]
    root.setLevel(level)
    _hush_libraries(level)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _renderer(log_format: Literal["json", "console"], *, colors: bool) -> structlog.typing.Processor:
    if log_format == "json":
        return structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event))
    return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)


def _hush_libraries(level: str) -> None:
    # These log connections and headers at DEBUG, and every task at INFO; our facts say more in fewer lines.
    for name in ("urllib3", "requests", "amqp", "kombu", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(level)))
    # At INFO it echoes every statement, at DEBUG every row, sealed bytes included.
    # And Alembic logs at INFO which of its plugins it has loaded.
    for name in ("sqlalchemy", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    if level != "DEBUG":
        # Celery's logger of requests calls each expired message a revoked task; here only consents are revoked.
        for name in ("celery.worker.strategy", "celery.worker.request", "celery.app.trace", "celery.beat"):
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _Bounded:
    """Renders an event; if the line would be too long, without its fields."""

    def __init__(self, renderer: structlog.typing.Processor) -> None:
        self._render = renderer

    def __call__(self, logger: Any, name: str, event: MutableMapping[str, Any]) -> Any:
        line = self._render(logger, name, dict(event))
        if len(line) <= LINE_LIMIT:
            return line
        kept = {key: event[key] for key in KEPT if key in event}
        return self._render(logger, name, kept | {"left_out": f"{len(event) - len(kept)} fields, {len(line)} letters"})


class _FactRecord(logging.LogRecord):
    """The record of a fact: it has no arguments, and no time is spent on looking for its caller."""

    def __init__(self, fact: Fact) -> None:
        super().__init__(LOGGER, LEVELS[fact.level], "", 0, fact.name, None, None)
        self.fact = fact


class _TextRecord(logging.LogRecord):
    """Lines that are formatted already."""

    def __init__(self, text: str) -> None:
        super().__init__(LOGGER, logging.INFO, "", 0, text, None, None)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats every record in the same way; facts, of which a refresh has two, on a shorter path."""

    def __init__(self, render: _Bounded, own: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self._render_fact = render
        self._own = own

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        if isinstance(record, _TextRecord):
            return str(record.msg)
        if not isinstance(record, _FactRecord):
            return super().format(record)
        event = {**redact_event(record.fact.fields), **self._own}
        event["event"], event["level"], event["logger"] = redact(record.fact.name), record.fact.level, LOGGER
        event["timestamp"] = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None).isoformat() + "Z"
        return str(self._render_fact(None, "", event))


class _Lines(logging.StreamHandler[Any]):
    """Writes each line at once, or the lines of a thread's block together."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._own = threading.local()

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a line, or keep it until the thread's block ends."""
        kept: list[str] | None = getattr(self._own, "kept", None)
        if kept is None:
            return bool(super().handle(record))
        try:
            kept.append(self.format(record))
        except Exception:  # noqa: BLE001 - as in `emit`: work does not fail because a line cannot be formatted
            self.handleError(record)
        return True

    @contextmanager
    def together(self) -> Iterator[None]:
        """Keep this thread's lines until the block ends; in a nested block, until the outer one ends."""
        if getattr(self._own, "kept", None) is not None:
            yield
            return
        self._own.kept = kept = list[str]()
        try:
            yield
        finally:
            self._own.kept = None
            if kept:
                super().handle(_TextRecord(self.terminator.join(kept)))


def add_handler(handler: logging.Handler) -> None:
    """Let a handler have every record beside the log."""
    _further.append(handler)
    logging.getLogger().addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Let a handler have no further records."""
    _further.remove(handler)
    logging.getLogger().removeHandler(handler)


def fact_of(record: logging.LogRecord) -> Fact | None:
    """Return the fact of a record, or None if it is another line."""
    return record.fact if isinstance(record, _FactRecord) else None


def log_fact(fact: Fact) -> None:
    """Write a fact as one log line."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(handler, _Lines) for handler in logging.getLogger().handlers):
        getattr(structlog.stdlib.get_logger(LOGGER), fact.level)(fact.name, **fact.fields)
    elif logger.isEnabledFor(LEVELS[fact.level]):
        logger.handle(_FactRecord(fact))


@contextmanager
def one_write() -> Iterator[None]:
    """Write what this thread logs in the block with one write at its end: writing a line costs more than making it."""
    with ExitStack() as stack:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, _Lines):
                stack.enter_context(handler.together())
        yield


def _redact(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    del logger, method
    return redact_event(event)
