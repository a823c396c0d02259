"""Daemons in environments of their own, over this test's database and Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, daemon_settings
from tests.support.small_accounts import small_sandbox
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring

CANARY = "CANARY"


@pytest.fixture(scope="session")
def sandbox() -> Iterator[RunningSandbox]:
    """A sandbox whose tokens all hold a text that is found wherever one leaks."""
    with small_sandbox(SandboxOptions(canary=CANARY, ledger_all=True)) as running:
        yield running


@pytest.fixture
def new_daemon(
    sandbox: RunningSandbox, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path
) -> Iterator[Callable[..., Daemon]]:
    """Make daemons over this test's database; settings are given without their prefix."""
    with ExitStack() as stack:

        def make(**settings: str) -> Daemon:
            usual = {"DATABASE_URL": store_url, "REDIS_URL": redis_url, "KEYRING": keyring.to_json()}
            return stack.enter_context(
                Daemon(tmp_path, daemon_settings(sandbox, tmp_path, **(usual | settings)), warm=True)
            )

        yield make
