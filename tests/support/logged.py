"""Logging as a worker has it, in the test's own process, for as long as a block takes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import structlog

from worker.telemetry import configure_logging


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Write every line to a file, and leave logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    opened = [set_up(path)]
    try:
        yield
    finally:
        opened += [each for each in root.handlers if type(each) is type(opened[0]) and each not in opened]
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
        for handler in opened:
            handler.stream.close()


def set_up(path: Path) -> logging.StreamHandler[TextIO]:
    """Set logging up, as Celery's signal does, and return what writes the lines."""
    configure_logging(log_format="json", level="INFO", file=str(path))
    return cast("logging.StreamHandler[TextIO]", logging.getLogger().handlers[0])
