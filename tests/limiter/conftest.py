"""Limiters that are closed with their test, and a Redis that can be killed and started again at its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import APP_ID
from tests.support.restartable import Restartable
from worker.limiter import Limiter

ROOMY = {"app_id": APP_ID, "per_second": 1000, "per_minute": 60_000, "per_account_minute": 40}
"""Limits that do not bind."""


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
