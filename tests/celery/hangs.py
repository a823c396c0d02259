"""Workers and beats that stop consuming over troubles of Redis are found and end; sound ones beside them live on.

`python -m tests.celery.hangs --times N` plays each trouble N times, all four side by side, prints the table of
docs/long-runs.md and exits 1 on a finding. The limit of two minutes is shortened to `HANG_SECONDS`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import redis

from tests.conftest import find_free_port, start_redis
from tests.faults.lane import migrate
from tests.support.black_hole import BlackHole
from tests.support.daemon import READY_SECONDS, Daemon, daemon_settings
from tests.support.hanging import (
    BEAT,
    BEAT_FAILS,
    BEAT_STANDS,
    FOR_EVER,
    FORGETS,
    QUICK,
    STANDS,
    WORKER,
    ask,
    silent,
    start,
)
from tests.support.restartable import Restartable
from tests.support.sentinels import Watched
from tests.support.small_accounts import small_sandbox
from tests.support.systemd import Systemd
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring
from worker.watchdog import STATUS

HANG_SECONDS: Final = 10.0
"""`EVERTOKEN_HANG_SECONDS` of these processes, 120 s by default; their connections' timeouts are shortened alike."""
AWAY_SECONDS: Final = HANG_SECONDS * 1.2
FOUND_SECONDS: Final = HANG_SECONDS * 4
END_SECONDS: Final = 150.0
"""Longer than a lease."""
SOUND_WORKER: Final = WORKER.replace("refresh,pull,default", "pull").replace("worker@test", "sound@test")


def wait(condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "what was waited for did not come"
        time.sleep(0.02)


@dataclass(frozen=True)
class Trouble:
    """A Redis that a trouble may befall.

    Attributes:
        url: its address.
        befall: lets the trouble come, and returns when Redis serves new clients again.
        natural: True if the trouble itself makes processes hang whose connections have no timeout.
        answer_seconds: how long TikTok takes for the answer that the worker waits for when it begins to hang.
        lease_seconds: how long a hung worker waits for its tasks; one that waits for ever for a connection without a
            timeout takes that long.
    """

    url: str
    befall: Callable[[], None]
    natural: bool = False
    answer_seconds: float = 35.0
    lease_seconds: float = 90.0


@contextmanager
def paused(folder: Path) -> Iterator[Trouble]:
    """Redis stands still with its connections open, for longer than the limit."""
    server = Restartable(folder, wait)

    def befall() -> None:
        server.pause()
        time.sleep(AWAY_SECONDS)
        server.resume()

    try:
        yield Trouble(server.url, befall)
    finally:
        server.kill()


@contextmanager
def restarted(folder: Path) -> Iterator[Trouble]:
    """Redis is killed, is gone for longer than the limit, and starts again, empty."""
    server = Restartable(folder, wait)

    def befall() -> None:
        server.kill()
        time.sleep(AWAY_SECONDS)
        server.start()

    try:
        yield Trouble(server.url, befall)
    finally:
        server.kill()


@contextmanager
def failed_over(folder: Path) -> Iterator[Trouble]:
    """The master dies, and three Sentinels make the replica the master."""
    del folder
    with Watched() as servers:
        wait(servers.settled)

        def is_master() -> bool:
            with servers.client(servers.servers[1]) as client, suppress(redis.RedisError):
                return bool(client.info("replication")["role"] == "master")
            return False

        def befall() -> None:
            servers.servers[0].process.kill()
            wait(is_master)

        yield Trouble(servers.url, befall)


@contextmanager
def half_open(folder: Path) -> Iterator[Trouble]:
    """A firewall forgets the open connections: nothing passes through them, and new ones work."""
    del folder
    with start_redis() as server, BlackHole(urlsplit(server.url).port or 0) as hole:
        url = f"redis://127.0.0.1:{hole.port}/0"
        yield Trouble(url, hole.swallow, natural=True, answer_seconds=20, lease_seconds=60)


TROUBLES: Final[dict[str, Callable[[Path], AbstractContextManager[Trouble]]]] = {
    "paused": paused,
    "restarted": restarted,
    "failed over": failed_over,
    "half open": half_open,
}


@dataclass
class Tally:
    """What came of one trouble.

    Attributes:
        workers: workers that hung and did all that is promised.
        beats: beats that did.
        slowest: seconds from the time at which Redis served again to the red `/healthz`.
        stored: pairs that a worker stored after it was found.
        restarted: sound processes that ended, which none may.
    """

    times: int = 0
    workers: int = 0
    beats: int = 0
    slowest: float = 0.0
    stored: int = 0
    restarted: int = 0
    findings: list[str] = field(default_factory=list)


class Round:
    """One trouble, once: a worker and a beat that hang over it beside a sound worker and a sound beat."""

    def __init__(self, trouble: Trouble, number: int, folder: Path, sandbox: RunningSandbox, stack: ExitStack) -> None:
        """Start all four and give the worker that will hang a refresh whose answer comes late."""
        self._trouble = trouble
        url = f"sqlite:///{folder / 'evertoken.db'}"
        migrate(url)
        usual = {
            "DATABASE_URL": url, "REDIS_URL": trouble.url, "KEYRING": Keyring.new().to_json(), "SCAN_SECONDS": "1",
            "HANG_SECONDS": f"{HANG_SECONDS:g}", "DEADLINE_SECONDS": f"{trouble.answer_seconds + 5:g}",
            "LEASE_SECONDS": f"{trouble.lease_seconds:g}",
        }  # fmt: skip
        self.ports = [find_free_port(), find_free_port()]
        self.watchdogs = [stack.enter_context(_systemd()) for _ in range(4)]
        self.folder = folder / "hung"
        daemons = []
        for name, port in zip(("sound", "hung"), self.ports, strict=True):
            here = folder / name
            here.mkdir()
            settings = daemon_settings(sandbox, here, **usual, METRICS_PORT=str(port))
            daemons.append(stack.enter_context(Daemon(here, settings, warm=True)))
        self.world = World(sandbox, daemons[0].environ)
        stack.callback(self.world.close)
        self.grant = self.world.creator()
        self.world.sql("UPDATE grants SET next_refresh_at = next_refresh_at + 3600000")  # not before all are ready
        sandbox.fault("slow", creator=self.grant.creator_id, call="refresh", seconds=trouble.answer_seconds, times=1)
        odd = number % 2 == 1
        change, beat_change = (FORGETS if odd else STANDS), (BEAT_STANDS if odd else BEAT_FAILS)
        options = QUICK
        if trouble.natural:
            options, change, beat_change = FOR_EVER, "", ""
        children = []
        for daemon, arguments, how, fault, systemd in (
            (daemons[0], SOUND_WORKER, QUICK, "", self.watchdogs[0]),
            (daemons[0], BEAT, QUICK, "", self.watchdogs[1]),
            (daemons[1], WORKER, options, change, self.watchdogs[2]),
            (daemons[1], BEAT, options, beat_change, self.watchdogs[3]),
        ):
            daemon.environ["NOTIFY_SOCKET"] = systemd.address
            children.append(start(daemon, arguments.split()[0], arguments, how, fault))
        self.sound, (self.worker, self.beat) = children[:2], children[2:]
        for daemon, pair in ((daemons[0], self.sound), (daemons[1], (self.worker, self.beat))):
            daemon.wait_ready(_patient, *pair)
        self.world.make_due(self.grant)
        wait(lambda: self.world.look(self.grant).generation > 1)
        wait(lambda: all(silent(port) >= 0 and ask(port, "/healthz")[0] == 200 for port in self.ports))

    def play(self, tally: Tally, says: str) -> None:
        """Let the trouble come, and add what the four processes did."""
        tally.times += 1
        fed = [systemd.fed(READY_SECONDS) for systemd in self.watchdogs]
        away = threading.Event()
        looks: list[str] = []
        looker = threading.Thread(target=self._look, args=(away, looks))
        looker.start()
        (self.folder / "hang").touch()
        self._trouble.befall()
        served = time.monotonic()
        red = _comes(lambda: ask(self.ports[1], "/healthz")[0] == 503, FOUND_SECONDS)
        tally.slowest = max(tally.slowest, time.monotonic() - served)
        starved = _starves(self.watchdogs[2])
        late = self.world.look(self.grant).pair_generation == 1
        worker_ended = _comes(lambda: self.worker.status is not None, END_SECONDS)
        beat_ended = _comes(lambda: self.beat.status is not None, FOUND_SECONDS)
        stored = self.world.look(self.grant).pair_generation > 1
        heard = _comes(lambda: 0 <= silent(self.ports[0]) < 1.5, READY_SECONDS)
        away.set()
        looker.join()
        restarted = sum(child.status is not None for child in self.sound)
        log = self.worker.log.read_text(encoding="utf-8")
        beat_log = self.beat.log.read_text(encoding="utf-8")
        of_worker = {
            "was fed before": fed[2],
            "/healthz turned red": red,
            "systemd's watchdog was starved": starved,
            "the answer was still to come": late,
            "ended by itself": worker_ended,
            f"with the status {STATUS}": self.worker.status == STATUS,
            "said so once": log.count('"event": "worker.hangs"') == 1,
            "stored what it had in hand": stored,
        }
        of_beat = {
            "was fed before": fed[3],
            "ended by itself": beat_ended,
            f"with the status {STATUS}": self.beat.status == STATUS,
            "said so once": beat_log.count('"event": "beat.hangs"') == 1,
        }
        of_sound = {
            "lived on": restarted == 0,
            "were well all along": not looks,
            "were fed before and after": fed[0] and fed[1] and all(_fed_now(each) for each in self.watchdogs[:2]),
            "the worker hears Redis again": heard,
            "reported no hang": all(".hangs" not in child.log.read_text(encoding="utf-8") for child in self.sound),
        }
        tally.workers += all(of_worker.values())
        tally.beats += all(of_beat.values())
        tally.stored += stored and late
        tally.restarted += restarted
        for who, checks, child in (
            ("hung worker", of_worker, self.worker),
            ("hung beat", of_beat, self.beat),
            ("sound processes", of_sound, self.sound[0]),
        ):
            failed = [check for check, good in checks.items() if not good]
            if failed:
                tally.findings.append(f"{says}, {who}: not true: {'; '.join(failed)} {looks[:3]}\n{child.tail()}")

    def _look(self, over: threading.Event, seen: list[str]) -> None:
        """Look at the sound worker all the time; a page that is not good is written down."""
        while not over.wait(0.2):
            status = ask(self.ports[0], "/healthz")[0]
            if status != 200:
                seen.append(f"/healthz of the sound worker answered {status}")


def _patient(condition: Callable[[], object], seconds: float) -> None:
    wait(condition, 2 * seconds)


@contextmanager
def _systemd() -> Iterator[Systemd]:
    listening = Systemd()
    try:
        yield listening
    finally:
        listening.close()


def _comes(condition: Callable[[], object], seconds: float) -> bool:
    try:
        wait(condition, seconds)
    except AssertionError:
        return False
    return True


def _fed_now(systemd: Systemd) -> bool:
    """Return whether food comes, apart from what has piled up."""
    while systemd.fed(0.001):
        pass
    return systemd.fed(READY_SECONDS)


def _starves(systemd: Systemd) -> bool:
    """Return whether no food comes for a while, apart from what has piled up."""
    while systemd.fed(0.001):
        pass
    return not systemd.fed(HANG_SECONDS / 4)


def play(troubles: Sequence[str], times: int) -> dict[str, Tally]:
    """Play troubles so many times each, side by side; return what came of each."""
    tallies = {name: Tally() for name in troubles}
    with (
        tempfile.TemporaryDirectory(prefix="evertoken-hangs-") as folder,
        small_sandbox(SandboxOptions(rotation="strict")) as sandbox,
    ):

        def follow(name: str) -> None:
            for number in range(times):
                here = Path(folder, f"{name}-{number}")
                here.mkdir()
                says = f"{name}, round {number + 1}"
                try:
                    with TROUBLES[name](here) as trouble, ExitStack() as stack:
                        Round(trouble, number, here, sandbox, stack).play(tallies[name], says)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    tallies[name].findings.append(f"{says}: {type(error).__name__}: {error}")

        threads = [threading.Thread(target=follow, args=(name,)) for name in troubles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Return the table."""
    titles = ("Redis was", "times", "workers found", "beats found", "slowest", "stored after that", "sound ones ended")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    rows = [
        (name, tally.times, tally.workers, tally.beats, tally.slowest, tally.stored, tally.restarted)
        for name, tally in tallies.items()
    ]
    total = [sum(row[column] for row in rows) for column in (1, 2, 3, 5, 6)]  # type: ignore[misc]  # figures
    rows.append(("**all**", *total[:3], max(row[4] for row in rows), *total[3:]))  # type: ignore[arg-type]  # as above
    lines += [
        f"| {name} | {times} | {workers} | {beats} | {slowest:.1f} s | {stored} | {ended} |"
        for name, times, workers, beats, slowest, stored, ended in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="how often each trouble is played")
    parser.add_argument("troubles", nargs="*", choices=[[], *TROUBLES], help="which; all if none is named")
    chosen = parser.parse_args()
    tallies = play(tuple(chosen.troubles or TROUBLES), chosen.times)
    findings = [each for tally in tallies.values() for each in tally.findings]
    sys.stdout.write(f"{table(tallies)}\n")
    sys.stdout.writelines(f"{each}\n" for each in findings)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
