"""Flower's configuration: it does not start without a password, shows much and changes nothing.

Flower runs this file by its path, which `worker.celery` gives it unless `--conf` or FLOWER_CONF names another. Nothing
imports it.
"""

from __future__ import annotations

import os
import re
from logging import INFO, getLogger
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError
from worker.pasted import cleaned, decoded

MOST_LETTERS: Final = 1024
"""A longer `user:password` would not fit into the headers that browsers and proxies send."""


def _given(name: str, separators: str) -> list[str]:
    """Return each part of a variable, or of the file that the variable with `_FILE` behind its name gives.

    Raises:
        SystemExit: it cannot be read or is damaged; the text shows nothing of it.
    """
    text, path = os.environ.get(name, ""), os.environ.get(f"{name}_FILE", "")
    place = name if text or not path else f"{name}_FILE"
    try:
        text = text or (decoded(Path(cleaned(path, place)), place) if path else "")
        return [kept for part in re.split(separators, text) if (kept := cleaned(part, place))]
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None


def _credentials() -> list[str]:
    """Return each `user:password` of FLOWER_BASIC_AUTH.

    Raises:
        SystemExit: there is none, or one is not of that form or could not be typed; the text shows no password.
    """
    found = _given("FLOWER_BASIC_AUTH", r"[\r\n,]+")
    if not found:
        raise SystemExit("Flower needs a password: set FLOWER_BASIC_AUTH=user:password, or FLOWER_BASIC_AUTH_FILE")
    if not all(user and password for user, _, password in (part.partition(":") for part in found)):
        raise SystemExit(
            "FLOWER_BASIC_AUTH must be user:password, or several of them with commas between: a password has no comma"
        )
    if not all(part.isascii() for part in found):  # Flower would answer each request with an error
        raise SystemExit("FLOWER_BASIC_AUTH can hold letters, digits and signs of ASCII alone: choose another password")
    if any(len(part) > MOST_LETTERS for part in found):
        raise SystemExit(f"FLOWER_BASIC_AUTH: user and password together can have {MOST_LETTERS} characters at most")
    return found


def _management() -> str | None:
    """Return the address of RabbitMQ's management API, from FLOWER_BROKER_API; None if there is none.

    Raises:
        SystemExit: it is no such address; the text shows nothing of it.
    """
    found = _given("FLOWER_BROKER_API", r"[\r\n]+")
    if found and not (len(found) == 1 and re.fullmatch(r"https?://[^\s/]+(/\S*)?/api/", found[0])):
        raise SystemExit("FLOWER_BROKER_API must be http://user:password@host:15672/api/, or https://")
    return found[0] if found else None


if os.environ.get("FLOWER_UNAUTHENTICATED_API"):
    raise SystemExit("FLOWER_UNAUTHENTICATED_API opens Flower's API to everyone; unset it")

# At DEBUG this logger prints Flower's settings, the key of its cookies and a secret of OAuth among them.
getLogger("flower.command").setLevel(INFO)

# Flower reads the names below as its options; they go before FLOWER_ variables of the environment.
basic_auth = _credentials()
broker_api = _management()  # lengths of RabbitMQ's queues; an option would show its password to all of this host
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
debug = False  # a page of an error shows no trace and no configuration
read_only = True  # tasks are called and workers stopped from the command line, by people who may
purge_offline_workers = 600  # seconds; containers come back under new names
max_tasks = 10_000  # in memory
natural_time = True
