"""The client knows one host: its adapters have no way to send anything anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests

from worker.tiktok.transport import Transport

if TYPE_CHECKING:
    from tests.tiktok.conftest import Servers


def test_no_other_address_can_be_reached(servers: Servers) -> None:
    """Another host, another port, another path of the same host and a longer name of it: all are refused unsent."""
    ours, other = servers(), servers()
    transport = Transport(base_url=ours.url, connect_seconds=1, deadline_seconds=2, observe=lambda *_: None)
    elsewhere = [
        other.url,
        f"{other.url}/v1.3/tt_user/oauth2/refresh_token/",
        f"http://localhost:{ours.port}/elsewhere/",
        f"{ours.url}.example/v1.3/",
        ours.url.replace("http:", "https:") + "/v1.3/",
    ]

    adapters = (transport._reader(), transport._tokens)
    for address in elsewhere:
        for adapter in adapters:
            with pytest.raises(requests.exceptions.InvalidSchema):
                adapter.send(requests.Request("POST", address, data=b"secret").prepare())

    assert (ours.connections, other.connections) == (0, 0)
    transport.close()
