"""A master, its replica and three Sentinels on loopback, each with a password, that may be killed."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

import redis

from tests.conftest import ServerProcess, find_free_port, start_server
from tests.support.servers import redis_program

SERVICE: Final = "evertoken-test"
PASSWORD: Final = "servers-CANARY"
SENTINEL_PASSWORD: Final = "sentinels-CANARY"
DOWN_SECONDS: Final = 1.0
"""How long Sentinels wait before they call a master down; 30 s by default."""
SENTINELS: Final = 3


class Watched:
    """The servers; leaving it ends them.

    Attributes:
        servers: the two servers; the first one is the master at the start.
        sentinels: the Sentinels.
    """

    def __init__(self) -> None:
        """Start everything; `settled` says when the Sentinels know each other and the replica."""
        self._stack = ExitStack()
        first = self._stack.enter_context(start_server_with_password())
        second = start_server_with_password("--replicaof", "127.0.0.1", str(first.port))
        self.servers = [first, self._stack.enter_context(second)]
        self.sentinels = [
            self._stack.enter_context(start_sentinel("127.0.0.1", first.port, quorum=2)) for _ in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """The address of the Sentinels, as the setting has it."""
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"sentinel://:{PASSWORD}@{hosts}/0?service={SERVICE}&sentinel_password={SENTINEL_PASSWORD}"

    def client(self, server: ServerProcess) -> redis.Redis:
        """Return a client of one server."""
        return redis.Redis(port=server.port, password=PASSWORD, decode_responses=True)

    def settled(self) -> bool:
        """Return True if all Sentinels know a master that is up, its replica and each other."""
        for each in self.sentinels:
            with redis.Redis(port=each.port, password=SENTINEL_PASSWORD) as client:
                state = client.sentinel_masters()[SERVICE]
            if state["is_sdown"] or state["num-slaves"] != 1 or state["num-other-sentinels"] != SENTINELS - 1:
                return False
        with self.client(self.servers[1]) as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def start_server_with_password(*options: str) -> ServerProcess:
    """Start a server; options go to it."""
    secret = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    return _started(["--save", "", "--maxmemory-policy", "noeviction", *secret, *options], PASSWORD)


def start_sentinel(host: str, port: int, *, quorum: int) -> ServerProcess:
    """Start a Sentinel that watches a master, and names it by the name or address that it is given here."""
    folder = Path(tempfile.mkdtemp(prefix="evertoken-sentinel-"))
    (folder / "sentinel.conf").write_text(
        f"requirepass {SENTINEL_PASSWORD}\nsentinel sentinel-pass {SENTINEL_PASSWORD}\n"
        "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
        f"sentinel monitor {SERVICE} {host} {port} {quorum}\n"
        f"sentinel auth-pass {SERVICE} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {SERVICE} {DOWN_SECONDS * 1000:.0f}\n"
        f"sentinel failover-timeout {SERVICE} 5000\n",
        encoding="utf-8",
    )
    return _started(["--sentinel"], SENTINEL_PASSWORD, folder, "sentinel.conf")


def _started(options: list[str], password: str, folder: Path | None = None, *files: str) -> ServerProcess:
    folder, port = folder or Path(tempfile.mkdtemp(prefix="evertoken-redis-")), find_free_port()
    server = start_server(
        [redis_program(), *files, "--bind", "127.0.0.1", "--port", str(port), *options],
        folder, url=f"redis://:{password}@127.0.0.1:{port}/0", port=port, stop="KILL", user=None,
    )  # fmt: skip
    with redis.Redis(port=port, password=password) as client:
        server.wait_ready(client.ping, redis.ConnectionError)
    return server
