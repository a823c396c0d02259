"""Flower's configuration: it does not start without a password, shows much and changes nothing."""  # noqa: INP001 - Flower runs this file by its path

from __future__ import annotations

import os
import re
from logging import INFO, getLogger
from pathlib import Path

from worker.errors import ConfigurationError
from worker.pasted import cleaned, decoded


def _credentials() -> list[str]:
    """Return each `user:password` of FLOWER_BASIC_AUTH, or of the file that FLOWER_BASIC_AUTH_FILE names.

    Raises:
        SystemExit: there is none, or one is not of that form; the text shows no password.
    """
    text = os.environ.get("FLOWER_BASIC_AUTH", "")
    path = os.environ.get("FLOWER_BASIC_AUTH_FILE", "")
    place = "FLOWER_BASIC_AUTH"
    if not text and path:
        place = "FLOWER_BASIC_AUTH_FILE"
    try:
        text = text or (decoded(Path(cleaned(path, place)), place) if path else "")
        found = [kept for part in re.split(r"[\r\n,]+", text) if (kept := cleaned(part, place))]
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None
    if not found:
        raise SystemExit("Flower needs a password: set FLOWER_BASIC_AUTH=user:password, or FLOWER_BASIC_AUTH_FILE")
    if not all(user and password for user, _, password in (part.partition(":") for part in found)):
        raise SystemExit("FLOWER_BASIC_AUTH must be user:password, or several of them with commas between")
    return found


if os.environ.get("FLOWER_UNAUTHENTICATED_API"):
    raise SystemExit("FLOWER_UNAUTHENTICATED_API opens Flower's API to everyone; unset it")

# At DEBUG this logger prints Flower's settings, the key of its cookies and a secret of OAuth among them.
getLogger("flower.command").setLevel(INFO)

# Flower reads the names below as its options; they go before FLOWER_ variables of the environment.
basic_auth = _credentials()
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
debug = False  # a page of an error shows no trace and no configuration
read_only = True  # tasks are called and workers stopped from the command line, by people who may
purge_offline_workers = 600  # seconds; containers come back under new names
max_tasks = 10_000  # in memory
natural_time = True
