"""Hardening: no core dump, no debug switch and no traceback shows the secrets in a process's memory."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import http.client
import logging
import resource
import signal
import sys
from collections.abc import Iterator, Mapping
from typing import Final

from worker.errors import ConfigurationError

PR_SET_DUMPABLE: Final = 4
"""An option of Linux's `prctl`: no debugger of the same user may attach, and no core dump goes into a pipe, which
limits do not prevent."""
REFUSED: Final = {
    "SSLKEYLOGFILE": "writes the keys of TLS connections into a file",
    "CELERY_RDBSIG": "opens a debugger on a port",
    "KOMBU_LOG_DEBUG": "logs every message",
    "KOMBU_LOG_CHANNEL": "logs every message",
    "KOMBU_LOG_CONNECTION": "logs every message",
    "PYTHONINSPECT": "opens an interpreter when the process ends",
    "PYTHONDEVMODE": "is Python's mode for development",
}
"""Environment variables that make libraries print or log secrets."""


def keep_memory_private() -> None:
    """Disable core dumps of this process and its children: their memory holds keys and tokens."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def dump_stacks_on_signal() -> None:
    """On SIGUSR1, print the stacks of all threads on standard error, without the values of variables.

    Celery's own handler prints the local variables of every frame, and some of ours hold tokens.
    """
    faulthandler.register(signal.SIGUSR1, file=sys.__stderr__ or sys.stderr, all_threads=True, chain=False)


def refuse_debug_switches(environ: Mapping[str, str]) -> None:
    """Refuse to work with real tokens if a debug switch would show them.

    Raises:
        ConfigurationError: its text names every switch that is on.
    """
    found = list(_switches(environ))
    if found:
        raise ConfigurationError(f"the tokens are real, so these debug switches must be off: {'; '.join(found)}")


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
