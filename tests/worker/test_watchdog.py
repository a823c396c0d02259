"""The watch over a process: what it feeds, shows and ends."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry

import worker.watchdog
from tests.support.systemd import FED, Systemd
from worker.telemetry import Fact
from worker.telemetry.serving import serve
from worker.watchdog import Watchdog, feed

HANGS = Fact("worker.hangs", {"limit_seconds": 1.0}, level="error")


class Watched:
    """A process under watch, as far as the watch sees it."""

    def __init__(self) -> None:
        self.busy = False
        self.able = True
        self.asked = self.alive = self.ended = 0

    def begin(self, watchdog: Watchdog, seconds: float) -> None:
        """Have it watched and judged."""

        def could_work(busy: bool) -> bool:
            self.asked += 1
            return self.able and not busy

        def alive() -> None:
            self.alive += 1

        def end() -> None:
            self.ended += 1

        watchdog.begin(seconds)
        watchdog.judge(HANGS, busy=lambda: self.busy, could_work=could_work, alive=alive, end=end)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Fact]:
    """The facts that the watch reports."""
    facts: list[Fact] = []
    monkeypatch.setattr(worker.watchdog, "report", facts.append)
    worker.watchdog._unfed.clear()  # as a new process begins
    return facts


@pytest.fixture
def systemd(systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Systemd's socket, which this process is told to feed."""
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.address)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    systemd.socket.settimeout(10)
    return systemd.socket


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    """A watch of the test's own."""
    watch = Watchdog()
    yield watch
    watch.stop()


def drain(listening: socket.socket) -> None:
    """Read all that was fed, until nothing comes for the time that the socket waits."""
    while True:
        assert listening.recv(99) == FED


def judged(watchdog: Watchdog, seconds: float = 1.0) -> Watched:
    """Have a process watched."""
    watched = Watched()
    watched.begin(watchdog, seconds)
    return watched


def test_a_process_that_hangs_is_red_starves_systemd_and_ends_once(
    watchdog: Watchdog, systemd: socket.socket, reported: list[Fact], wait_until: Callable[..., None]
) -> None:
    """Until then it is fed; from then on `/healthz` is 503, no file is touched and nothing is fed."""
    watched = judged(watchdog)
    assert systemd.recv(99) == FED
    wait_until(lambda: watched.ended)
    systemd.settimeout(0.3)  # seven looks
    with pytest.raises(TimeoutError):  # what was fed before is read, and no more comes
        drain(systemd)

    assert not watchdog.well()
    assert watched.alive > 1
    assert watched.ended == 1
    assert reported == [HANGS]


def test_a_process_that_waits_for_redis_is_well_for_ever(
    watchdog: Watchdog, systemd: socket.socket, reported: list[Fact], wait_until: Callable[..., None]
) -> None:
    """For many times the limit, while it does nothing at all."""
    watched = Watched()
    watched.able = False
    watched.begin(watchdog, 0.2)
    wait_until(lambda: watched.alive > 100)

    assert watchdog.well()
    assert systemd.recv(99) == FED
    assert (watched.ended, reported) == (0, [])


def test_a_process_that_moves_asks_nobody(watchdog: Watchdog, wait_until: Callable[..., None]) -> None:
    """While it works, the watch sends nothing to Redis."""
    watched = Watched()

    def moving() -> bool:
        watchdog.moved()
        return watched.alive > 20

    watched.begin(watchdog, 0.5)
    watchdog.moved()
    assert math.isfinite(watchdog.silent_seconds())
    asked = watched.asked
    wait_until(moving)

    assert watched.asked - asked <= 2
    assert watched.ended == 0


def test_a_start_that_takes_long_is_fed_and_not_judged(
    watchdog: Watchdog, systemd: socket.socket, reported: list[Fact]
) -> None:
    """A journal with much in it is replayed before the first message is taken."""
    watchdog.begin(0.2)

    assert [systemd.recv(99) for _ in range(60)] == [FED] * 60  # two and a half times the limit
    assert watchdog.well()
    assert math.isnan(watchdog.silent_seconds())
    assert reported == []


def test_the_children_of_a_worker_know_whether_it_is_well(
    watchdog: Watchdog, reported: list[Fact], wait_until: Callable[..., None]
) -> None:
    """With the pool of processes, a child serves `/healthz` for the worker whose loop hangs."""
    watchdog.begin(1.0)
    reading, writing = os.pipe()
    go_on, go = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(go_on, 1)
        os.write(writing, b"well" if watchdog.well() else b"hangs")
        os._exit(0)
    watched = Watched()
    watchdog.judge(HANGS, busy=lambda: False, could_work=lambda _: True, alive=lambda: None, end=lambda: None)
    wait_until(lambda: not watchdog.well())
    os.write(go, b"1")
    answer = os.read(reading, 9)
    os.waitpid(child, 0)
    for end in (reading, writing, go_on, go):
        os.close(end)

    assert answer == b"hangs"
    assert watched.ended == 0


def test_another_process_than_the_watched_one_feeds_nothing(
    monkeypatch: pytest.MonkeyPatch, systemd: socket.socket
) -> None:
    """A beat inside a worker must not feed for a worker that hangs."""
    monkeypatch.setenv("WATCHDOG_PID", "1")
    feed()
    systemd.setblocking(False)

    with pytest.raises(BlockingIOError):
        systemd.recv(99)


def test_systemds_socket_may_be_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An address without @ is a path."""
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        feed()

        assert listening.recv(99) == FED


def test_without_systemd_feeding_does_nothing(monkeypatch: pytest.MonkeyPatch, reported: list[Fact]) -> None:
    """Nor does it log anything."""
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", "")

    feed()

    assert reported == []


@pytest.mark.parametrize("address", ["/no/such/socket", "@nobody-listens-there", "/dev/null", "/" + "x" * 200])
def test_a_socket_that_leads_nowhere_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, systemd: socket.socket, reported: list[Fact], address: str
) -> None:
    """Not one for each datagram; after systemd was reached again the next failure is another."""
    reached = os.environ["NOTIFY_SOCKET"]
    for tried in (address, address, reached, address):
        monkeypatch.setenv("NOTIFY_SOCKET", tried)
        feed()

    assert systemd.recv(99) == FED
    assert [(fact.name, fact.level, fact.fields["socket"]) for fact in reported] == [
        ("watchdog.unfed", "warning", address)
    ] * 2
    assert all(fact.fields["reason"] for fact in reported)


def test_healthz_says_whether_the_worker_is_well_and_metrics_stay_beside_it() -> None:
    """200 or 503 for a probe; a page that is scraped says the same in both cases."""
    well = True
    port = serve(0, "127.0.0.1", CollectorRegistry(), alive=lambda: well, report=print)

    with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b"alive\n")
    well = False
    with pytest.raises(HTTPError) as refused:
        urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
    refused.value.close()
    assert refused.value.code == 503
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.status == 200
