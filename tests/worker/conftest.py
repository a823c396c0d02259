"""Worlds for the tests of use cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.turns import take_turns
from tests.support.world import World
from worker.links import ConsentLinks
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store import Store
from worker.tiktok import TikTok
from worker.vault import Keyring, Token


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the databases take turns."""
    take_turns(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def sandboxes() -> Iterator[dict[str, RunningSandbox]]:
    """Sandboxes by rotation mode, started when first wanted."""
    running: dict[str, RunningSandbox] = {}
    yield running
    for sandbox in running.values():
        sandbox.stop()


@pytest.fixture
def new_world(
    sandboxes: dict[str, RunningSandbox], store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path
) -> Iterator[Callable[..., World]]:
    """Make worlds over this test's database; settings are given without their prefix."""
    worlds: list[World] = []

    def make(rotation: str = "strict", **settings: str) -> World:
        if rotation not in sandboxes:
            sandboxes[rotation] = start_sandbox(
                SandboxOptions(rotation=rotation, grace_seconds=10, ledger_all=False, canary="CANARY")
            )
        sandbox = sandboxes[rotation]
        sandbox.heal()
        sandbox.control("app", {"blocked": False, "secret": "sandbox-secret", "next_secret": None})
        usual = {
            "TIKTOK_APP_ID": "sandbox-app",
            "TIKTOK_APP_SECRET": "sandbox-secret",
            "TIKTOK_REDIRECT_URI": "https://localhost/callback/",
            "TIKTOK_BASE_URL": sandbox.url,
            "TIKTOK_AUTHORIZE_URL": sandbox.authorize_url,
            "KEYRING": keyring.to_json(),
            "DATABASE_URL": store_url,
            "REDIS_URL": redis_url,
            "JOURNAL_DIR": str(tmp_path / "journal"),
            "RUN_DIR": str(tmp_path / "run"),
            "LEASE_SECONDS": "6",
            "DEADLINE_SECONDS": "2",
            "CONNECT_SECONDS": "1",
            "STORE_SECONDS": "1",
            "QUOTA_PER_SECOND": "1000",
            "QUOTA_PER_MINUTE": "60000",
            "QUOTA_PER_ACCOUNT_MINUTE": "1000",
        }
        environ = {f"EVERTOKEN_{name}": value for name, value in (usual | settings).items()}
        worlds.append(World(sandbox, environ))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def links(store: Store) -> Iterator[ConsentLinks]:
    """Links to a consent page."""
    client = TikTok(
        app_id="app", app_secret=Token("secret-CANARY"), redirect_uri="https://app.example/callback",
        base_url="http://127.0.0.1:9", authorize_url="http://127.0.0.1:9/auth/", connect_seconds=1, deadline_seconds=1,
    )  # fmt: skip
    yield ConsentLinks(store, client, scopes=("user.info.basic",))
    client.close()
