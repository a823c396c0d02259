"""What the tests of commands share: a sandbox TikTok, an authorizer over real parts, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.conftest import APP_ID
from tests.support.ground import ground_of
from tests.support.turns import take_turns
from worker.consent.authorize import Authorizer
from worker.consent.exchanges import Exchanges
from worker.journal import Journal
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store import Store
from worker.tiktok import TikTok
from worker.vault import Sealer, Token

REDIRECT_URI = "https://app.example/callback/"


class Unlimited:
    """Stands in for the limiter if the quota plays no part: each request may go at once."""

    def admit(self, **_: Any) -> float:
        """Let the request go."""
        return 0.0

    def punish(self, *_: Any) -> None:
        """Pause nobody."""


UNLIMITED: Any = Unlimited()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the databases take turns."""
    take_turns(items, Path(__file__).parent)


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[RunningSandbox]:
    """Start one sandbox; every token and code of it holds the canary."""
    options = SandboxOptions(app_id=APP_ID, app_secret="secret-CANARY", redirect_uri=REDIRECT_URI, canary="CANARY")
    with start_sandbox(options) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: RunningSandbox) -> RunningSandbox:
    """Return the sandbox without faults."""
    running_sandbox.heal()
    return running_sandbox


@pytest.fixture
def journal(tmp_path: Path, sealer: Sealer) -> Iterator[Journal]:
    """Return an empty journal."""
    opened = Journal(tmp_path / "journal", sealer, owner="test")
    yield opened
    opened.close()


@pytest.fixture
def new_authorizer(
    sandbox: RunningSandbox, store: Store, sealer: Sealer, journal: Journal
) -> Iterator[Callable[..., Authorizer]]:
    """Make authorizers over the sandbox; options go to the client, or replace a part of the same name."""
    clients: list[TikTok] = []

    def make(
        *,
        journal: Journal = journal,
        store: Store = store,
        state_seconds: int = 600,
        sealer: Sealer = sealer,
        **options: Any,
    ) -> Authorizer:
        usual: dict[str, Any] = {
            "app_id": APP_ID,
            "app_secret": Token("secret-CANARY"),
            "redirect_uri": REDIRECT_URI,
            "base_url": sandbox.url,
            "authorize_url": sandbox.authorize_url,
        }
        clients.append(TikTok(**usual | options))
        ground = ground_of(store=store, sealer=sealer, journal=journal, limiter=UNLIMITED, tiktok=clients[-1])
        return Authorizer(
            ground,
            exchanges=Exchanges(ground, renew_at=2 / 3),
            redirect_uri=REDIRECT_URI,
            scopes=("user.info.basic", "user.info.stats"),
            state_seconds=state_seconds,
        )

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def visit() -> Callable[..., str]:
    """Open consent links as a browser does: returns the address that it is sent to."""

    def open_link(link: str, creator: str, **options: str) -> str:
        answer = requests.get(link, params={"sandbox_creator": creator} | options, allow_redirects=False, timeout=10)
        assert answer.status_code == 302
        return answer.headers["Location"]

    return open_link
