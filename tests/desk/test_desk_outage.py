"""Reads of tokens while Redis, TikTok and the workers are taken away one after the other; all are real processes."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ServerProcess, find_free_port
from tests.support.daemon import Daemon, daemon_settings
from tests.support.desk import EVERYONE, Neighbour, desk_settings
from tests.support.world import World
from tests.worker.test_reader import near_its_end, plan_later, reader_environ
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.tokens import open_reader
from worker.tokens.consumers import add_consumer
from worker.vault import Keyring

READS: Final = 150
"""Reads in each state, over HTTP and as many over the library."""
LATEST_SECONDS: Final = 2.0
"""One read in a hundred may take as long; a call to a Redis or a TikTok that hangs would take longer."""
WAIT_SECONDS: Final = 2


class Load:
    """Threads that read the tokens of some creators without a pause, over HTTP and over the library.

    Attributes:
        failures: what was answered in place of a token.
    """

    def __init__(self, port: int, key: str, environ: dict[str, str], creators: list[str]) -> None:
        self._port, self._key, self._environ, self._creators = port, key, environ, creators
        self._stop = threading.Event()
        self._seconds: dict[str, list[float]] = {"http": [], "library": []}
        self.failures: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read until the end of the block."""
        threads = [threading.Thread(target=each) for each in (self._over_http, self._over_http, self._over_library)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def lateness(self, wait_until: Callable[..., None]) -> dict[str, float]:
        """Wait for enough reads of each kind that begin now; return the time that one in a hundred of them exceeds."""
        for seconds in self._seconds.values():
            seconds.clear()
        wait_until(lambda: self.failures or min(map(len, self._seconds.values())) >= READS, 90)
        assert self.failures == []
        return {way: sorted(seconds)[int(len(seconds) * 0.99)] for way, seconds in self._seconds.items()}

    def _over_http(self) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:

            def read(creator_id: str) -> None:
                path = f"/v1/creators/{creator_id}/token?min_validity=60"
                connection.request("GET", path, headers={"Authorization": f"Bearer {self._key}"})
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, body
                assert json.loads(body)["creator_id"] == creator_id

            self._read("http", read)

    def _over_library(self) -> None:
        with closing(open_reader(self._environ)) as reader:
            self._read("library", lambda creator_id: reader.serve(creator_id, min_validity=60))

    def _read(self, way: str, read: Callable[[str], object]) -> None:
        while not self._stop.is_set() and not self.failures:
            for creator_id in self._creators:
                began = time.monotonic()
                try:
                    read(creator_id)
                except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                    self.failures.append(f"{way}: {error!r}")
                    return
                self._seconds[way].append(time.monotonic() - began)


@pytest.mark.slow_suite
@pytest.mark.timeout(500)
@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"], indirect=True)
def test_reads_go_on_while_redis_tiktok_and_the_workers_are_taken_away(
    store_url: str,
    new_redis: Callable[..., ServerProcess],
    keyring: Keyring,
    tmp_path: Path,
    wait_until: Callable[..., None],
) -> None:
    """Frozen or killed, no read of a valid token fails or waits for them; who asks for more is told in time."""
    redis_server, port = new_redis(), find_free_port()
    with ExitStack() as stack:
        sandbox = stack.enter_context(start_sandbox(SandboxOptions(ledger_all=False)))
        usual = {"DATABASE_URL": store_url, "REDIS_URL": redis_server.url, "KEYRING": keyring.to_json()}
        settings = daemon_settings(sandbox, tmp_path, **usual, **desk_settings(port))
        world = World(sandbox, settings)
        stack.callback(world.close)
        grants = world.creators(4)
        for grant in grants:
            plan_later(world, grant)
        _, key = add_consumer(world.services.store, "shop", EVERYONE)
        daemon = stack.enter_context(Daemon(tmp_path, settings, warm=True))
        worker, beat, desk = daemon.worker(), daemon.beat(), daemon._start("desk", "desk")
        daemon.wait_ready(wait_until, worker, beat)
        wait_until(lambda: b"desk.started" in desk.log.read_bytes(), 90)
        load = Load(port, key.reveal(), reader_environ(world, keyring), [each.creator_id for each in grants])
        steps: dict[str, Callable[[], None]] = {
            "all up": lambda: None,
            "redis frozen": lambda: os.kill(redis_server.pid, signal.SIGSTOP),
            "tiktok frozen": lambda: os.kill(sandbox.pid, signal.SIGSTOP),
            "redis killed": lambda: os.kill(redis_server.pid, signal.SIGKILL),
            "tiktok killed": lambda: os.kill(sandbox.pid, signal.SIGKILL),
            "worker killed": lambda: os.kill(worker.pid, signal.SIGKILL),
            "beat killed": lambda: os.kill(beat.pid, signal.SIGKILL),
        }
        late: dict[str, dict[str, float]] = {}
        with load.running():
            for name, take_away in steps.items():
                take_away()
                late[name] = load.lateness(wait_until)
            assert {name: each for name, each in late.items() if max(each.values()) > LATEST_SECONDS} == {}
            near_its_end(world, grants[0])
            early = Neighbour(f"http://127.0.0.1:{port}", key.reveal()).token(
                grants[0].creator_id, min_validity=300, wait=WAIT_SECONDS
            )
        daemon.stop(desk)

    assert load.failures == []
    assert (early.status_code, early.json()["type"]) == (503, "urn:evertoken:problem:not-yet")
    assert int(early.headers["Retry-After"]) >= 1
    assert WAIT_SECONDS - 1 < early.elapsed.total_seconds() < WAIT_SECONDS + LATEST_SECONDS
