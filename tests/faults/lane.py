"""A lane of the chaos run: servers that are used again, and schedules played one after the other on fresh databases."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from tests.conftest import FAST_POSTGRES, ServerProcess, start_postgres, start_redis
from tests.faults.oracle import Evidence, judge, window_kills
from tests.faults.play import LEASE_SECONDS, Play
from tests.faults.scene import CANARY, Scene, settings_of
from tests.faults.schedules import Schedule
from tests.faults.workers import Nursery
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store import open_store
from worker.vault import Keyring

SETTINGS: Final = {
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "DEADLINE_SECONDS": "0.3",
    "CONNECT_SECONDS": "0.3",
    "STORE_SECONDS": "0.25",
}
SCHEDULES_PER_SANDBOX: Final = 40
_MIGRATING: Final = threading.Lock()


@dataclass
class Tally:
    """What came of schedules, added up.

    Attributes:
        received: pairs whose bytes reached a worker.
        windows: of those, the ones whose worker was killed before the journal had them, and which are gone.
        asked: creators who had to authorize again.
        written_ns: from the last byte of an answer to the end of the journal's write, one for each pair that reached a
            worker which never stood still.
        synced_ns: from the last byte of an answer to the end of its sync.
        findings: what the oracle found, by schedule.
    """

    schedules: int = 0
    refreshes: int = 0
    received: int = 0
    windows: int = 0
    asked: int = 0
    killed: int = 0
    stopped: int = 0
    written_ns: list[int] = field(default_factory=list)
    synced_ns: list[int] = field(default_factory=list)
    findings: list[tuple[Schedule, dict[str, list[str]]]] = field(default_factory=list)

    def take(self, schedule: Schedule, scene: Scene, evidence: Evidence) -> None:
        """Add one schedule."""
        self.schedules += 1
        self.refreshes += sum(note.what == "sent" for note in evidence.notes)
        self.received += len({note.fp for note in evidence.notes if note.what == "over" and note.fp})
        self.windows += len(window_kills(evidence))
        self.asked += sum(evidence.asked.values())
        self.killed += sum(worker.was_killed for worker in scene.workers)
        self.stopped += sum(worker.was_stopped for worker in scene.workers)
        stood_still = {worker.pid for worker in scene.workers if worker.was_stopped}
        for note in evidence.notes:
            if note.what == "journaled" and note.pid not in stood_still:
                self.written_ns.append(note.written_ns)
                self.synced_ns.append(note.synced_ns)
        findings = judge(evidence)
        if findings:
            self.findings.append((schedule, findings))

    def fail(self, schedule: Schedule, why: str) -> None:
        """Add one schedule that did not come to its end: whoever waits for those workers is stuck."""
        self.schedules += 1
        self.findings.append((schedule, {"V4 stuck": [why]}))

    def add(self, other: Tally) -> None:
        """Add another tally."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def found(self, check: str) -> int:
        """Return how many findings a check made."""
        return sum(len(findings.get(check, ())) for _, findings in self.findings)


class Lane:
    """Servers and a nursery for schedules; a context that ends them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="evertoken-chaos-")))
        self._nursery = self._stack.enter_context(Nursery())
        self._postgres: ServerProcess | None = None
        self._redis: ServerProcess | None = None
        self._sandbox: RunningSandbox | None = None
        self._played = 0
        self._model = self._folder / "model.db"
        migrate(f"sqlite:///{self._model}")

    def play(self, schedule: Schedule) -> Tally:
        """Play a schedule, heal, drain, judge."""
        self._played += 1
        folder = self._folder / str(self._played)
        folder.mkdir()
        tally = Tally()
        with ExitStack() as stack:
            url = stack.enter_context(self._database(schedule, folder))
            sandbox, redis = self._sandbox_for(schedule), self._redis_server()
            environ = settings_of(sandbox, database_url=url, redis_url=redis.url, keyring=Keyring.new(), folder=folder)
            environ |= {f"EVERTOKEN_{name}": value for name, value in SETTINGS.items()}
            environ["EVERTOKEN_IN_DOUBT_RETRY"] = schedule.retry
            scene = Scene(sandbox, self._nursery, environ, folder)
            stack.callback(scene.close)
            scene.creators(schedule.creators)
            try:
                Play(scene, schedule, redis, url).run()
                if redis.process.poll() is not None:
                    redis = self._redis_server()
                    scene.environ["EVERTOKEN_REDIS_URL"] = redis.url
                scene.drain()
            except AssertionError as error:  # a worker that does not end, or a drain that does not come to its end
                tally.fail(schedule, str(error))
            else:
                tally.take(schedule, scene, scene.evidence())
        if not tally.findings:
            shutil.rmtree(folder)
        return tally

    def _sandbox_for(self, schedule: Schedule) -> RunningSandbox:
        if self._sandbox is None or self._played % SCHEDULES_PER_SANDBOX == 0:
            if self._sandbox is not None:
                self._sandbox.stop()
            self._sandbox = start_sandbox(SandboxOptions(canary=CANARY, grace_seconds=60))
        rotation, _, answer = schedule.rotation.partition("_")
        self._sandbox.heal()
        self._sandbox.change(rotation=rotation, grace_answer=answer or "same")
        return self._sandbox

    def _redis_server(self) -> ServerProcess:
        if self._redis is None or self._redis.process.poll() is not None:
            self._redis = self._stack.enter_context(start_redis())
        return self._redis

    def _database(self, schedule: Schedule, folder: Path) -> AbstractContextManager[str]:
        if schedule.database == "sqlite":
            return _sqlite(self._model, folder)
        if self._postgres is None:
            self._postgres = self._stack.enter_context(start_postgres(*FAST_POSTGRES))
            with psycopg.connect(self._postgres.url, autocommit=True) as connection:
                connection.execute("CREATE DATABASE model")
            migrate(self._postgres.url.removesuffix("postgres") + "model")
        return _postgresql(self._postgres.url, f"run{self._played}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sandbox is not None:
            self._sandbox.stop()
        self._stack.close()


@contextmanager
def _postgresql(server_url: str, name: str) -> Iterator[str]:
    """A fresh database of a PostgreSQL server."""

    def run(statement: str) -> None:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    run(f"CREATE DATABASE {name} TEMPLATE model STRATEGY FILE_COPY")
    yield server_url.removesuffix("postgres") + name
    run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _sqlite(model: Path, folder: Path) -> Iterator[str]:
    shutil.copyfile(model, folder / "evertoken.db")
    yield f"sqlite:///{folder / 'evertoken.db'}"


def migrate(url: str) -> None:
    """Bring a database to the newest schema."""
    with _MIGRATING:  # Alembic's context is one for the whole process
        store = open_store(url)
        store.upgrade()
        store.close()
