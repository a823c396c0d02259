"""An operator's mistakes on Celery's own command line: what is wrong, where, and what to do, in one sentence."""

from __future__ import annotations

import errno
import sys
from types import TracebackType
from typing import Final

from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from worker import celeryconfig
from worker.errors import EvertokenError
from worker.hardening import log_uncaught
from worker.vault.redaction import redact

OTHER_POOLS: Final = frozenset({"gevent", "eventlet", "greenlet"})
"""What Celery imports for the pools that are not offered; greenlet stands under both."""
POOL_REFUSED: Final = "the worker pool {} is not offered; use `-P threads`"


def explain_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Answer an operator's mistake on Celery's command line in a sentence; the arguments are `sys.excepthook`'s."""
    mistake = mistake_of(error)
    if mistake is None:
        log_uncaught(kind, error, trace)
    else:
        print(f"error: {mistake}", file=sys.stderr)  # noqa: T201 - for the person who typed the command


def mistake_of(error: BaseException) -> str | None:
    """Return what is wrong and what to do about it, for an error that an operator can mend; otherwise None."""
    text = redact(str(error).strip().partition("\n")[0])
    if isinstance(error, OperationalError) or type(error).__module__.startswith("redis."):
        where = maybe_sanitize_url(celeryconfig.broker_url)
        return f"Redis at {where} does not do what is asked: {text}; look at EVERTOKEN_REDIS_URL"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "another process has this port; stop it, or name another port with --port"
    if isinstance(error, NotImplementedError) and "result backend" in text:
        return "results of tasks are not kept; `celery -A worker grants explain CREATOR` shows what became of a grant"
    if isinstance(error, ModuleNotFoundError) and error.name in OTHER_POOLS:
        return POOL_REFUSED.format(error.name)
    if isinstance(error, EvertokenError | ImproperlyConfigured | OSError):
        return text
    return None
