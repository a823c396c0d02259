"""Scenes for the fault tests: one nursery and one sandbox for each test process, everything else fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.scene import CANARY, Scene, settings_of
from tests.faults.workers import Nursery
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.vault import Keyring

NewScene = Callable[..., Scene]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Hatches worker processes."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def stand_in() -> Iterator[RunningSandbox]:
    """TikTok's stand-in; `scene` sets it back for each test."""
    with start_sandbox(SandboxOptions(canary=CANARY, grace_seconds=60)) as sandbox:
        yield sandbox


@pytest.fixture
def new_scene(
    *, stand_in: RunningSandbox, nursery: Nursery, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path
) -> Iterator[NewScene]:
    """Make scenes over this test's database; `rotation` and other sandbox options, and `redis_url`, may differ."""
    scenes: list[Scene] = []

    def make(rotation: str = "strict", *, redis_url: str = redis_url, database_url: str = store_url) -> Scene:
        stand_in.heal()
        stand_in.control("app", {"blocked": False, "secret": "sandbox-secret", "next_secret": None})
        stand_in.change(rotation=rotation, grace_answer="same", reuse_revokes=False, reconsent="kills", latency=0.0)
        environ = settings_of(
            stand_in, database_url=database_url, redis_url=redis_url, keyring=keyring, folder=tmp_path
        )
        scenes.append(Scene(stand_in, nursery, environ, tmp_path))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(new_scene: NewScene) -> Scene:
    """A scene under strict rotation."""
    return new_scene()
