"""Refreshes through a proxy: a proxy that opens no way leaves nothing in doubt and spends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import new_authority, server_context
from tests.support.connect_proxy import HOST, ConnectProxy
from tests.support.tls_front import TlsFront
from tests.support.world import World
from worker.telemetry import Fact

NewWorld = Callable[..., World]


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """Run a proxy."""
    with ConnectProxy() as running:
        yield running


@pytest.fixture
def behind_proxy(new_world: NewWorld, proxy: ConnectProxy, tmp_path: Path) -> Iterator[World]:
    """Make a world whose TikTok is reached by a name that only the proxy knows, with an authority of its own."""
    authority = new_authority(tmp_path)
    port = int(new_world().sandbox.url.split(":")[2].split("/")[0])
    with TlsFront(port, server_context(tmp_path, authority, host=HOST)) as front:
        yield new_world(
            TIKTOK_BASE_URL=f"https://{HOST}:{front.port}/open_api",
            TIKTOK_FOREIGN_HOSTS=HOST,
            EGRESS_PROXY=proxy.url.replace("//", "//user:CANARY@"),
            CA_FILE=str(authority.file),
            QUOTA_PER_SECOND="50",
            QUOTA_PER_MINUTE="3000",
        )


def test_a_grant_is_refreshed_and_pulled_through_the_proxy(behind_proxy: World, proxy: ConnectProxy) -> None:
    """Every call to TikTok goes that way."""
    grant = behind_proxy.creator()

    behind_proxy.services.refresher.refresh(grant.grant_id)
    behind_proxy.services.puller.pull(grant.grant_id)

    assert len(proxy.asked) >= 2
    assert all(place.startswith(f"{HOST}:") for place in proxy.asked)
    assert behind_proxy.verdict(grant).sound
    assert "CANARY" not in repr(behind_proxy.services.settings)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"HTTP/1.1 407 Say who you are\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
def test_a_refused_tunnel_counts_as_not_sent(behind_proxy: World, proxy: ConnectProxy, answer: bytes) -> None:
    """The grant is not in doubt, TikTok heard nothing, and the same token works once the proxy lets it through."""
    grant = behind_proxy.creator()
    proxy.answer(answer)

    facts: list[Fact] = []
    behind_proxy.services.hook = facts.append

    behind_proxy.services.refresher.refresh(grant.grant_id)

    assert [fact.name for fact in facts if fact.name.startswith("refresh.")] == ["refresh.not_sent"]
    seen = behind_proxy.look(grant)
    assert (seen.status, seen.failures) == ("active", 1)
    assert behind_proxy.refreshes(grant) == []
    assert behind_proxy.services.store.fleet_status().in_doubt == 0
    proxy.refuse = None
    behind_proxy.services.refresher.refresh(grant.grant_id, force=True)
    assert behind_proxy.look(grant).failures == 0
    assert len(behind_proxy.refreshes(grant)) == 1
