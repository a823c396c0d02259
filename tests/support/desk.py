"""A running desk, as neighbours and browsers reach it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

import requests

from tests.conftest import find_free_port
from tests.support.world import World
from worker.desk.serving import Desk
from worker.policy.scope import ConsumerScope, read_scope
from worker.services import Services
from worker.telemetry import Fact, report
from worker.tokens.consumers import add_consumer

SECRET: Final = "the-secret-of-the-desk-CANARY-0123456789"
PASSWORD: Final = "the password CANARY"
START_SECONDS: Final = 20.0
EVERYONE: Final = ConsumerScope(everyone=True)


def desk_settings(port: int, **changes: str) -> dict[str, str]:
    """Return the settings of a desk, without their prefix."""
    return {"DESK_PORT": str(port), "DESK_SECRET": SECRET, "DESK_PASSWORD": PASSWORD} | changes


class RunningDesk:
    """A desk in a thread of the test's process, over a world's database.

    Attributes:
        url: where it listens.
        services: what it stands on.
        facts: what it reported.
    """

    def __init__(self, world: World, **changes: str) -> None:
        self.world = world
        self.port = int(changes.pop("DESK_PORT", find_free_port()))
        self.url = f"http://127.0.0.1:{self.port}"
        self.services: Services = world.another(**desk_settings(self.port, **changes))
        self.facts: list[Fact] = []
        self.services.hook = self._take
        self.services.presence.begin()
        listening = threading.Event()
        self._desk = Desk(self.services, ready=lambda _: listening.set())
        self._thread = threading.Thread(target=self._desk.run, name="desk")
        self._thread.start()
        assert listening.wait(START_SECONDS), "the desk does not listen"

    def _take(self, fact: Fact) -> None:
        self.facts.append(fact)
        report(fact)

    def close(self) -> None:
        """End the desk."""
        self._desk.end()
        self._thread.join(START_SECONDS)
        assert not self._thread.is_alive(), "the desk did not end"
        self.services.presence.leave()

    def consumer(
        self, name: str = "shop", *, creators: tuple[str, ...] = (), references: tuple[str, ...] = ()
    ) -> Neighbour:
        """Add a consumer, of everyone unless creators or references are named, and return it with its key."""
        listed = bool(creators or references)
        scope = read_scope(everyone=False, creators=creators, references=references) if listed else EVERYONE
        _, key = add_consumer(self.services.store, name, scope)
        return Neighbour(self.url, key.reveal())


class Neighbour:
    """A consumer that asks by HTTP."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, **query: Any) -> requests.Response:
        """Ask for a path of /v1."""
        return requests.get(
            f"{self.url}/v1/{path}", params=query, headers=self._bearing(headers), timeout=60, allow_redirects=False
        )

    def token(self, creator_id: str, **query: Any) -> requests.Response:
        """Ask for a token."""
        return self.get(f"creators/{creator_id}/token", **query)

    def report(self, creator_id: str, generation: Any) -> requests.Response:
        """Report that TikTok refused a token."""
        return requests.post(
            f"{self.url}/v1/creators/{creator_id}/rejected",
            json={"generation": generation},
            headers=self._bearing(None),
            timeout=60,
        )

    def _bearing(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", **(headers or {})}
