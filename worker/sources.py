"""Sources of settings: variables of the process and of `.env`, except those that Kubernetes sets under our prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream

from worker.errors import ConfigurationError
from worker.pasted import decoded

PREFIX: Final = "EVERTOKEN_"
SERVICE_LINK: Final = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$"
)
LINKED_PORT: Final = re.compile(r"(tcp|udp|sctp)://")


def in_dotenv(path: Path | None) -> Mapping[str, str | None]:
    """Read a file of `NAME=value` lines.

    Raises:
        ConfigurationError: it cannot be read, or a line with one of our names cannot be parsed.
    """
    if path is None or not path.exists() or path.is_dir():  # a folder .env is often a virtual environment
        return {}
    found: dict[str, str | None] = {}
    for line in parse_stream(StringIO(decoded(path, str(path)))):
        if line.error and PREFIX in line.original.string:
            raise ConfigurationError(f"{path}, line {line.original.line}: is not NAME=value; look at its quotes")
        if line.key is not None:
            found[line.key] = line.value
    return found


def ours(environ: Mapping[str, str | None], problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the names and values that are meant for us; Kubernetes's service links are skipped."""
    for name, value in environ.items():
        seen = "".join(each for each in name if each.isascii() and each.isprintable()).strip()
        if not seen.startswith(PREFIX) or not value or not value.strip() or is_service_link(name, value):
            continue
        if seen == name:
            yield name, value
        else:
            problems.append(f"the name {name!a} holds a character that cannot be seen; type it again")


def is_service_link(name: str, value: str) -> bool:
    """Return True if a variable is one of those that Kubernetes sets in every container for each service.

    A service `evertoken` or `evertoken-metrics` makes EVERTOKEN_SERVICE_HOST, EVERTOKEN_PORT=tcp://..., and so on.

    Args:
        name: name of the variable.
        value: its value.
    """
    return SERVICE_LINK.search(name) is not None or (name.endswith("_PORT") and LINKED_PORT.match(value) is not None)
