"""Whether the desk's process lives, and whether it can answer: for supervisors and load balancers."""

from __future__ import annotations

from typing import Final

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from worker.desk.web import Asked, Ways
from worker.errors import EvertokenError
from worker.services import Services

MOST_LOOKS: Final = 2
"""Looks at the database for `/readyz` at the same time: they wait for no other request, and none waits for them."""


class Health:
    """The two checks. Neither says anything that a stranger should not know, or waits for other requests."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._looks = CapacityLimiter(MOST_LOOKS)

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the routes of the checks."""
        return [
            ways.route("/healthz", "healthz", {}, at_once=dict.fromkeys(("GET", "HEAD"), self.alive)),
            ways.route("/readyz", "readyz", {}, at_once=dict.fromkeys(("GET", "HEAD"), self.ready)),
        ]

    async def alive(self, asked: Asked) -> Response:
        """Answer that the process lives, whatever it stands on."""
        del asked
        return PlainTextResponse("alive\n")

    async def ready(self, asked: Asked) -> Response:
        """Answer whether tokens can be read: the database answers, and this version runs on its tables."""
        del asked
        return await run_sync(self._look, limiter=self._looks)

    def _look(self) -> Response:
        try:
            runs = self._services.store.schema_state().runs
        except EvertokenError:
            return PlainTextResponse("the database does not answer\n", 503, {"Retry-After": "5"})
        if not runs:
            return PlainTextResponse("the database's tables do not fit this version\n", 503)
        return PlainTextResponse("ready\n")
