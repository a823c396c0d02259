"""An operator's mistakes on Celery's own command line: what is wrong, where, and what to do, in one sentence."""

from __future__ import annotations

import errno
import importlib.util
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from celery.bin.celery import celery
from celery.exceptions import ImproperlyConfigured
from celery.platforms import LockFailed
from kombu.exceptions import OperationalError
from kombu.utils.url import maybe_sanitize_url

from worker import celeryconfig
from worker.broker import broker_of
from worker.errors import EvertokenError
from worker.telemetry import log_uncaught
from worker.vault.redaction import redact

OTHER_POOLS: Final = {"gevent": "gevent", "eventlet": "eventlet", "greenlet": "eventlet"}
"""The pools that are not offered, by what Celery imports for them."""
POOL_REFUSED: Final = "the worker pool {} is not offered; use `-P threads`"
UNKNOWN_NAME: Final = re.compile(r"(?:User|Group) does not exist|No such transport")
"""What Celery and kombu say about an unknown name on the command line, in a KeyError."""
NOT_OFFERED: Final = {
    "--config": "settings come from EVERTOKEN_ variables (docs/settings.md)",
    "--loader": "the daemon has one of its own",
    "--result-backend": "results of tasks are not kept",
}
NO_PLACE_TO_LISTEN: Final = frozenset({errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM})
HIGHEST_PORT: Final = 65535


def explain_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an operator's mistake on Celery's command line in a sentence; the arguments are `sys.excepthook`'s."""
    mistake = mistake_of(error)
    if mistake is None:
        log_uncaught(kind, error, trace)
    else:
        print(f"error: {mistake}", file=sys.stderr)  # noqa: T201 - for the person who typed the command


def mistake_of(error: BaseException) -> str | None:
    """Return what is wrong and what to do about it, for an error that an operator can correct; otherwise None."""
    text = redact(str(error).strip().partition("\n")[0])
    if isinstance(error, OperationalError) or type(error).__module__.startswith(("redis.", "amqp.")):
        where, broker = maybe_sanitize_url(celeryconfig.broker_url), broker_of(celeryconfig.settings)
        return f"{broker.name} at {where} does not work: {text}; look at {broker.setting}"
    if isinstance(error, OSError):
        return _of_system(error, text)
    if isinstance(error, NotImplementedError) and "result backend" in text:
        return "results of tasks are not kept; `celery -A worker grants explain CREATOR` shows what became of a grant"
    if isinstance(error, ModuleNotFoundError):
        return _of_module(error.name or "")
    if isinstance(error, LockFailed):
        return f"{text}; look at --pidfile"
    is_unknown_name = isinstance(error, KeyError) and UNKNOWN_NAME.match(text.strip("'"))
    is_plain = isinstance(error, EvertokenError | ImproperlyConfigured) or type(error).__module__ == "tornado.options"
    return text.strip("'") if is_unknown_name or is_plain else None


def _of_system(error: OSError, text: str) -> str:
    """Return what is wrong with a file, or with Flower's address and port."""
    if error.errno == errno.EADDRINUSE:
        return "another process has this port; stop it, or name another port with --port"
    if isinstance(error, socket.gaierror) or (error.filename is None and error.errno in NO_PLACE_TO_LISTEN):
        return f"nothing can listen there ({text}); look at --address and --port, or FLOWER_ADDRESS and FLOWER_PORT"
    if error.errno == errno.ENOENT and error.filename is not None:
        return f"there is no file or folder {redact(str(error.filename))}, which the command line names or needs"
    return text


def _of_module(name: str) -> str | None:
    """Return what is wrong if the command line names a missing module; None if it is merely not installed."""
    if name in OTHER_POOLS:
        return POOL_REFUSED.format(OTHER_POOLS[name])
    typed = {re.split(r"[.:]", word)[0] for argument in sys.argv[1:] for word in re.split(r"[=,]", argument)}
    return f"there is no module {redact(name)}, which the command line names" if name in typed else None


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the command on Celery's command line, and what follows it; empty if there is none."""
    takes_value = {word for option in celery.params if not getattr(option, "is_flag", False) for word in option.opts}
    words = list(arguments)
    while words and words[0].startswith("-"):
        del words[: 2 if words[0] in takes_value else 1]
    return (words[0], words[1:]) if words else ("", [])


def mistake_of_options(arguments: Sequence[str]) -> str | None:
    """Return what is wrong with options before the command: some of Celery's do nothing here, or end in a traceback."""
    _, after = split_command(arguments)
    before = arguments[: len(arguments) - len(after)]
    typed = (word.partition("=")[0] for word in before)
    return next((f"{word} is not offered: {NOT_OFFERED[word]}" for word in typed if word in NOT_OFFERED), None)


def mistake_of_flower(words: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return what is wrong with Flower's options; Flower itself would end with a traceback or ignore them.

    Args:
        words: what follows the command.
        environ: the environment.
    """
    if importlib.util.find_spec("flower") is None:
        return "Flower is not installed: install Evertoken with its extra `flower`"
    from flower.options import options  # noqa: PLC0415 - only hosts that run Flower have it

    by_variable = {f"FLOWER_{name.upper()}": name for name in options}
    given = [(place, by_variable[place], environ[place]) for place in sorted(environ) if place in by_variable]
    for word in words:
        place, equals, value = word.partition("=")
        name = place.removeprefix("--").replace("-", "_")
        if not place.startswith("--") or place in {"--", "--help"}:
            continue
        if name not in by_variable.values():
            return f"Flower has no option {redact(place)}; `evertoken flower --help` lists its options"
        if equals:
            given.append((place, name, value))
        elif not isinstance(options[name], bool):
            return f"the option {place} of Flower needs a value, written {place}=VALUE"
    return next((said for option in given if (said := _of_option(options, *option))), None)


def _of_option(options: Any, place: str, name: str, value: str) -> str | None:
    """Set one of Flower's options, and return what is wrong with the value, if anything."""
    from flower.utils import strtobool  # noqa: PLC0415 - as above

    try:
        if isinstance(options[name], bool):
            strtobool(value)
        options.parse_command_line(["flower", f"--{name}={value}"], final=False)
    except (ValueError, TypeError):
        return f"Flower does not take the value of {place}: {redact(value)}"
    if name == "port" and not 0 <= options.port <= HIGHEST_PORT:
        return f"{place} must be a port, at most {HIGHEST_PORT}: {redact(value)}"
    return None
