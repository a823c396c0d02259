"""A real PgBouncer in transaction mode before the PostgreSQL of the tests.

It is the one on the PATH, or Debian's package unpacked under `build/`, which takes apt and the network, but not root.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Final

import psycopg

from tests.conftest import (
    DASHBOARD_ROLE,
    READER_ROLE,
    SERVER_USER,
    WORKER_ROLE,
    ServerProcess,
    find_free_port,
    start_server,
)
from tests.support.debian import unpacked

PACKAGE: Final = "pgbouncer"
LIBRARIES: Final = re.compile(r"\b(libevent-[\w.+-]+|libc-ares\w+|libcares\w+)")
"""Packages that PgBouncer needs and a machine without it may lack."""
SETTINGS: Final = {
    "listen_addr": "127.0.0.1",
    "unix_socket_dir": "",
    "auth_type": "trust",
    "auth_file": "users.txt",
    "pool_mode": "transaction",
    "server_round_robin": "1",
    "query_wait_timeout": "20",
    "max_client_conn": "500",
}


def start_pooler(server: ServerProcess, **settings: str) -> ServerProcess:
    """Start a pooler before a PostgreSQL, whose databases it offers by their names; it is a context that ends it.

    Args:
        server: where it connects to.
        settings: PgBouncer's own, such as `default_pool_size`.
    """
    folder, port = Path(tempfile.mkdtemp(prefix="evertoken-pgbouncer-")), find_free_port()
    folder.chmod(0o755)
    program, libraries = _program(folder)
    users = ("postgres", WORKER_ROLE, READER_ROLE, DASHBOARD_ROLE)
    (folder / "users.txt").write_text("".join(f'"{user}" ""\n' for user in users))
    lines = [f"{name} = {value}" for name, value in (SETTINGS | settings | {"listen_port": str(port)}).items()]
    databases = ["[databases]", f"* = host=127.0.0.1 port={server.port}"]
    (folder / "pgbouncer.ini").write_text("\n".join([*databases, "[pgbouncer]", *lines]) + "\n")
    pooler = start_server(
        [program, "pgbouncer.ini"],
        folder,
        url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
        port=port,
        stop="INT",
        user=SERVER_USER if os.geteuid() == 0 else None,
        environ=os.environ | {"LD_LIBRARY_PATH": libraries},
    )
    pooler.wait_ready(lambda: psycopg.connect(pooler.url).close(), psycopg.OperationalError)
    return pooler


def _program(folder: Path) -> tuple[str, str]:
    """Return the program and the path of its libraries; what was unpacked is copied to a folder that all may read."""
    found = shutil.which(PACKAGE, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is not None:
        return found, ""
    copied = shutil.copytree(unpacked(PACKAGE, LIBRARIES) / "usr", folder / "usr", symlinks=True)
    libraries = sorted({str(file.parent) for file in copied.rglob("lib*.so*")})
    return str(copied / "sbin" / PACKAGE), ":".join(libraries)
