"""Pages for creators: an invitation that leads to TikTok's consent page, the way back, and what became of it.

Looking at an invitation uses nothing up; only TikTok's way back with a code does. What went wrong is told in plain
words, without names of settings; the operator finds the reason in the log.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.routing import BaseRoute

from worker.consent.authorize import KeptForLaterError
from worker.consent.exchanges import OtherAccountError
from worker.consent.redirect import ConsentRefusedError
from worker.consent.state import LinkError, LinkProblem, refuse_bad_state
from worker.desk.outcomes import OURS, OUTCOMES, Outcome
from worker.desk.pages import Pages, go_to
from worker.desk.web import Asked, ProblemError, Ways
from worker.errors import (
    EvertokenError,
    JournalError,
    NotReadyError,
    StopEveryoneError,
    TikTokError,
    UsageError,
)
from worker.links import CONNECT, ConsentLinks, handle_of
from worker.services import Services
from worker.telemetry import Fact

CALLBACK: Final = "/callback"
SCOPES: Final = {
    "user.info.basic": "your name and picture",
    "user.info.username": "your user name",
    "user.info.stats": "how many followers, likes and videos you have",
    "user.info.profile": "your profile's text and link",
    "user.insights": "figures about your account, such as its audience",
    "video.list": "the list of your videos",
    "video.insights": "figures about your videos",
}
"""What creators are asked to share, in words; a scope that is not here is shown as TikTok writes it."""
LONGEST_STATE: Final = 200
LINKS: Final = {
    LinkProblem.MISSING: "link-unknown",
    LinkProblem.UNKNOWN: "link-unknown",
    LinkProblem.USED: "link-used",
    LinkProblem.ENDED: "link-ended",
}
REFUSED: Final = {
    "access_denied": "declined",
    "server_error": "tiktok-trouble",
    "temporarily_unavailable": "tiktok-trouble",
}
"""By TikTok's word; any other says that the app or its settings are wrong."""
BY_KIND: Final[tuple[tuple[type[EvertokenError], str], ...]] = (
    (UsageError, "unreadable"),
    (OtherAccountError, "other-account"),
    (KeptForLaterError, "later"),
    (NotReadyError, "not-ready"),
    (JournalError, "not-ready"),
    (StopEveryoneError, "our-mistake"),
    (TikTokError, "tiktok-trouble"),
)
"""The first that fits counts."""


class Connecting:
    """The creators' pages."""

    def __init__(self, services: Services, pages: Pages) -> None:
        self._services = services
        self._pages = pages
        self._links = ConsentLinks(services.store, services.tiktok, scopes=services.settings.tiktok_scopes)

    def routes(self, ways: Ways) -> list[BaseRoute]:
        """Return the routes; TikTok's way back is the registered address's path, wherever that is."""
        registered = urlsplit(self._services.settings.tiktok_redirect_uri).path or "/"
        paths = dict.fromkeys((CALLBACK, f"{CALLBACK}/", registered))
        return [
            ways.route(f"{CONNECT}{{state}}", "connect", {"GET": self.invitation}),
            *(ways.route(path, "callback", {"GET": self.callback}) for path in paths if path != "/"),
            ways.route("/connected/{outcome}", "connected", {"GET": self.result}),
        ]

    def invitation(self, asked: Asked) -> Response:
        """Show what is asked for, and the way to TikTok's page."""
        state = asked.part("state")
        try:
            link = None if len(state) > LONGEST_STATE else self._services.store.link(handle_of(state))
            refuse_bad_state(state, link)
        except LinkError as error:
            return self._told(OUTCOMES[LINKS[error.problem]])
        scopes = [(scope, SCOPES.get(scope, "")) for scope in self._services.settings.tiktok_scopes]
        return self._pages.show("connect", url=self._links.consent_page(state), scopes=scopes)

    def callback(self, asked: Asked) -> Response:
        """Turn the code that TikTok sends back into a grant; the browser then goes where the address holds no code."""
        query = asked.request.scope["query_string"].decode("latin-1")
        try:
            self._services.authorizer.exchange(f"?{query}")
            outcome = "connected"
        except EvertokenError as error:
            outcome = outcome_of(error)
            ours = outcome in OURS
            self._services.hook(
                Fact(
                    "desk.consent_failed",
                    {"outcome": outcome, "reason": str(error)},
                    level="error" if ours else "info",
                )
            )
        return go_to(f"/connected/{outcome}")

    def result(self, asked: Asked) -> Response:
        """Tell a creator what became of the consent."""
        outcome = OUTCOMES.get(asked.part("outcome"))
        if outcome is None:
            raise ProblemError(404, "unknown-address", "this address leads nowhere")
        return self._told(outcome)

    def _told(self, outcome: Outcome) -> Response:
        return self._pages.show(
            "told", status=outcome.status, title=outcome.title, lines=outcome.lines, again=outcome.again
        )


def outcome_of(error: EvertokenError) -> str:
    """Return the name of the page that tells a creator what became of the consent."""
    if isinstance(error, LinkError):
        return LINKS[error.problem]
    if isinstance(error, ConsentRefusedError):
        return REFUSED.get(error.error, "our-mistake")
    return next((name for kind, name in BY_KIND if isinstance(error, kind)), "our-mistake")
