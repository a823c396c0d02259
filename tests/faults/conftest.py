"""Scenes for the fault tests: one nursery and one sandbox for each test process, everything else fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.scene import CANARY, Scene, settings_of
from tests.faults.workers import Nursery
from tests.support.certificates import new_authority, server_context
from tests.support.small_accounts import small_sandbox
from tests.support.tls_front import TlsFront
from tests.support.turns import take_turns
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring

NewScene = Callable[..., Scene]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the databases take turns."""
    take_turns(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Hatches worker processes."""
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="session")
def stand_in() -> Iterator[RunningSandbox]:
    """TikTok's stand-in; `scene` sets it back for each test."""
    with small_sandbox(SandboxOptions(canary=CANARY, grace_seconds=60)) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def tls_settings(stand_in: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Settings of workers that speak TLS to the stand-in."""
    folder = tmp_path_factory.mktemp("authority")
    authority = new_authority(folder)
    address = urlsplit(stand_in.url)
    with TlsFront(address.port or 0, server_context(folder, authority)) as front:
        yield {
            "EVERTOKEN_TIKTOK_BASE_URL": f"https://localhost:{front.port}{address.path}",
            "EVERTOKEN_CA_FILE": str(authority.file),
        }


@pytest.fixture
def transport(request: pytest.FixtureRequest, database_kind: str) -> dict[str, str]:
    """Settings of this test's way to TikTok: TLS in the SQLite half of the tests that are marked `over_tls`.

    Plain HTTP hides what TLS does to an answer that comes late. The databases take the two ways in turns, so every
    marked test runs over both and none runs twice.
    """
    if request.node.get_closest_marker("over_tls") is None or database_kind != "sqlite":
        return {}
    settings: dict[str, str] = request.getfixturevalue("tls_settings")
    return settings


@pytest.fixture
def new_scene(
    *,
    stand_in: RunningSandbox,
    nursery: Nursery,
    store_url: str,
    redis_url: str,
    keyring: Keyring,
    tmp_path: Path,
    transport: dict[str, str],
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
        scenes.append(Scene(stand_in, nursery, environ | transport, tmp_path))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def scene(new_scene: NewScene) -> Scene:
    """A scene under strict rotation."""
    return new_scene()
