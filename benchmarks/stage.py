"""What every contender runs on: servers on their core, the stand-in for TikTok, and how workers are started."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import trustme
from redis import Redis

from benchmarks import machine
from tests.conftest import start_postgres, start_redis
from tests.support.daemon import plain_environ
from worker.sandbox.children import Child, Children

PROJECT: Final = Path(__file__).resolve().parents[1]
READY_SECONDS: Final = 60.0
RUN_SECONDS: Final = 600.0
STOP_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.01


class StandIn:
    """The stand-in for TikTok, seen from the benchmark."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports

    def url(self, *, tls: bool) -> str:
        """Return the address of its API."""
        return f"https://127.0.0.1:{self._ports['tls']}/open_api" if tls else f"{self._plain}/open_api"

    def counts(self) -> dict[str, float]:
        """Return what it saw so far."""
        return self._control("")

    def set_latency(self, seconds: float) -> None:
        """Set how many seconds each answer takes from now on."""
        self._control(f"?latency={seconds}")

    @property
    def _plain(self) -> str:
        return f"http://127.0.0.1:{self._ports['plain']}"

    def _control(self, query: str) -> dict[str, float]:
        with urllib.request.urlopen(f"{self._plain}/control{query}", timeout=10) as answer:  # noqa: S310 - loopback
            counts: dict[str, float] = json.load(answer)
            return counts


class Stage:
    """Servers, certificates and child processes of one benchmark.

    Attributes:
        folder: all files of the run; removed at its end.
        redis: address of the Redis-protocol server.
        postgres: address of a PostgreSQL that syncs its commits.
        standin: the stand-in for TikTok.
        authority: PEM file of the authority that signed the stand-in's certificate.
        worker_cores: where workers run.
        server_cores: where everything else runs.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        """Start the servers; the stack ends them."""
        self.folder = folder
        self.worker_cores, self.server_cores = machine.split_cores()
        stack.enter_context(machine.pinned(self.server_cores))
        self.redis = stack.enter_context(start_redis()).url
        self.postgres = stack.enter_context(start_postgres()).url
        self._children = Children(folder / "logs")
        stack.callback(self._children.close, seconds=STOP_SECONDS)
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        certificate = folder / "certificate.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        ports = folder / "ports"
        command = [sys.executable, "-m", "benchmarks.standin", "--ports", str(ports), "--certificate", str(certificate)]
        standin = self._children.start("stand-in", command, environ=plain_environ(), folder=folder)
        wait_for(ports.exists, standin, seconds=READY_SECONDS)
        self.standin = StandIn(json.loads(ports.read_text(encoding="utf-8")))

    def flush(self) -> None:
        """Empty Redis."""
        with Redis.from_url(self.redis) as client:
            client.flushall()

    @contextmanager
    def running(
        self, name: str, commands: list[list[str]], environ: Mapping[str, str], *, ready: bytes = b" ready."
    ) -> Iterator[list[Child]]:
        """Run workers on their cores, from the moment they are ready until they have ended."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        with machine.pinned(self.worker_cores):
            workers = [
                self._children.start(f"{name}-{number}-{time.monotonic_ns()}", command, environ=environ, folder=folder)
                for number, command in enumerate(commands)
            ]
        try:
            for worker in workers:
                wait_for(lambda worker=worker: ready in worker.log.read_bytes(), worker, seconds=READY_SECONDS)  # type: ignore[misc]  # mypy infers no type for a lambda with a default
            yield workers
        finally:
            killed = self._children.stop(*workers, seconds=STOP_SECONDS)
        assert not killed, "\n".join(worker.tail() for worker in killed)


def wait_for(ready: Callable[[], bool], *children: Child, seconds: float = RUN_SECONDS) -> None:
    """Wait until `ready` returns True, while the children live.

    Raises:
        AssertionError: a child ended, or the time is up; with the end of the children's logs.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        assert not any(child.died for child in children), "\n".join(child.tail() for child in children)
        assert time.monotonic() < deadline, "\n".join(child.tail() for child in children)
        time.sleep(LOOK_SECONDS)
