"""Places that are scanned for canaries: files, databases, Redis and its commands, task events, processes."""

from __future__ import annotations

import base64
import json
import socket
import sqlite3
import subprocess
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

import amqp
import redis
from sqlalchemy import make_url

from tests.support.rabbit import Rabbit
from tests.support.servers import postgres_root

Place = tuple[str, bytes]
"""What people call it, and its bytes."""
DUMP_SECONDS: Final = 60.0
LISTEN_SECONDS: Final = 0.1
CONNECT_SECONDS: Final = 5.0


def files(folder: Path, name: str) -> Iterator[Place]:
    """Yield every file below a folder; the zeros at the end of what is preallocated are left out."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with suppress(FileNotFoundError):  # a lock or a segment may go meanwhile
                yield f"{name} {path.relative_to(folder)}", path.read_bytes().rstrip(b"\0")


def database(url: str) -> Iterator[Place]:
    """Yield a database: SQLite's file and its companions as they are and its dump, or PostgreSQL's dump."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        yield from sqlite_files(Path(str(address.database)))
        return
    plain = address.set(drivername="postgresql").render_as_string(hide_password=False)
    yield "the PostgreSQL dump", postgres_dump(plain)


def sqlite_files(path: Path) -> Iterator[Place]:
    """Yield the file, its WAL and its index, and then the dump, whose long values no page boundary cuts."""
    for companion in ("", "-wal", "-shm"):
        file = path.with_name(path.name + companion)
        if file.exists():
            yield f"the database file {file.name}", file.read_bytes()
    with closing(sqlite3.connect(path)) as connection:
        yield "the SQLite dump", "\n".join(connection.iterdump()).encode("utf-8", "surrogatepass")


def postgres_dump(url: str) -> bytes:
    """Return what `pg_dump` writes: from the wheel of the tests' server, or from PATH."""
    program = str(postgres_root() / "bin" / "pg_dump")
    done = subprocess.run([program, f"--dbname={url}"], capture_output=True, timeout=DUMP_SECONDS, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace").replace(url, "URL")
    return done.stdout


def redis_files(url: str, folder: Path) -> Iterator[Place]:
    """Have Redis write everything down, and yield its files: the dump and, if it is on, the log of commands.

    Args:
        url: its address.
        folder: its folder; the server must not compress its dump, or texts of a dump cannot be read.
    """
    with redis.Redis.from_url(url) as client:
        assert client.config_get("rdbcompression")["rdbcompression"] == "no", "the dump would hide what is in it"
        client.save()
    yield from files(folder, "Redis's file")


def processes(pids: Iterable[int]) -> Iterator[Place]:
    """Yield the command lines of processes, which everybody on the machine may read."""
    for pid in pids:
        seen = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, check=False).stdout
        yield f"the command line of process {pid}", seen


class _Recorder(ABC):
    """Writes into a file what a thread hears, until it is left."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._record, name=path.name)

    @abstractmethod
    def _record(self) -> None:
        """Write until `_ending` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()


class Monitor(_Recorder):
    """Records every command that anyone sends to Redis, from its MONITOR."""

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(path)
        address = urlsplit(url)
        self._socket = socket.create_connection((str(address.hostname), address.port or 6379), CONNECT_SECONDS)
        if address.password:
            self._ask(f"AUTH {unquote(address.password)}")
        self._ask("MONITOR")
        self._socket.settimeout(LISTEN_SECONDS)

    @property
    def commands(self) -> int:
        """How many commands were recorded."""
        return self.path.read_bytes().count(b"\n")

    def _ask(self, command: str) -> None:
        self._socket.sendall(f"{command}\r\n".encode())
        answer = self._socket.recv(64)
        assert answer.startswith(b"+OK"), f"Redis refused {command.split(maxsplit=1)[0]}"

    def _record(self) -> None:
        with self._socket, self.path.open("wb", buffering=0) as record:
            while not self._ending.is_set():
                with suppress(TimeoutError):
                    heard = self._socket.recv(2**16)
                    if not heard:
                        return
                    record.write(heard)


class Events(_Recorder):
    """Records what is published in Redis, events of tasks and workers above all: as published, and decoded.

    Attributes:
        kinds: how many events of each kind came.
        failed: ids of tasks whose failure was published.
    """

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(path)
        self.kinds: Counter[str] = Counter()
        self.failed: list[str] = []
        self._client = redis.Redis.from_url(url)
        self._listener = self._client.pubsub()  # type: ignore[no-untyped-call]  # redis-py has no type here
        self._listener.psubscribe("*")

    def _record(self) -> None:
        with self.path.open("wb", buffering=0) as record, closing(self._client), closing(self._listener):
            while not self._ending.is_set():
                message = self._listener.get_message(timeout=LISTEN_SECONDS)
                if message is not None and message["type"] == "pmessage":
                    record.write(message["channel"] + b" " + message["data"] + b"\n")
                    self._decode(message["data"], record.write)

    def _decode(self, data: bytes, write: Any) -> None:
        try:
            body = base64.b64decode(json.loads(data)["body"])
        except (ValueError, KeyError, TypeError):
            return
        write(body + b"\n")
        for event in events_in(body):
            self.kinds[event["type"]] += 1
            if event["type"] == "task-failed":
                self.failed.append(event["uuid"])


def events_in(body: bytes | str) -> list[dict[str, Any]]:
    """Return the events in the body of a message; none if it brings no events."""
    try:
        seen = json.loads(body)
    except ValueError:
        return []
    return [each for each in (seen if isinstance(seen, list) else [seen]) if isinstance(each, dict) and "type" in each]


class Trace(_Recorder):
    """Records every message that anyone gives to RabbitMQ or gets from it: tasks, events, remote commands and answers.

    Attributes:
        kinds: how many events of each kind were published.
    """

    def __init__(self, rabbit: Rabbit, path: Path) -> None:
        super().__init__(path)
        self.kinds: Counter[str] = Counter()
        self._rabbit = rabbit
        rabbit.control("trace_on")

    def _record(self) -> None:
        with self.path.open("wb", buffering=0) as record:
            while not self._ending.wait(LISTEN_SECONDS):
                with suppress(OSError, AttributeError, amqp.AMQPError), self._rabbit.client() as connection:
                    self._hear(connection, record.write)

    def _hear(self, connection: Any, write: Any) -> None:
        channel = connection.channel()
        queue = channel.queue_declare(exclusive=True).queue
        channel.queue_bind(queue, "amq.rabbitmq.trace", "#")

        def take(message: Any) -> None:
            key = message.delivery_info["routing_key"]
            write(f"{key} {message.headers} ".encode("utf-8", "surrogatepass"))
            write(message.body.encode("utf-8", "surrogatepass") if isinstance(message.body, str) else message.body)
            write(b"\n")
            if key == "publish.evertoken.events":
                self.kinds.update(event["type"] for event in events_in(message.body))

        channel.basic_consume(queue, callback=take, no_ack=True)
        while not self._ending.is_set():
            with suppress(TimeoutError):
                connection.drain_events(timeout=LISTEN_SECONDS)
