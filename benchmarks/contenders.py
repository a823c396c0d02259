"""Who is measured: Evertoken's worker, the home-made one, and the bare loop; each prepares a fleet and refreshes it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from celery import Celery
from kombu.entity import Exchange, Queue
from sqlalchemy import Engine, create_engine, inspect, text
from sqlmodel import Session, SQLModel

from benchmarks import machine
from benchmarks.homemade.models import Creator
from benchmarks.stage import PROJECT, Stage, wait_for
from benchmarks.standin import APP_ID, APP_SECRET, SCOPE, pair_of
from tests.support.daemon import plain_environ
from worker.sandbox.children import Child

THREADS: Final = 16
UNBOUND: Final = 1_000_000
"""Requests a second: the quota never stands in the way."""
WARM_UP: Final = 100
SETTLE_SECONDS: Final = 0.2
"""After the last commit: the last pulls are queued by then, and their processor time is counted."""
LOOK_SECONDS: Final = 0.0005
"""How often a refresh alone is looked for."""
LONGEST_ALONE_SECONDS: Final = 30.0
FAR: Final = 4_000_000_000_000


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        count: refreshes.
        wall: seconds from the scan to the last commit.
        processor: seconds of the workers' processor time.
        others: share of the workers' core that other processes took meanwhile.
        began: when it began, on the monotonic clock.
        ended: when the last was committed.
    """

    count: int
    wall: float
    processor: float
    others: float = 0.0
    began: float = 0.0
    ended: float = 0.0

    @property
    def rate(self) -> float:
        """Refreshes a second."""
        return self.count / self.wall

    @property
    def cost(self) -> float:
        """Microseconds of processor time for each refresh."""
        return 1e6 * self.processor / self.count


class Contender(ABC):
    """One way of refreshing a fleet.

    Attributes:
        name: what the table calls it.
        database: `postgresql`, `sqlite`, or nothing.
        tls: True if the stand-in is called with TLS.
        share: how many of the fleet one run refreshes; the slow ones do fewer.
    """

    def __init__(self, stage: Stage, name: str, *, database: str = "", tls: bool = False, share: float = 1.0) -> None:
        self.stage, self.name, self.database, self.tls, self.share = stage, name, database, tls, share

    @property
    def label(self) -> str:
        """The name that the tables and JSON use, unique among all contenders."""
        return " ".join(part for part in (self.name, self.database, "TLS" if self.tls else "") if part)

    @abstractmethod
    def prepare(self, creators: int) -> None:
        """Make the fleet."""

    @abstractmethod
    def run(self, count: int, *, processes: int = 1) -> Run:
        """Refresh `count` creators once."""


class Loop(Contender):
    """The bare loop of `requests`."""

    def prepare(self, creators: int) -> None:
        """Do nothing: it stores nothing."""

    def run(self, count: int, *, processes: int = 1) -> Run:
        """Refresh; see `Contender`."""
        assert processes == 1, "the loop is one process"
        path = "/v1.3/tt_user/oauth2/refresh_token/"
        url = self.stage.standin.url(tls=self.tls) + path
        command = [sys.executable, "-m", "benchmarks.loop", "--url", url, "--prefix", f"loop{time.monotonic_ns()}",
                   "--count", str(count), "--threads", str(THREADS)]  # fmt: skip
        cores = self.stage.worker_cores
        with machine.pinned(cores):
            environ = plain_environ() | {"REQUESTS_CA_BUNDLE": str(self.stage.authority)}
            busy, spent, began = machine.core_seconds(cores), machine.children_seconds(), time.monotonic()
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            others = machine.core_seconds(cores) - busy - (machine.children_seconds() - spent)
            whole = time.monotonic() - began
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return Run(told["count"], told["wall"], told["processor"], max(0.0, others / whole))


class Worker(Contender):
    """What both Celery workers share: a database, a fleet in it, and one measured round."""

    due: str
    """Statement that makes the creators up to `:count` due, and no other."""
    left: str
    """Statement that counts who is due."""

    engine: Engine
    url: str

    def prepare(self, creators: int) -> None:
        """Make the database and the fleet."""
        slug = self.slug
        if self.database == "sqlite":
            self.url = f"sqlite:///{self.stage.folder / slug}.db"
        else:
            with psycopg.connect(self.stage.postgres, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{slug}"'.encode())
            self.url = self.stage.postgres.removesuffix("postgres") + slug
        self.engine = create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        self._fill(creators)

    @property
    def slug(self) -> str:
        """The contender's name in files, databases and creator ids."""
        return self.label.lower().replace(" ", "-")

    def run(self, count: int, *, processes: int = 1) -> Run:
        """Refresh; see `Contender`."""
        return self.measure(count, self.environ(), [self.command(number) for number in range(processes)])

    def measure(
        self,
        count: int,
        environ: dict[str, str],
        commands: list[list[str]],
        *,
        around: Callable[[Sequence[Child]], AbstractContextManager[None]] = lambda _: nullcontext(),
    ) -> Run:
        """Start workers, warm them up, refresh `count` creators once, and check that exactly that was done.

        Args:
            count: number of creators.
            environ: environment variables of the workers.
            commands: the command line of each worker.
            around: entered with the workers before the measured round, and left after it.
        """
        self.stage.flush()
        with self.stage.running(self.slug, commands, environ) as workers:
            self._round(WARM_UP, workers)
            with around(workers):
                return self._round(count, workers)

    def _round(self, count: int, workers: Sequence[Child]) -> Run:
        self._make_due(count)
        standin, cores = self.stage.standin, self.stage.worker_cores
        before = standin.counts()
        processor, busy, began = self._processor(workers), machine.core_seconds(cores), time.monotonic()
        self.publish(count)
        wait_for(lambda: standin.counts()["refreshes"] >= before["refreshes"] + count, *workers)
        wait_for(lambda: self._left() == 0, *workers)
        ended = time.monotonic()
        time.sleep(SETTLE_SECONDS)
        spent = self._processor(workers) - processor
        others = machine.core_seconds(cores) - busy - spent
        after = standin.counts()
        assert after["refreshes"] - before["refreshes"] == count, "every creator is refreshed once"
        assert after["refused"] == before["refused"], "no token is sent twice"
        whole = time.monotonic() - began
        return Run(count, ended - began, spent, max(0.0, others / whole), began, ended)

    @abstractmethod
    def environ(self) -> dict[str, str]:
        """Return the worker's environment variables."""

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """Return the worker's command line."""

    @abstractmethod
    def publish(self, count: int) -> None:
        """Give the workers their messages."""

    @abstractmethod
    def _fill(self, creators: int) -> None: ...

    def _processor(self, workers: Sequence[Child]) -> float:
        return sum(machine.processor_seconds(worker.pid) for worker in workers)

    def _make_due(self, count: int) -> None:
        with self.engine.begin() as connection:
            for statement in self.due.split(";"):
                connection.execute(text(statement), {"count": count, "far": FAR} if ":" in statement else {})
        if self.database == "postgresql":  # what autovacuum would do in a longer run
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))
                connection.execute(text("CHECKPOINT"))

    def _left(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(text(self.left)).scalar_one())


class Evertoken(Worker):
    """A worker of this project, or of another checkout of it."""

    due = (
        "UPDATE grants SET next_pull_at = NULL,"
        " next_refresh_at = CASE WHEN id <= :count THEN 0 ELSE CAST(:far AS BIGINT) END"
    )
    left = "SELECT count(*) FROM grants WHERE next_refresh_at = 0"

    def __init__(self, stage: Stage, name: str, *, tree: Path = PROJECT, **how: Any) -> None:
        """Take a checkout of the daemon.

        Args:
            stage: what it runs on.
            name: what the table calls it.
            tree: the checkout it is started from.
            how: see `Contender`.
        """
        super().__init__(stage, name, **how)
        self._tree = tree

    def environ(self) -> dict[str, str]:
        """Return the worker's environment variables."""
        folder = self.stage.folder / self.slug
        settings = {
            "DATABASE_URL": self.url,
            "REDIS_URL": self.stage.redis,
            "KEYRING_FILE": str(folder / "keyring"),
            "JOURNAL_DIR": str(folder / "journal"),
            "RUN_DIR": str(folder / "run"),
            "TIKTOK_APP_ID": APP_ID,
            "TIKTOK_APP_SECRET": APP_SECRET,
            "TIKTOK_REDIRECT_URI": "https://example.com/callback",
            "TIKTOK_BASE_URL": self.stage.standin.url(tls=self.tls),
            "QUOTA_PER_SECOND": str(UNBOUND),
            "QUOTA_PER_MINUTE": str(60 * UNBOUND),
            "QUOTA_PER_ACCOUNT_MINUTE": str(UNBOUND),
            "SCAN_SECONDS": "300",
        }
        if self.tls:
            settings["CA_FILE"] = str(self.stage.authority)
        path = {"PYTHONPATH": f"{self._tree}:{PROJECT}"}
        return plain_environ() | path | {f"EVERTOKEN_{name}": value for name, value in settings.items()}

    def command(self, number: int) -> list[str]:
        """Return the worker's command line."""
        return [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "worker",
            "worker",
            "-Q",
            "refresh",
            "-n",
            f"worker{number}@bench",
        ]

    def publish(self, count: int) -> None:
        """Ask for a scan, as beat does."""
        del count
        with self._queue() as scan:
            scan()

    @contextmanager
    def _queue(self) -> Iterator[Callable[[], object]]:
        with Celery(broker=self.stage.redis) as app:
            app.conf.broker_transport_options = {"global_keyprefix": "evertoken:"}
            queue = Queue("refresh", Exchange("evertoken"), routing_key="refresh")
            with app.producer_pool.acquire(block=True) as producer:
                yield lambda: app.send_task("tasks.refresh.scan_due", queue=queue, producer=producer)

    def alone(self, count: int) -> list[float]:
        """Refresh creators one at a time; return for each the seconds from the message of the scan to the commit."""
        self.stage.flush()
        seconds = list[float]()
        with self.stage.running(self.slug, [self.command(0)], self.environ()) as workers, self._queue() as scan:
            self._round(WARM_UP, workers)
            for number in range(1, count + 1):
                with self.engine.begin() as connection:
                    connection.execute(text("UPDATE grants SET next_refresh_at = 0 WHERE id = :id"), {"id": number})
                began = time.monotonic()
                scan()
                while self._left():
                    assert time.monotonic() < began + LONGEST_ALONE_SECONDS, workers[0].tail()
                    time.sleep(LOOK_SECONDS)
                seconds.append(time.monotonic() - began)
                time.sleep(SETTLE_SECONDS)
        return seconds

    def grown(self, count: int, rounds: int) -> list[float]:
        """Refresh `count` creators in each round; return the worker's MiB of memory before the first and after each."""
        self.stage.flush()
        with self.stage.running(self.slug, [self.command(0)], self.environ()) as workers:
            self._round(WARM_UP, workers)
            mebibytes = [machine.resident_mebibytes(workers[0].pid)]
            for _ in range(rounds):
                self._round(count, workers)
                mebibytes.append(machine.resident_mebibytes(workers[0].pid))
        return mebibytes

    def _fill(self, creators: int) -> None:
        folder = self.stage.folder / self.slug
        folder.mkdir(exist_ok=True)
        file = folder / "creators.jsonl"
        lines = (json.dumps(pair_of(f"{self.slug}-{number}", 1)) for number in range(creators))
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        steps = [("keys", "new", "--out", str(folder / "keyring")), ("db", "upgrade"), ("grants", "import", str(file))]
        for arguments in steps if creators else steps[:-1]:
            command = [sys.executable, "-m", "celery", "-A", "worker", *arguments]
            done = subprocess.run(command, env=self.environ(), cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        if "unproven_since" in {column["name"] for column in inspect(self.engine).get_columns("grants")}:
            # As in a fleet that has been refreshed before: the owners of the pairs are not looked up.
            with self.engine.begin() as connection:
                connection.execute(text("UPDATE grants SET unproven_since = NULL"))


class HomeMade(Worker):
    """The worker of `benchmarks.homemade`."""

    due = (
        "UPDATE creator SET expires_at = '2100-01-01 00:00:00';"
        "UPDATE creator SET expires_at = '2000-01-01 00:00:00' WHERE id <= :count"
    )
    left = "SELECT count(*) FROM creator WHERE expires_at < '2001-01-01 00:00:00'"

    def environ(self) -> dict[str, str]:
        """Return the worker's environment variables."""
        return plain_environ() | {
            "BROKER_URL": self.stage.redis,
            "DATABASE_URL": self.url.replace("postgresql:", "postgresql+psycopg:"),
            "TIKTOK_APP_ID": APP_ID,
            "TIKTOK_APP_SECRET": APP_SECRET,
            "TIKTOK_BASE_URL": self.stage.standin.url(tls=self.tls),
            "REQUESTS_CA_BUNDLE": str(self.stage.authority),
        }

    def command(self, number: int) -> list[str]:
        """Return the worker's command line."""
        options = ("-P", "threads", "-c", str(THREADS), "-l", "INFO", "-n", f"homemade{number}@bench")
        return [sys.executable, "-m", "celery", "-A", "benchmarks.homemade.tasks", "worker", *options]

    def publish(self, count: int) -> None:
        """Queue a task for each creator; this process does it, on the servers' core, which spares the worker that."""
        with Celery(broker=self.stage.redis) as app, app.producer_pool.acquire(block=True) as producer:
            for number in range(1, count + 1):
                app.send_task("benchmarks.homemade.tasks.refresh_creator", args=(number,), producer=producer)

    def _fill(self, creators: int) -> None:
        SQLModel.metadata.create_all(self.engine, tables=[Creator.__table__])  # type: ignore[attr-defined]  # SQLModel adds it
        if self.database == "sqlite":
            with self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        now = datetime.now(UTC)
        with Session(self.engine) as session:
            for number in range(creators):
                pair = pair_of(f"{self.slug}-{number}", 1)
                session.add(
                    Creator(
                        open_id=str(pair["open_id"]),
                        access_token=str(pair["access_token"]),
                        refresh_token=str(pair["refresh_token"]),
                        scope=SCOPE,
                        expires_at=now,
                        refresh_expires_at=now + timedelta(days=365),
                    )
                )
            session.commit()
