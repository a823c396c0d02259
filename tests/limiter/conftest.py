"""Limiters that are closed with their test, and a Redis that can be killed and started again at its address."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from worker.limiter import Limiter
from worker.sandbox.broker import answers, plan_broker

ROOMY = {"per_second": 1000, "per_minute": 60_000, "per_account_minute": 40}
"""Limits that do not bind."""


class Restartable:
    """A Redis-protocol server that can be killed and started again, empty."""

    def __init__(self, folder: Path, wait_until: Callable[..., None]) -> None:
        self._plan = plan_broker(folder)
        self._wait_until = wait_until
        self._process: subprocess.Popen[bytes] | None = None
        self.url = self._plan.url
        self.start()

    def start(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(self._plan.command, stdout=subprocess.DEVNULL)
        self._wait_until(lambda: answers(self.url))

    def kill(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def restartable(wait_until: Callable[..., None]) -> Iterator[Restartable]:
    """A server of the test's own."""
    with TemporaryDirectory() as folder:
        server = Restartable(Path(folder), wait_until)
        yield server
        server.kill()


@pytest.fixture
def new_limiter() -> Iterator[Callable[..., Limiter]]:
    """Make limiters; limits that are not given do not bind."""
    made: list[Limiter] = []

    def make(url: str, **how: Any) -> Limiter:
        made.append(Limiter(url, **{**ROOMY, **how}))
        return made[-1]

    yield make
    for limiter in made:
        limiter.close()
