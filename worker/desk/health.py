"""Whether the desk's process lives, and whether it can answer: for supervisors and load balancers."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from worker.desk.web import Asked, Ways
from worker.errors import EvertokenError
from worker.services import Services


class Health:
    """The two checks. Neither says anything that a stranger should not know."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the routes of the checks."""
        return [
            ways.route("/healthz", "healthz", {"GET": self.alive, "HEAD": self.alive}),
            ways.route("/readyz", "readyz", {"GET": self.ready, "HEAD": self.ready}),
        ]

    def alive(self, asked: Asked) -> Response:
        """Answer that the process lives, whatever it stands on."""
        del asked
        return PlainTextResponse("alive\n")

    def ready(self, asked: Asked) -> Response:
        """Answer whether tokens can be read: the database answers, and this version runs on its tables."""
        del asked
        try:
            runs = self._services.store.schema_state().runs
        except EvertokenError:
            return PlainTextResponse("the database does not answer\n", 503, {"Retry-After": "5"})
        if not runs:
            return PlainTextResponse("the database's tables do not fit this version\n", 503)
        return PlainTextResponse("ready\n")
