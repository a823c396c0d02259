"""Silence: no core dump, no debug switch and no last words tell what a process holds in its memory."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import http.client
import logging
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Final

from worker.errors import ConfigurationError
from worker.vault.redaction import LINES_LIMIT, redact

PR_SET_DUMPABLE: Final = 4
"""Of Linux's `prctl`; it also keeps debuggers of the same user out, and pipes of core dumps, which ignore limits."""
REFUSED: Final = {
    "SSLKEYLOGFILE": "writes the keys of TLS connections into a file",
    "CELERY_RDBSIG": "opens a debugger on a port",
    "KOMBU_LOG_DEBUG": "logs every message",
    "KOMBU_LOG_CHANNEL": "logs every message",
    "KOMBU_LOG_CONNECTION": "logs every message",
    "PYTHONINSPECT": "opens an interpreter when the process ends",
    "PYTHONDEVMODE": "is Python's mode for development",
}
"""Variables of the environment that make other people's code tell what it should not."""


def keep_memory_private() -> None:
    """Let no core dump of this process or its children be written: their memory holds keys and tokens."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def dump_stacks_on_signal() -> None:
    """Answer SIGUSR1 with the stacks of all threads on standard error, without the values of variables.

    Celery's own answer prints the local variables of every frame, and those of ours hold tokens on their way.
    """
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__ or sys.stderr, all_threads=True, chain=False)


def refuse_debug_switches(environ: Mapping[str, str]) -> None:
    """Refuse to work with real tokens where a debug switch would show them.

    Raises:
        ConfigurationError: names every switch that is on.
    """
    found = list(_switches(environ))
    if found:
        raise ConfigurationError(f"this is no place to debug, since the tokens are real: {'; '.join(found)}")


def install_last_words() -> None:
    """Let an exception that nobody caught be told redacted, with stacks and without the values of variables.

    Where somebody has set hooks already, theirs stay.
    """
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = log_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _tell_uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _tell_unraisable


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log an exception that nobody caught; the arguments are those of `sys.excepthook`."""
    del kind, trace
    if not isinstance(error, KeyboardInterrupt):
        _tell("process.crashed", error)


def last_words(error: BaseException) -> str:
    """Return the traceback of an exception, redacted and bounded."""
    return redact("".join(traceback.format_exception(error)), LINES_LIMIT, keep_lines=True)


def _switches(environ: Mapping[str, str]) -> Iterator[str]:
    for name, does in REFUSED.items():
        if environ.get(name):
            yield f"{name} is set, which {does}"
    if sys.flags.dev_mode and not environ.get("PYTHONDEVMODE"):
        yield "Python runs with -X dev, its mode for development"
    if sys.flags.inspect and not environ.get("PYTHONINSPECT"):
        yield "Python runs with -i, which opens an interpreter when the process ends"
    if http.client.HTTPConnection.debuglevel:
        yield "http.client.HTTPConnection.debuglevel is set, which prints every request"
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.engine.Engine"):
        if logging.getLogger(name).level in {logging.DEBUG, logging.INFO}:
            yield f"the logger {name} is on, which echoes every statement"


def _tell_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        _tell("thread.crashed", args.exc_value)


def _tell_unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        _tell("error.ignored", args.exc_value)


def _tell(fact: str, error: BaseException) -> None:
    """Log where logging is set up, which redacts once more; else write on standard error."""
    if logging.getLogger().handlers:
        logging.getLogger("evertoken").critical(fact, exc_info=error)
    else:
        print(f"{fact}: {last_words(error)}", file=sys.stderr)  # noqa: T201 - the very last way out
