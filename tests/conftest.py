"""Fixtures that every test folder shares: real servers as child processes, fresh databases, keys and waiting.

Each test process (each xdist worker) starts its own servers on free loopback ports, at first use. A server is
held by a lifeline: a shell that waits on a pipe from this process and ends the server and its files when the pipe
closes, so nothing outlives a session that fails, is interrupted or is killed.
"""

from __future__ import annotations

import gc
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
import pytest
import redis
from psycopg import sql

from tests.support.servers import postgres_root, redis_program
from tests.support.systemd import Systemd
from worker.vault.keyring import Keyring
from worker.vault.sealing import Sealer

if TYPE_CHECKING:
    from worker.store import Store

START_SECONDS: Final = 20.0
_DATABASES: Final = itertools.count(1)
APP_ID: Final = "sandbox-app"
"""The app of the sandbox, unless a test names another."""
WORKER_ROLE: Final = "evertoken_worker"
READER_ROLE: Final = "evertoken_reader"
DASHBOARD_ROLE: Final = "evertoken_dashboard"
"""Roles of the tests' PostgreSQL, with the rights that `evertoken db roles` gives them."""
AS_WORKER: Final = frozenset({"accounts", "cli", "desk", "store", "worker"})
"""Folders whose tests on PostgreSQL connect by the worker's role, but for those that are marked `as_owner`."""
SERVER_USER: Final = "nobody"
"""PostgreSQL refuses to run as root; root's tests run it as this user, which every system has."""
LIFELINE: Final = """
read -r _
kill -s "$2" "$1"; kill -s CONT "$1"
tries=0
while kill -0 "$1" && [ $tries -lt 500 ]; do sleep 0.02; tries=$((tries + 1)); done
rm -rf "$3"
"""
FAST_POSTGRES: Final = (
    "fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=200", "max_wal_size=64MB"
)  # fmt: skip
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a file system, if there is one; the folder in it is our own
MEMORY_BYTES: Final = 2_000_000_000
"""What must be free there. A database is 300 files: in memory one is made in half the time that a disk needs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what the slow suite asks for."""
    parser.addoption("--pooler", action="store_true", help="put a PgBouncer in transaction mode before PostgreSQL")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that may take longest, so that none of them is left to one worker at the end."""
    items.sort(key=lambda item: -max((mark.args[0] for mark in item.iter_markers("timeout")), default=0))


def pytest_collection_finish() -> None:
    """Search for garbage more rarely, and no more in all that is imported by now: that took a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def find_free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"the condition did not come true within {seconds:g} s")
        time.sleep(0.005)


@dataclass
class ServerProcess:
    """A server of ours: its address, its process and its folder; a context that ends both.

    Attributes:
        url: what a client connects to.
        stop_signal: the signal name that ends the server at once.
    """

    url: str
    port: int
    folder: Path
    stop_signal: str
    process: subprocess.Popen[bytes]
    _lifeline: subprocess.Popen[bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._lifeline = subprocess.Popen(
            ["/bin/sh", "-c", LIFELINE, "lifeline", str(self.process.pid), self.stop_signal, str(self.folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The server's process id, for tests that stop, continue or kill it."""
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._lifeline.stdin is not None
        self._lifeline.stdin.close()
        self.process.wait(START_SECONDS)
        self._lifeline.wait(START_SECONDS)

    def wait_ready(self, ping: Callable[[], object], unready: type[Exception]) -> None:
        """Wait until `ping` no longer raises `unready`; a server that ended meanwhile fails the test at once."""

        def answers() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"a server of the tests ended at its start: {(self.folder / 'log').read_text()[-2000:]}")
            try:
                ping()
            except unready:
                return False
            return True

        _wait_until(answers, START_SECONDS)


def start_server(
    arguments: list[str],
    folder: Path,
    *,
    url: str,
    port: int,
    stop: str,
    user: str | None,
    environ: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Start a server in its folder; `wait_ready` waits for it.

    Args:
        arguments: the command.
        folder: a folder of its own, which is removed at the end.
        url: what a client connects to.
        port: where it listens.
        stop: the signal that ends it at once.
        user: who runs it; the user of the tests by default.
        environ: its environment; that of the tests by default.
    """
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, user=user,
            env=environ,
        )  # fmt: skip
    return ServerProcess(url, port, folder, stop, process)


def start_redis(*options: str) -> ServerProcess:
    """Start a real Redis-protocol server on a free port; options go to the server."""
    folder, port = Path(tempfile.mkdtemp(prefix="evertoken-redis-")), find_free_port()
    arguments = [redis_program(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = start_server(
        [*arguments, "--maxmemory-policy", "noeviction", *options],
        folder,
        url=f"redis://127.0.0.1:{port}/0",
        port=port,
        stop="KILL",
        user=None,
    )
    with redis.Redis(port=port) as client:
        server.wait_ready(client.ping, redis.ConnectionError)
    return server


def _postgres_binaries(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs; root copies them where its stand-in user may read them."""
    root = postgres_root()
    if os.geteuid() == 0 and not all(parent.stat().st_mode & 0o001 for parent in root.parents):
        root = Path(shutil.copytree(root, folder / "pginstall", symlinks=True))
    return root / "bin"


def memory_folder() -> Path | None:
    """Return the file system that is kept in memory, if there is one with room."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None


def start_postgres(*options: str, parent: Path | None = None) -> ServerProcess:
    """Start a PostgreSQL with `name=value` settings and wait until it answers; it is a context that ends it.

    Args:
        *options: its settings.
        parent: where its folder is made; where temporary files are by default.
    """
    folder, port = Path(tempfile.mkdtemp(prefix="evertoken-postgres-", dir=parent)), find_free_port()
    programs, data = _postgres_binaries(folder), folder / "data"
    data.mkdir(mode=0o700)
    user = SERVER_USER if os.geteuid() == 0 else None
    if user is not None:
        folder.chmod(0o755)
        os.chown(data, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    made = subprocess.run(
        [*initdb, "--locale=C", "--no-sync"], cwd=folder, user=user, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    settings = ("listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", *options)
    server = start_server(
        [str(programs / "postgres"), "-D", str(data), *(part for each in settings for part in ("-c", each))],
        folder,
        url=f"postgresql://postgres@127.0.0.1:{port}/postgres",
        port=port,
        stop="INT",
        user=user,
    )
    server.wait_ready(lambda: psycopg.connect(server.url).close(), psycopg.OperationalError)
    return server


def _run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ServerProcess]:
    """The Redis-protocol server of this test process; never stop this one, ask `new_redis` for your own."""
    with start_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: ServerProcess) -> str:
    """Address of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def new_redis() -> Iterator[Callable[..., ServerProcess]]:
    """Starts a Redis of the test's own, with more server options as arguments; it may be killed."""
    with ExitStack() as servers:
        yield lambda *options: servers.enter_context(start_redis(*options))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[ServerProcess]:
    """The PostgreSQL of this test process; never stop this one, ask `new_postgres` for your own."""
    with start_postgres(*FAST_POSTGRES, parent=memory_folder()) as server:
        yield server


@pytest.fixture(scope="session")
def _maintenance(postgres_server: ServerProcess) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def new_postgres() -> Iterator[Callable[..., ServerProcess]]:
    """Starts a PostgreSQL of the test's own (fsync on), with `name=value` settings as arguments; it may be killed."""
    with ExitStack() as servers:
        yield lambda *options: servers.enter_context(start_postgres(*options))


@pytest.fixture(scope="session")
def _postgres_front(request: pytest.FixtureRequest, postgres_server: ServerProcess) -> Iterator[ServerProcess]:
    """What the tests connect to: PostgreSQL itself or, with `--pooler`, a PgBouncer before it."""
    if not request.config.getoption("pooler"):
        yield postgres_server
        return
    from tests.support.pooler import start_pooler  # noqa: PLC0415 - it imports this module

    with start_pooler(postgres_server, default_pool_size="30") as pooler:
        yield pooler


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: ServerProcess) -> str:
    from worker.store import open_store  # noqa: PLC0415 - only tests of the database pay for importing it

    _run_sql(postgres_server.url, "CREATE DATABASE model")
    store = open_store(_database(postgres_server, "model"))
    store.upgrade()
    statements = store.role_statements(worker=WORKER_ROLE, reader=READER_ROLE, dashboard=DASHBOARD_ROLE)
    store.close()
    _run_sql(_database(postgres_server, "model"), *statements)
    return "model"


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from worker.store import open_store  # noqa: PLC0415 - only tests of the database pay for importing it

    path = tmp_path_factory.mktemp("model") / "model.db"
    store = open_store(f"sqlite:///{path}")
    store.upgrade()
    store.close()
    return path


def _database(server: ServerProcess, name: str) -> str:
    return server.url.removesuffix("postgres") + name


@contextmanager
def _own_database(maintenance: psycopg.Connection, template: str) -> Iterator[str]:
    """A database whose name no other test uses, so that a process that a test left behind reaches no later test."""
    name = f"test{next(_DATABASES)}"
    names = (sql.Identifier(name), sql.Identifier(template))
    maintenance.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(*names))
    yield name
    maintenance.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on; a test that asks for `store` or `store_url` runs on both."""
    return str(request.param)


@pytest.fixture
def empty_database_url(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a database without any table."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    maintenance: psycopg.Connection = request.getfixturevalue("_maintenance")
    with _own_database(maintenance, "template0") as name:
        yield _database(request.getfixturevalue("_postgres_front"), name)


@pytest.fixture
def store_url(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Address of a migrated database without any row."""
    if database_kind == "sqlite":
        shutil.copyfile(request.getfixturevalue("_sqlite_template"), tmp_path / "evertoken.db")
        yield f"sqlite:///{tmp_path / 'evertoken.db'}"
        return
    template: str = request.getfixturevalue("_postgres_template")
    maintenance: psycopg.Connection = request.getfixturevalue("_maintenance")
    is_workers = request.path.parent.name in AS_WORKER and request.node.get_closest_marker("as_owner") is None
    with _own_database(maintenance, template) as name:
        address = _database(request.getfixturevalue("_postgres_front"), name)
        yield address.replace("//postgres@", f"//{WORKER_ROLE}@") if is_workers else address


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An open store on a migrated, empty database: once on SQLite and once on PostgreSQL."""
    from worker.store import open_store  # noqa: PLC0415 - only tests of the database pay for importing it

    opened = open_store(store_url, app_id=APP_ID)
    yield opened
    opened.close()


@pytest.fixture
def keyring() -> Keyring:
    """A keyring with one fresh key."""
    return Keyring.new()


@pytest.fixture
def sealer(keyring: Keyring) -> Sealer:
    """A sealer over the `keyring` fixture, for the pairs of the sandbox's app."""
    return Sealer(keyring, app_id=APP_ID)


@pytest.fixture
def free_port() -> int:
    """A loopback port that was free a moment ago."""
    return find_free_port()


@pytest.fixture
def free_ports() -> Callable[[], int]:
    """Returns another free loopback port at each call."""
    return find_free_port


@pytest.fixture
def systemd() -> Iterator[Systemd]:
    """Systemd's end of a watchdog."""
    listening = Systemd()
    yield listening
    listening.close()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(condition, seconds=10)` returns once `condition()` is true, and fails the test after `seconds`."""
    return _wait_until
