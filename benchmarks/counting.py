"""What one refresh asks of the servers: statements, round trips, commands and bytes, counted and not timed.

Between a worker and PostgreSQL stands a relay that reads the kinds of its messages: `Query` and `Execute` are
statements, with BEGIN and COMMIT among them; `Query` and `Sync` wait for an answer, so each is a round trip. Redis and
PostgreSQL tell the rest from their own counters, the kernel what the worker gave to the disk.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from benchmarks import machine
from benchmarks.contenders import Worker
from worker.sandbox.children import Child

STATEMENTS: Final = frozenset(b"QE")
TRIPS: Final = frozenset(b"QS")
REQUEST_CODES: Final = {80877103, 80877104}
"""A client asks for TLS or GSS before it says who it is."""


class Relay:
    """Passes PostgreSQL's protocol on and counts what clients send."""

    def __init__(self, url: str) -> None:
        """Listen on a free port for the server of this address."""
        parts = urlsplit(url)
        self.counts: Counter[str] = Counter()
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{self._listener.getsockname()[1]}").geturl()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end with their clients."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for one, other, read in ((client, server, self._read()), (server, client, None)):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=_pump, args=(one, other, read), daemon=True).start()

    def _read(self) -> Any:
        """Return a coroutine that is sent the client's bytes."""
        reader = self._messages()
        next(reader)
        return reader

    def _messages(self) -> Any:
        buffer, greeted = bytearray(), False
        while True:
            buffer += yield
            while len(buffer) >= 8 - 3 * greeted:
                length = int.from_bytes(buffer[greeted : greeted + 4], "big") + greeted
                if len(buffer) < length:
                    break
                if greeted:
                    self.counts["statements"] += buffer[0] in STATEMENTS
                    self.counts["round trips"] += buffer[0] in TRIPS
                else:
                    greeted = int.from_bytes(buffer[4:8], "big") not in REQUEST_CODES
                del buffer[:length]


def _pump(source: socket.socket, target: socket.socket, read: Any) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            if read is not None:
                read.send(data)
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def count(worker: Worker, refreshes: int) -> dict[str, float]:
    """Return what one refresh of this worker asks of the servers."""
    environ, relay = worker.environ(), None
    if worker.database == "postgresql":
        relay = Relay(worker.url)
        ours, theirs = (urlsplit(url).netloc for url in (relay.url, worker.url))
        environ = {name: value.replace(theirs, ours) for name, value in environ.items()}
    found: Counter[str] = Counter()

    @contextmanager
    def around(workers: Sequence[Child]) -> Iterator[None]:
        before = _counters(worker, workers, relay)
        yield
        found.update(_counters(worker, workers, relay))
        found.subtract(before)

    worker.measure(refreshes, environ, [worker.command(0)], around=around)
    if relay is not None:
        relay.close()
    return {name: number / refreshes for name, number in found.items()}


def _counters(worker: Worker, workers: Sequence[Child], relay: Relay | None) -> dict[str, int]:
    with Redis.from_url(worker.stage.redis) as client:
        told: Any = client.info("all")
    counts = {
        "Redis commands": told["total_commands_processed"],
        "Redis round trips": told["total_reads_processed"],
        "bytes written by the worker": sum(machine.written_bytes(each.pid) for each in workers),
    }
    if relay is None:
        return counts
    with psycopg.connect(worker.stage.postgres, autocommit=True) as connection:
        wal, syncs, commits = connection.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,"
            " (SELECT sum(fsyncs)::bigint FROM pg_stat_io WHERE object = 'wal'),"
            " (SELECT sum(xact_commit)::bigint FROM pg_stat_database)"
        ).fetchone() or (0, 0, 0)
    return counts | dict(relay.counts) | {"WAL bytes": wal, "WAL syncs": syncs, "commits": commits}
