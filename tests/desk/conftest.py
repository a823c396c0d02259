"""Desks for tests, over worlds as the tests of use cases have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.desk import RunningDesk
from tests.support.turns import take_turns
from tests.support.world import World
from tests.worker.conftest import new_world, sandboxes

__all__ = ["new_world", "sandboxes"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the databases take turns."""
    take_turns(items, Path(__file__).parent)


@pytest.fixture
def new_desk(new_world: Callable[..., World]) -> Iterator[Callable[..., RunningDesk]]:
    """Start desks; settings are given without their prefix."""
    running: list[RunningDesk] = []

    def start(world: World | None = None, **settings: str) -> RunningDesk:
        running.append(RunningDesk(world or new_world(), **settings))
        return running[-1]

    yield start
    for desk in running:
        desk.close()


@pytest.fixture
def desk(new_desk: Callable[..., RunningDesk]) -> RunningDesk:
    """A running desk."""
    return new_desk()
