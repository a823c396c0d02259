"""An upgrade and the way back under load: workers of an older version and of this one on one database.

`python -m tests.faults.upgrades` plays it from two older versions, on SQLite and on PostgreSQL, prints the table of
docs/long-runs.md and exits 1 on a finding. TikTok's access tokens live a minute, so every creator is
refreshed all the time, and where nobody is refreshed for half a minute tokens end.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from tests.conftest import FAST_POSTGRES, start_postgres, start_redis
from tests.support.daemon import READY_SECONDS
from tests.support.versions import NoHistoryError, Versions, before_migrations, last_version, unpack
from tests.support.world import World
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.store.schema import chain

CREATORS: Final = 40
LIFE_SECONDS: Final = 60
ROUND_SECONDS: Final = 3 * LIFE_SECONDS
SAVED: Final = b'"event": "refresh.saved"'
UNKNOWN: Final = b"Received unregistered task"
"""What Celery says, with a traceback, when an older worker drops the message of a task that only this version knows."""
KINDS: Final = ("sqlite", "postgresql")


@dataclass
class Tally:
    """What came of one upgrade.

    Attributes:
        start: the older version's newest migration.
        old: refreshes of the older version's workers, by phase.
        new: refreshes of this version's workers, by phase.
        lost: creators whose live pair left TikTok and is not stored.
        double: refreshes that were sent twice.
        expired: creators that were without a valid token for a while.
    """

    kind: str
    start: str
    old: list[int] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    lost: int = 0
    double: int = 0
    expired: int = 0
    findings: list[str] = field(default_factory=list)


class Upgrade:
    """One upgrade and the way back."""

    def __init__(self, versions: Versions, code: Path, tally: Tally) -> None:
        """Let the older version make the tables."""
        self._versions, self._tally = versions, tally
        self.old = versions.daemon("old", code, KEYRING="none")
        versions.make_keyring(self.old)
        self.new = versions.daemon("new")
        _good(self.old.run("db", "upgrade"), "the older version's db upgrade")
        self._seen = [0, 0]

    def play(self) -> None:
        """Upgrade under load, and go back under load; every creator is refreshed in each phase."""
        old, new = self.old, self.new
        first, old_beat = old.worker("first"), old.beat()
        old.wait_ready(_wait, first, old_beat)
        self._versions.import_creators(old)  # not before: their tokens would end while the processes start
        self._phase("the older version alone", first)

        _good(new.run("db", "upgrade"), "db upgrade beside a running worker of the older version")
        self._phase("the older version on the new tables", first)

        second = new.worker("second")
        new.wait_ready(_wait, second)
        self._phase("both", first, second)

        old.stop(first)
        old.stop(old_beat)
        new_beat = new.beat()
        new.wait_ready(_wait, new_beat)
        self._phase("this version alone", second)

        back = old.worker("back")
        old.wait_ready(_wait, back)
        self._phase("both, on the way back", back, second)

        new.stop(second)
        new.stop(new_beat)
        again = old.beat()
        _good(old.run("db", "upgrade"), "the older version's db upgrade on the new tables")
        self._phase("the older version again, on the new tables", back)
        old.stop(back, again)
        for child in (first, second, back):
            if child.status != 0:
                self._tally.findings.append(f"{self._says}: {child.name} ended with the status {child.status}")
            if any(b"Traceback" in line and UNKNOWN not in line for line in child.log.read_bytes().splitlines()):
                self._tally.findings.append(f"{self._says}: {child.name} logged a traceback:\n{child.tail()}")

    def judge(self) -> None:
        """Hold the ledger against what is stored."""
        with closing(World(self._versions.sandbox, self.new.environ)) as world:
            judged = world.verdict(*world.services.store.grants())
        tally = self._tally
        tally.lost = len(judged.lost) + len(judged.lost_cut)
        tally.double, tally.expired = len(judged.double_refreshes), len(judged.expired_creators)
        found = {
            "pairs lost": tally.lost,
            "refreshes sent twice": tally.double,
            "creators without a valid token": tally.expired,
            "creators missing in the ledger": CREATORS - judged.creators,
            "leases left": self._number("grants WHERE lease_until IS NOT NULL"),
            "attempts left open": self._number("attempts WHERE outcome IS NULL"),
            "grants that are not active": self._number("grants WHERE status <> 'active'"),
        }
        tally.findings += [f"{self._says}: {number} {what}" for what, number in found.items() if number]

    @property
    def _says(self) -> str:
        return f"from {self._tally.start} on {self._tally.kind}"

    def _phase(self, name: str, *workers: Child) -> None:
        """Wait until every creator was refreshed again, and count the refreshes of each version."""
        before = self._versions.generations()
        dead: list[Child] = []

        def over() -> bool:
            dead[:] = [worker for worker in workers if worker.status is not None]
            return bool(dead) or self._versions.refreshed_since(before)

        _wait(over, ROUND_SECONDS, f"{self._says}: a refresh of every creator by {name}")
        assert not dead, f"{self._says}, {name}: {dead[0].name} ended:\n{dead[0].tail()}"
        for index, (daemon, counts) in enumerate(((self.old, self._tally.old), (self.new, self._tally.new))):
            logs = (daemon.folder / "logs").glob("*.log")
            saved = sum(log.read_bytes().count(SAVED) for log in logs)
            counts.append(saved - self._seen[index])
            self._seen[index] = saved

    def _number(self, of: str) -> int:
        def count(connection: Connection) -> int:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {of}").scalar_one())  # noqa: S608 - our words

        return self._versions.store.transact(count, writes=False)


def _good(done: object, what: str) -> None:
    status = getattr(done, "returncode", 0)
    assert status == 0, f"{what} ended with {status}: {getattr(done, 'stdout', '')}{getattr(done, 'stderr', '')}"


def _wait(condition: Callable[[], object], seconds: float = READY_SECONDS, what: str = "what was waited for") -> None:
    ends_at = time.monotonic() + max(seconds, 2 * READY_SECONDS)
    while not condition():
        assert time.monotonic() < ends_at, f"{what} did not come within {seconds:g} s"
        time.sleep(0.1)


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'evertoken.db'}"
        return
    with start_postgres(*FAST_POSTGRES) as server:
        yield server.url


def play(commits: Sequence[str], kinds: Sequence[str] = KINDS) -> list[Tally]:
    """Play the upgrade from each of these commits, on these databases side by side.

    Raises:
        NoHistoryError: a commit is not here.
    """
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="evertoken-upgrades-") as folder:
        for commit in commits:
            code = unpack(commit, Path(folder, commit))
            newest = max((code / "worker/store/migrations/versions").glob("v*.py")).name[1:5]
            threads = []
            for kind in kinds:
                tallies.append(Tally(kind, newest))
                here = Path(folder, f"{commit[:7]}-{kind}")
                here.mkdir()
                threads.append(threading.Thread(target=_play_one, args=(code, kind, here, tallies[-1])))
                threads[-1].start()
            for thread in threads:
                thread.join()
    return tallies


def _play_one(code: Path, kind: str, folder: Path, tally: Tally) -> None:
    try:
        with ExitStack() as stack:
            sandbox = stack.enter_context(start_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS)))
            url, redis = stack.enter_context(_database(kind, folder)), stack.enter_context(start_redis())
            versions = Versions(stack, folder, sandbox, url, redis.url, creators=CREATORS, SCAN_SECONDS="1")
            upgrade = Upgrade(versions, code, tally)
            try:
                upgrade.play()
            finally:
                upgrade.judge()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        tally.findings.append(f"from {tally.start} on {kind}: {type(error).__name__}: {error}")


def table(tallies: Sequence[Tally]) -> str:
    """Return the table."""
    titles = ("from", "database", "refreshes by the older version", "by this one", "lost", "sent twice", "token ended")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [
        f"| {tally.start} | {tally.kind} | {', '.join(map(str, tally.old))} | {', '.join(map(str, tally.new))} "
        f"| {tally.lost} | {tally.double} | {tally.expired} |"
        for tally in tallies
    ]
    return "\n".join(lines)


def older_versions() -> list[str]:
    """Return the last release, or what stands in for it, and the last commit without the newest migration.

    Raises:
        NoHistoryError: there is no history.
    """
    return list(dict.fromkeys([last_version(), before_migrations()]))


def main() -> int:
    """Run the command."""
    try:
        tallies = play(older_versions())
    except NoHistoryError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    findings = [each for tally in tallies for each in tally.findings]
    sys.stdout.write(f"to {next(reversed(chain()))}\n\n{table(tallies)}\n")
    sys.stdout.writelines(f"{each}\n" for each in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
