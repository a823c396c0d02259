"""What a process says of an exception that nobody caught: a line, redacted and without values, and a count."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType

from worker.telemetry.facts import Fact
from worker.telemetry.logs import LOGGER
from worker.telemetry.metrics import count_fact
from worker.vault.redaction import LINES_LIMIT, redact


def install_last_words() -> None:
    """Log every exception that nobody caught redacted, with stacks and without the values of variables.

    Hooks that somebody has set already stay.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = log_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _log_uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _log_unraisable


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an exception that nobody caught; the arguments are those of `sys.excepthook`."""
    del kind, trace
    if not isinstance(error, KeyboardInterrupt):
        _log_uncaught(Fact("process.crashed", level="error"), error)


def last_words(error: BaseException) -> str:
    """Return the traceback of an exception, redacted and bounded."""
    return redact("".join(traceback.format_exception(error)), LINES_LIMIT, keep_lines=True)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _log_uncaught(Fact("thread.crashed", level="error"), args.exc_value)


def _log_unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _log_uncaught(Fact("error.ignored", level="error"), args.exc_value)


def _log_uncaught(fact: Fact, error: BaseException) -> None:
    """Count and log an exception; logging redacts it once more, and if it is not set up, standard error has it."""
    count_fact(fact)
    if logging.getLogger().handlers:
        logging.getLogger(LOGGER).critical(fact.name, exc_info=error)
    else:
        print(f"{fact.name}: {last_words(error)}", file=sys.stderr)  # noqa: T201 - the very last way out
