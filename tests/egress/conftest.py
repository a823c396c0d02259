"""Fixtures of the way out: an authority, a proxy, and TLS servers that only the proxy finds by their name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certificates import Authority, new_authority, server_context
from tests.support.connect_proxy import HOST, ConnectProxy
from tests.support.tls_front import TlsFront


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make an authority that a client can trust by its file."""
    return new_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    """Run a proxy."""
    with ConnectProxy() as running:
        yield running


@pytest.fixture
def new_front(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., TlsFront]]:
    """Put TLS ends with a certificate for a host in front of loopback ports."""
    with ExitStack() as fronts:
        yield lambda port, host=HOST: fronts.enter_context(
            TlsFront(port, server_context(tmp_path, authority, host=host))
        )
