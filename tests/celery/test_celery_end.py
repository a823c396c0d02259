"""A process that is asked to end does so within its bound, also beside a Redis that does not answer."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from tests.support.black_hole import BlackHole
from tests.support.daemon import READY_SECONDS, Daemon, seconds_to_end
from tests.support.desk import desk_settings
from tests.support.restartable import Restartable
from tests.support.world import World
from worker.sandbox.broker import connect
from worker.sandbox.children import Child
from worker.sandbox.process import RunningSandbox
from worker.signalled import SignalFlag
from worker.telemetry import Fact

LEASE_SECONDS = 30.0
ANSWER_SECONDS = 6.0
SLACK_SECONDS = 10.0
"""What a busy machine may add."""


class Ended(BaseException):
    """Stands for the end of the process; it carries the status."""


class Ending:
    """A worker's end, without the end of this process.

    Attributes:
        facts: what was reported.
        left: how often the process closed what it opened.
        in_hand: what the worker has in hand.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from worker import consumer  # noqa: PLC0415 - only tests of the app pay for importing Celery

        self.facts: list[Fact] = []
        self.left = 0
        self.in_hand: set[Any] = set()
        self._consumer = consumer
        self.stop = threading.Event()
        services = SimpleNamespace(settings=SimpleNamespace(lease_seconds=LEASE_SECONDS), stop=self.stop)
        monkeypatch.setattr(consumer, "report", self.facts.append)
        monkeypatch.setattr(consumer, "end_work", self._leave)
        monkeypatch.setattr(consumer, "shared_services", lambda: services)
        monkeypatch.setattr("celery.worker.state.reserved_requests", self.in_hand)
        monkeypatch.setattr(os, "_exit", self._exit)
        monkeypatch.setattr(consumer, "time", self)
        self._monkeypatch = monkeypatch
        self._now = 0.0
        self.at: dict[float, Callable[[], object]] = {}

    def monotonic(self) -> float:
        """Return the time of this test."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let that time pass, and what is planned for it happen."""
        self._now += seconds
        for when in sorted(self.at):
            if when <= self._now:
                self.at.pop(when)()

    def run(self, **flags: int) -> tuple[Any, float]:
        """Return the status and the second at which the worker ended itself, with these flags of Celery."""
        for name, value in flags.items():
            self._monkeypatch.setattr(f"celery.worker.state.{name}", value)
        asked_to_end = SignalFlag()
        self._monkeypatch.setattr(self._consumer, "asked_to_end", asked_to_end)
        asked_to_end.set()
        with pytest.raises(Ended) as ended:
            self._consumer.end_in_time()
        return ended.value.args[0], self._now

    def _leave(self) -> None:
        self.left += 1

    def _exit(self, status: object) -> None:
        raise Ended(status)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Ending:
    """A worker that is asked to end and that Celery does not end."""
    return Ending(monkeypatch)


@pytest.mark.parametrize(
    ("flags", "status"),
    [({"should_stop": 0}, 0), ({"should_stop": 75}, 75), ({"should_stop": 0, "should_terminate": 1}, 1)],
)
def test_a_worker_that_celery_does_not_end_closes_all_and_ends_with_celerys_status(
    ending: Ending, flags: dict[str, int], status: int
) -> None:
    """An idle one has waited for Celery for as long as is documented, and said so in its log."""
    ended_with, at = ending.run(**flags)

    assert ended_with == status
    assert at == pytest.approx(15, abs=0.2)
    assert ending.left == 1
    assert ending.stop.is_set()
    assert [(fact.name, dict(fact.fields)) for fact in ending.facts] == [
        ("worker.goodbye_unanswered", {"waits_for": "the broker", "in_hand": 0})
    ]


def test_what_a_worker_has_in_hand_is_waited_for_and_then_celery_once_more(ending: Ending) -> None:
    """The time that Celery has begins when nothing is in hand, and begins again with each message."""
    ending.in_hand.add("a refresh")
    ending.at = {6.0: ending.in_hand.clear, 12.0: lambda: ending.in_hand.add("one more"), 13.0: ending.in_hand.clear}

    assert ending.run(should_stop=0)[1] == pytest.approx(13 + 15, abs=0.3)


def test_a_task_is_waited_for_no_longer_than_a_lease(ending: Ending) -> None:
    """Its supervisor would kill it soon afterwards."""
    ending.in_hand.add("a refresh")

    assert ending.run(should_stop=0)[1] == pytest.approx(LEASE_SECONDS + 15, abs=0.3)
    assert ending.facts[0].fields["in_hand"] == 1


def test_a_worker_that_waits_for_its_database_at_its_end_says_so(ending: Ending) -> None:
    """Celery has ended, and the process is leaving the list of living ones."""
    from worker.celery import closing  # noqa: PLC0415 - only tests of the app pay for importing Celery

    with closing:
        ending.run(should_stop=0)

    assert ending.facts[0].fields["waits_for"] == "the database"


def test_a_signal_at_any_moment_of_another_or_of_a_wait_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python runs a handler between any two steps of the thread that it interrupts, also of another handler."""
    from celery import signals  # noqa: PLC0415 - only tests of the app pay for importing Celery

    from worker import consumer  # noqa: PLC0415 - as above

    interrupted: set[str] = set()

    def ask() -> None:
        signals.worker_shutting_down.send(sender="test", sig="SIGTERM", how="Warm", exitcode=0)

    def interrupt(frame: FrameType, event: str, argument: object) -> Any:
        del argument
        frame.f_trace_opcodes = True
        if event == "opcode":
            interrupted.add(frame.f_code.co_name)
            ask()
        return interrupt

    def end(step: Callable[[], object]) -> None:
        sys.settrace(interrupt)
        step()

    for step in (ask, lambda: consumer.asked_to_end.wait(READY_SECONDS)):
        monkeypatch.setattr(consumer, "asked_to_end", SignalFlag())
        thread = threading.Thread(target=end, args=(step,), daemon=True)
        thread.start()
        thread.join(READY_SECONDS)
        assert not thread.is_alive(), f"it waits for itself in {sorted(interrupted)}"
        assert consumer.asked_to_end.is_set()
    assert {"send", "_live_receivers", "wake_end", "set", "wait"} <= interrupted


def test_two_threads_that_end_a_worker_close_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """Celery's own end may come while the process is being ended without it."""
    from worker import celery  # noqa: PLC0415 - only tests of the app pay for importing Celery

    inside, most, calls = 0, 0, 0
    may_go = threading.Event()

    def leave() -> None:
        nonlocal inside, most, calls
        inside, calls = inside + 1, calls + 1
        most = max(most, inside)
        may_go.wait(READY_SECONDS)

    def close() -> None:
        nonlocal inside
        inside -= 1

    services = SimpleNamespace(presence=SimpleNamespace(leave=leave), close=close)
    monkeypatch.setattr(celery, "shared_services", lambda: services)
    monkeypatch.setattr(celery, "end_remote", lambda: None)
    threads = [threading.Thread(target=celery.end_work) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: inside > 0)
    threads[1].join(0.2)  # the other one would be inside by then
    may_go.set()
    for thread in threads:
        thread.join(READY_SECONDS)

    assert (most, calls, inside) == (1, 2, 0)


def test_a_process_that_is_asked_to_end_publishes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send to a broker that stands still takes most of a minute; the next scan finds the rows."""
    from worker import celery  # noqa: PLC0415 - only tests of the app pay for importing Celery

    sent: list[object] = []
    task = SimpleNamespace(name="tasks.pull.pull_accounts", apply_async=lambda *given, **_: sent.append(given))
    services = SimpleNamespace(stop=threading.Event())
    monkeypatch.setattr(celery, "shared_services", lambda: services)

    assert celery.publish(task, [1])
    services.stop.set()
    assert not celery.publish(task, [2])
    assert len(sent) == 1


@dataclass(frozen=True)
class Standing:
    """A Redis that can fall silent with all its connections open.

    Attributes:
        url: its address, for what is tested.
        own: the same behind whatever falls silent.
        pause: lets it fall silent, for new connections too.
        resume: ends that, if it can be ended.
    """

    url: str
    own: str
    pause: Callable[[], None]
    resume: Callable[[], None]


@pytest.fixture
def standing(request: pytest.FixtureRequest, redis_url: str, wait_until: Callable[..., None]) -> Iterator[Standing]:
    """A Redis of the test's own that freezes, or one behind a way that becomes half-open."""
    if getattr(request, "param", "frozen") == "half-open":
        with BlackHole(int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])) as hole:
            yield Standing(f"redis://127.0.0.1:{hole.port}/0", redis_url, hole.stand, lambda: None)
        return
    with TemporaryDirectory() as folder:
        server = Restartable(Path(folder), wait_until)
        yield Standing(server.url, server.url, server.pause, server.resume)
        server.kill()


@pytest.mark.slow_suite
@pytest.mark.timeout(240)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("pool", "busy", "standing"),
    [
        ("threads", True, "frozen"),
        ("threads", True, "half-open"),
        pytest.param("threads", False, "frozen", marks=pytest.mark.night),
        pytest.param("threads", False, "half-open", marks=pytest.mark.night),
        pytest.param("solo", False, "frozen", marks=pytest.mark.night),
        pytest.param("prefork", False, "frozen", marks=pytest.mark.night),
        pytest.param("prefork", True, "frozen", marks=pytest.mark.night),
        pytest.param("prefork", True, "half-open", marks=pytest.mark.night),
    ],
    indirect=["standing"],
)
def test_a_worker_beside_a_redis_that_stands_still_stores_what_it_has_and_ends(  # noqa: PLR0917 - fixtures
    pool: str,
    busy: bool,
    new_daemon: Callable[..., Daemon],
    sandbox: RunningSandbox,
    standing: Standing,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """With the status 0; its row is gone, no process is left, and a message that it held for later is still there."""
    from worker.consumer import CLOSING_SECONDS, GOODBYE_SECONDS  # noqa: PLC0415 - as above

    daemon = new_daemon(REDIS_URL=standing.url, SCAN_SECONDS="300", UPKEEP_SECONDS="300", STORE_SECONDS="5")
    worker = daemon.worker("worker", "-P", pool)
    daemon.wait_ready(wait_until, worker)
    world = World(sandbox, daemon.environ)
    try:
        grant = world.creator()
        assert daemon.run("call", "tasks.notify.deliver", "--countdown", "500").returncode == 0
        with connect(standing.own) as client:
            wait_until(lambda: client.keys("*unacked"), READY_SECONDS)
            held = client.hlen("evertoken:unacked")
        if busy:
            sandbox.fault("slow", creator=grant.creator_id, call="refresh", seconds=ANSWER_SECONDS, times=1)
            assert daemon.run("call", "tasks.refresh.scan_due").returncode == 0
            wait_until(lambda: world.look(grant).generation > 1, READY_SECONDS)
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(encoding="utf-8").split()
        standing.pause()
        lasts = GOODBYE_SECONDS + CLOSING_SECONDS + SLACK_SECONDS + busy * ANSWER_SECONDS
        seconds_to_end(worker, lasts if pool != "prefork" or not busy else lasts + LEASE_SECONDS)
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), READY_SECONDS)
        standing.resume()
        with connect(standing.own) as client:
            assert client.hlen("evertoken:unacked") == held > 0
        assert not busy or world.look(grant).pair_generation > 1
        assert world.services.store.workers_seen(3600) == []
        assert world.services.journal.load()[0] == 0
    finally:
        standing.resume()
        world.close()

    log = worker.log.read_text()
    assert worker.status == 0, log
    assert log.count('"event": "worker.goodbye_unanswered"') == 1


def has_a_socket(child: Child) -> bool:
    """Return True once a process is connected to something."""
    assert child.status is None, child.tail()
    files = [os.readlink(file) for file in Path(f"/proc/{child.pid}/fd").iterdir() if file.is_symlink()]  # noqa: PTH115
    return any(file.startswith("socket:") for file in files)


@pytest.mark.slow_suite
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("standing", ["frozen", "half-open"], indirect=True)
@pytest.mark.parametrize(("process", "most"), [("beat", 15), ("exporter", 30), ("desk", 60), ("doctor", 5)])
def test_other_processes_end_within_their_bounds_beside_a_redis_that_stands_still(  # noqa: PLR0917 - fixtures
    process: str,
    most: float,
    new_daemon: Callable[..., Daemon],
    standing: Standing,
    free_ports: Callable[[], int],
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """Units, compose and chart give them no more time before they are killed."""
    daemon = new_daemon(REDIS_URL=standing.url, EXPORTER_PORT=str(free_ports()), **desk_settings(free_ports()))
    if process == "doctor":
        standing.pause()
        daemon._warm = False  # a fork would have the sockets of its server for a moment
        child = daemon._start("doctor", "doctor")
        wait_until(lambda: has_a_socket(child), READY_SECONDS)
    else:
        arguments = {"beat": ["--max-interval", "1"], "exporter": ["--every", "1"], "desk": []}[process]
        child = daemon._start(process, process, *arguments)
        wait_until(Path(daemon.environ["EVERTOKEN_RUN_DIR"], process).exists, READY_SECONDS)
        standing.pause()
    try:
        seconds_to_end(child, most)
    finally:
        standing.resume()

    assert child.status == (-15 if process == "doctor" else 0), child.tail()
