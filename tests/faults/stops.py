"""A real worker is asked to end at each stage of a refresh, under load, and the ledger says what became of each pair.

`python -m tests.faults.stops --times N` plays each way N times, on SQLite and PostgreSQL in turn, prints the table of
docs/long-runs.md and exits 1 on a finding.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from tests.conftest import FAST_POSTGRES, ServerProcess, start_postgres, start_redis
from tests.faults.kill_points import ORDER
from tests.faults.lane import migrate
from tests.faults.oracle import judge
from tests.faults.proxy import Proxy
from tests.faults.scene import CANARY, Scene
from tests.faults.workers import Nursery
from tests.support.daemon import Daemon, daemon_settings
from worker.celery import app
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.sandbox.verdict import LedgerVerdict
from worker.vault import Keyring

KINDS: Final = ("sqlite", "postgresql")
CREATORS: Final = 24
IDS_OF_A_MESSAGE: Final = 3
LEASE_SECONDS: Final = 30
BOUND_SECONDS: Final = LEASE_SECONDS + 30
"""What docs/operations.md, compose, units and chart give a worker: its lease and half a minute."""
ANSWER_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 6.0
REACH_SECONDS: Final = 60.0
PASSINGS: Final = (3, 4, 5, 6)
"""At which passing of its point the process stands still: by then other threads are at work."""
TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


@dataclass(frozen=True)
class Way:
    """One way of asking a worker to end.

    Attributes:
        says: what the table calls it.
        point: the failpoint at which the process stands when the first signal comes.
        signals: what it is sent, in this order.
        status: the exit status that docs/operations.md promises.
        answer_seconds: how long TikTok takes for an answer.
        away: what has gone away by then: `database`, `redis` or nothing.
        pool: Celery's pool.
    """

    says: str
    point: str = "post_send"
    signals: tuple[signal.Signals, ...] = (TERM,)
    status: int = 0
    answer_seconds: float = ANSWER_SECONDS
    away: str = ""
    pool: str = "threads"


STAGES: Final = [Way(f"SIGTERM {says} (`{point}`)", point) for point, says in ORDER]
OTHERS: Final = [
    Way("SIGTERM, TikTok answers after 6 s", answer_seconds=SLOW_SECONDS),
    Way("SIGTERM twice, TikTok answers after 6 s", signals=(TERM, TERM), answer_seconds=SLOW_SECONDS),
    Way("SIGINT (Ctrl-C)", signals=(INT,), status=1),
    Way("SIGINT twice", signals=(INT, INT), status=1),
    Way("SIGQUIT", signals=(QUIT,), status=1),
    Way("SIGTERM while the database is away, before the answer", "post_send", away="database"),
    Way("SIGTERM while the database is away, after the answer", "pre_commit", away="database"),
    Way("SIGTERM while Redis stands still", away="redis"),
    Way("SIGTERM, one task after the other (`-P solo`)", pool="solo"),
    Way("SIGTERM, processes in place of threads (`-P prefork`)", pool="prefork"),
]


@dataclass
class Tally:
    """What came of one way.

    Attributes:
        in_flight: the fewest grants under a lease when the signal came.
        slowest: seconds from the signal to the end of the process.
        replayed: pairs that the next worker took from the journal, because the database had been away.
        findings: what was wrong.
    """

    times: int = 0
    in_flight: int = CREATORS
    slowest: float = 0.0
    replayed: int = 0
    lost: int = 0
    double: int = 0
    findings: list[str] = field(default_factory=list)


class Stops:
    """One database with its own Redis; workers come and are asked to end, one after the other."""

    def __init__(self, kind: str, folder: Path, sandbox: RunningSandbox, nursery: Nursery) -> None:
        """Start servers and let creators consent."""
        self.kind = kind
        self._stack = ExitStack()
        self._sandbox = sandbox
        self._redis: ServerProcess = self._stack.enter_context(start_redis())
        url, self._proxy = self._database(folder)
        migrate(url)
        usual = {"DATABASE_URL": url, "REDIS_URL": self._redis.url, "KEYRING": Keyring.new().to_json()}
        usual |= {"SCAN_SECONDS": "300", "UPKEEP_SECONDS": "300", "LEASE_SECONDS": f"{LEASE_SECONDS}"}
        settings = daemon_settings(sandbox, folder, **usual)
        self.scene = Scene(sandbox, nursery, settings, folder)
        self._stack.callback(self.scene.close)
        by_way = {} if self._proxy is None else {"EVERTOKEN_DATABASE_URL": self._proxy.url}
        self._daemon = self._stack.enter_context(Daemon(folder, settings | by_way, warm=True))
        self._connection = self._stack.enter_context(app.connection_for_write(self._redis.url))
        self._grants = self.scene.creators(CREATORS)
        self._started = 0
        self._before = self._verdict()

    def play(self, way: Way, tally: Tally) -> None:
        """Ask a worker in this way to end, once, and add what came of it."""
        tally.times += 1
        worker = self._worker_at(way)
        tally.in_flight = min(tally.in_flight, self._number("grants WHERE lease_until IS NOT NULL"))
        with self._away(way):
            began = time.monotonic()
            for number in way.signals:
                os.kill(worker.pid, number)
                for pid in _family(worker):
                    os.kill(pid, signal.SIGCONT)
                if number is not way.signals[-1]:
                    _wait(lambda: b"shutdown (MainProcess)" in worker.log.read_bytes(), REACH_SECONDS, "a word of it")
            ended = worker.wait(2 * BOUND_SECONDS)
            seconds = time.monotonic() - began
        tally.slowest = max(tally.slowest, seconds)
        says = f"{way.says} on {self.kind}: "
        if not ended or seconds > BOUND_SECONDS:
            tally.findings.append(f"{says}it did not end within {BOUND_SECONDS} s")
        if worker.status != way.status:
            tally.findings.append(f"{says}it ended with the status {worker.status}, not {way.status}:\n{worker.tail()}")
        if way.away == "database":  # what it could not store or give back, the next worker finds when it starts
            tally.replayed += len(self.scene.kept())
            assert self.scene.worker({"do": "enter"}).ended() == 0
        self._judge(tally, says, unsent=way.away == "database")

    def drain(self) -> list[str]:
        """Let a fresh worker refresh everybody, and return what the oracle found."""
        self.scene.drain()
        found = judge(self.scene.evidence())
        return [f"{self.kind}: {check}: {each}" for check, finds in found.items() for each in finds]

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _worker_at(self, way: Way) -> Child:
        """Return a worker under load that stands still at the way's point."""
        self.scene.flush_redis()
        self._sandbox.change(latency=way.answer_seconds)
        self._run("UPDATE grants SET next_refresh_at = 0, next_pull_at = NULL")
        for first in range(0, CREATORS, IDS_OF_A_MESSAGE):
            ids = [grant.grant_id for grant in self._grants[first : first + IDS_OF_A_MESSAGE]]
            app.send_task("tasks.refresh.refresh_grants", (ids,), connection=self._connection)
        self._started += 1
        passing = (
            1 if way.pool == "prefork" else PASSINGS[self._started % len(PASSINGS)]
        )  # each process counts for itself
        points = f"{way.point}:stop@{passing}"
        self._daemon.environ |= {"EVERTOKEN_TEST_RUN": "1", "EVERTOKEN_TEST_FAILPOINTS": points}
        worker = self._daemon.worker(f"worker-{self._started}", "-P", way.pool)
        _wait(lambda: _stands_still(worker), REACH_SECONDS, f"a worker at {way.point}")
        return worker

    @contextmanager
    def _away(self, way: Way) -> Iterator[None]:
        """Let what the way names be away until the block ends."""
        if way.away == "redis":
            self._redis.process.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                self._redis.process.send_signal(signal.SIGCONT)
        elif way.away == "database" and self._proxy is not None:
            self._proxy.down()
            yield
            self._proxy.up()
        elif way.away == "database":
            with _writes_refused(self.scene.environ["EVERTOKEN_DATABASE_URL"].removeprefix("sqlite:///")):
                yield
        else:
            yield

    def _judge(self, tally: Tally, says: str, *, unsent: bool) -> None:
        """Add what is wrong now: nothing may be lost, sent twice, or left to wait for the end of a lease."""
        before, self._before = self._before, self._verdict()
        lost = len(self._before.lost) + len(self._before.lost_cut)
        double = len(self._before.double_refreshes) - len(before.double_refreshes)
        tally.lost, tally.double = tally.lost + lost, tally.double + double
        found = {
            "pairs lost": lost,
            "refreshes sent twice": double,
            "creators without a valid token": len(self._before.expired_creators),
            "pairs left in the journal": len(self.scene.kept()),
            "leases left": 0 if unsent else self._number("grants WHERE lease_until IS NOT NULL"),
            "attempts left open": 0 if unsent else self._number("attempts WHERE outcome IS NULL"),
            "suspect grants": self._number("grants WHERE status <> 'active'"),
        }
        tally.findings += [f"{says}{number} {what}" for what, number in found.items() if number]
        if unsent:
            self.scene.end_leases()
            assert self.scene.worker({"do": "keep_house"}).ended() == 0

    def _verdict(self) -> LedgerVerdict:
        return self.scene.world.verdict(*self._grants)

    def _number(self, of: str) -> int:
        def count(connection: Connection) -> int:
            return int(connection.execute(text(f"SELECT count(*) FROM {of}")).scalar_one())  # noqa: S608 - our own words

        return self.scene.store.transact(count, writes=False)

    def _run(self, statement: str) -> None:
        self.scene.store.transact(lambda connection: connection.execute(text(statement)), writes=True)

    def _database(self, folder: Path) -> tuple[str, Proxy | None]:
        if self.kind == "sqlite":
            return f"sqlite:///{folder / 'evertoken.db'}", None
        server = self._stack.enter_context(start_postgres(*FAST_POSTGRES))
        return server.url, self._stack.enter_context(Proxy(server.url))


@contextmanager
def _writes_refused(path: str) -> Iterator[None]:
    """Let nobody write to a SQLite file, as soon as a worker that stands still has ended its transaction."""
    with closing(sqlite3.connect(path, timeout=REACH_SECONDS, isolation_level=None, check_same_thread=False)) as lock:
        taking = threading.Thread(target=lock.execute, args=("BEGIN IMMEDIATE",))
        taking.start()
        yield
        taking.join()
        lock.execute("ROLLBACK")


def _family(child: Child) -> list[int]:
    """Return a process and its children, which are the worker with `-P prefork`."""
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="utf-8")
    return [child.pid, *map(int, children.split())]


def _stands_still(child: Child) -> bool:
    assert child.status is None, child.tail()
    stats = [Path(f"/proc/{pid}/stat").read_text(encoding="utf-8") for pid in _family(child)]
    return any(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def _wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, f"{what} did not come within {seconds:g} s"
        time.sleep(0.01)


def play(ways: Sequence[Way], times: int, kinds: Iterable[str] = KINDS) -> tuple[dict[Way, Tally], list[str]]:
    """Play each way so many times, on the databases in turn; return what came of each and what the oracle found."""
    tallies = {way: Tally() for way in ways}
    found: list[str] = []
    kinds = tuple(kinds)
    with (
        tempfile.TemporaryDirectory(prefix="evertoken-stops-") as folder,
        Nursery() as nursery,
        start_sandbox(SandboxOptions(canary=CANARY, rotation="strict")) as sandbox,
    ):
        for number, kind in enumerate(kinds):
            here = Path(folder, kind)
            here.mkdir()
            stops = Stops(kind, here, sandbox, nursery)
            try:
                for index, way in enumerate(ways):
                    for turn in range(times):
                        if (turn + index) % len(kinds) == number:
                            stops.play(way, tallies[way])
                found += stops.drain()
            finally:
                stops.close()
    return tallies, found


def table(tallies: dict[Way, Tally]) -> str:
    """Return the table."""
    head = "| asked to end | times | fewest in flight | slowest end | lost | sent twice | from the journal | findings |"
    lines = [head, "|---|---|---|---|---|---|---|---|"]
    rows = [(way.says, tally) for way, tally in tallies.items()]
    total = Tally(
        times=sum(tally.times for tally in tallies.values()),
        in_flight=min(tally.in_flight for tally in tallies.values()),
        slowest=max(tally.slowest for tally in tallies.values()),
        replayed=sum(tally.replayed for tally in tallies.values()),
        lost=sum(tally.lost for tally in tallies.values()),
        double=sum(tally.double for tally in tallies.values()),
        findings=[each for tally in tallies.values() for each in tally.findings],
    )
    for says, tally in [*rows, ("**all**", total)]:
        lines.append(
            f"| {says} | {tally.times} | {tally.in_flight} | {tally.slowest:.1f} s | {tally.lost} | {tally.double} "
            f"| {tally.replayed} | {len(tally.findings)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="how often each stage of a refresh is played")
    parser.add_argument("--others", type=int, default=4, help="how often each other way is played")
    chosen = parser.parse_args()
    findings = []
    for ways, times in ((STAGES, chosen.times), (OTHERS, chosen.others)):
        if times:
            tallies, found = play(ways, times)
            sys.stdout.write(f"{table(tallies)}\n\n")
            findings += [each for tally in tallies.values() for each in tally.findings] + found
    sys.stdout.writelines(f"{each}\n" for each in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
