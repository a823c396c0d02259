"""The authorization page: a creator consents or refuses, and the browser is sent back with a code or an error."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from worker.sandbox.wire import HTML_TYPE, Reply, Request
from worker.sandbox.world import World

PATHS: Final = frozenset({"/v2/auth/authorize/", "/v2/auth/authorize"})
FOUND: Final = 302


class ConsentPage:
    """Answers requests for the authorization page.

    Args:
        world: the sandbox.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request) -> Reply:
        """Answer one visit of a browser."""
        asked = dict(parse_qsl(request.query, keep_blank_values=True))
        scope = tuple(name for name in asked.get("scope", "").split(",") if name)
        wrong = self._wrong(asked, scope)
        if wrong is not None:
            return wrong
        decision = asked.get("sandbox_decision", "")
        if decision == "deny":
            return self._refuse(asked, "access_denied", "user", "The account owner refused.")
        if asked.get("disable_auto_auth") == "1" and decision != "accept":
            return self._screen(asked, scope)
        granted = tuple(name for name in asked.get("sandbox_scope", "").split(",") if name in scope) or scope
        creator_id = asked.get("sandbox_creator") or self._world.mint.creator_id()
        return _redirect(self.callback(creator_id, granted, asked.get("state"))[1])

    def _wrong(self, asked: dict[str, str], scope: tuple[str, ...]) -> Reply | None:
        world = self._world
        if asked.get("client_key") != world.app.app_id or world.app.blocked:
            return self._error_page("unauthorized_client", "client_key", "The app is unknown or not approved.")
        if asked.get("redirect_uri") != world.options.redirect_uri:
            return self._error_page(
                "invalid_request", "redirect_uri", "The redirect address is not the registered one."
            )
        if asked.get("response_type") != "code":
            return self._refuse(asked, "unsupported_response_type", "response_type", "response_type must be code.")
        if not scope or not set(scope) <= set(world.options.scopes):
            return self._refuse(asked, "invalid_scope", "scope", "A scope is unknown or not approved.")
        return None

    def callback(self, creator_id: str, scope: tuple[str, ...], state: str | None = None) -> tuple[str, str]:
        """Record a consent; return its code and the address that the browser is sent to."""
        world = self._world
        code = world.registry.new_code(creator_id, scope, world.clock.now() + world.options.code_life)
        # quote encodes * and ! and commas, as TikTok does.
        query = f"code={quote(code, safe='')}&scopes={quote(','.join(scope), safe='')}"
        if state is not None:
            query += f"&state={quote(state, safe='')}"
        return code, f"{world.options.redirect_uri}?{query}"

    def _refuse(self, asked: dict[str, str], error: str, error_type: str, text: str) -> Reply:
        answer = {
            "error": error,
            "error_type": error_type,
            "error_description": text,
            "log_id": self._world.mint.request_id(),
        }
        if "state" in asked:
            answer["state"] = asked["state"]
        return _redirect(f"{self._world.options.redirect_uri}?{urlencode(answer)}")

    def _error_page(self, error: str, error_type: str, text: str) -> Reply:
        details = f"error={error} error_type={error_type} log_id={self._world.mint.request_id()}"
        return Reply(400, _page("Something went wrong", f"<p>{escape(text)}</p><p>{escape(details)}</p>"), HTML_TYPE)

    def _screen(self, asked: dict[str, str], scope: tuple[str, ...]) -> Reply:
        # The creator is chosen here, so that accepting twice means that the same account consents twice.
        kept = {"sandbox_creator": self._world.mint.creator_id(), **asked}
        links = "".join(
            f'<p><a id="{decision}" href="?{escape(urlencode({**kept, "sandbox_decision": decision}))}">{label}</a></p>'
            for decision, label in (("accept", "Authorize"), ("deny", "Cancel"))
        )
        asks = "".join(f"<li>{escape(name)}</li>" for name in scope)
        return Reply(200, _page("The app asks for access to", f"<ul>{asks}</ul>{links}"), HTML_TYPE)


def _redirect(location: str) -> Reply:
    return Reply(FOUND, b"", HTML_TYPE, (("Location", location),))


def _page(title: str, content: str) -> bytes:
    head = f"<!DOCTYPE html><html><head><title>{title}</title></head>"
    return f"{head}<body><h1>{title}</h1>{content}</body></html>".encode()
