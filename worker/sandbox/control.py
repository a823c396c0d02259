"""The control API below `/_sandbox/`: faults, grants in bulk, statistics and everything else that tests change."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from worker.sandbox.accounts import truth
from worker.sandbox.accounts.traits import TraitsError
from worker.sandbox.accounts.truth import TruthError
from worker.sandbox.consent import ConsentPage
from worker.sandbox.faults import FaultError
from worker.sandbox.options import OptionsError, SandboxOptions
from worker.sandbox.registry import IssuedPair
from worker.sandbox.wire import Reply, Request, json_reply
from worker.sandbox.world import World

PREFIX: Final = "/_sandbox/"
GRANTS_CALL: Final = "control/grants"
BAD_REQUEST: Final = 400
FORBIDDEN: Final = 403

Body = Any
Handler = Callable[[Body], dict[str, Any]]


class ControlError(ValueError):
    """A control request cannot be carried out; the text is one sentence for a person."""


class Control:
    """Carries out control requests; only requests from this machine are accepted.

    Args:
        world: the sandbox.
        page: the authorization page, which makes codes.
        stop: called when the sandbox is asked to end.
        connections: returns the number of open connections.
    """

    def __init__(
        self, world: World, page: ConsentPage, stop: Callable[[], None], connections: Callable[[], int]
    ) -> None:
        self._world = world
        self._page = page
        self._stop = stop
        self._connections = connections
        self._handlers: dict[tuple[str, str], Handler] = {
            ("GET", "stats"): lambda _: {**world.statistics(), "connections": connections()},
            ("GET", "faults"): lambda _: {"faults": world.faults.listed()},
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._remove_faults,
            ("POST", "grants"): self._grants,
            ("POST", "codes"): self._codes,
            ("POST", "revoke"): self._revoke,
            ("POST", "creator"): self._creator,
            ("POST", "account"): self._account,
            ("POST", "scopes"): self._scopes,
            ("POST", "truth"): self._truth,
            ("POST", "app"): self._app,
            ("POST", "options"): self._options,
            ("POST", "clock"): self._clock,
            ("POST", "shutdown"): self._shutdown,
        }

    def answer(self, request: Request) -> Reply:
        """Carry out one request; a wrong one is answered with HTTP 400 and a sentence."""
        if not request.loopback:
            return json_reply({"error": "control requests are accepted only from this machine"}, FORBIDDEN)
        handler = self._handlers.get((request.method, request.path.removeprefix(PREFIX)))
        if handler is None:
            known = ", ".join(f"{method} {name}" for method, name in self._handlers)
            return json_reply({"error": f"there are {known}"}, BAD_REQUEST)
        try:
            return json_reply(handler(json.loads(request.body) if request.body else {}))
        except (ControlError, FaultError, OptionsError, TraitsError, TruthError) as error:
            return json_reply({"error": str(error)}, BAD_REQUEST)
        except ValueError:
            return json_reply({"error": "the body is not JSON"}, BAD_REQUEST)
        except (TypeError, KeyError, AttributeError) as error:
            return json_reply({"error": f"the body does not have the right form: {error}"}, BAD_REQUEST)

    def _add_faults(self, body: Body) -> dict[str, Any]:
        described = body if isinstance(body, list) else [body]
        return {"ids": [self._world.faults.add(one) for one in described]}

    def _remove_faults(self, body: Body) -> dict[str, Any]:
        self._world.faults.remove(body.get("ids"))
        return {}

    def _grants(self, body: Body) -> dict[str, Any]:
        known = {"count", "prefix", "first", "creators", "scope", "age", "spread", "refresh_expires_in"}
        if unknown := body.keys() - known:
            raise ControlError(f"grants: {', '.join(sorted(unknown))} not known; there are {', '.join(sorted(known))}")
        first = int(body.get("first", 1))
        prefix = body.get("prefix", "creator-")
        names = body.get("creators") or [
            f"{prefix}{number}" for number in range(first, first + int(body.get("count", 1)))
        ]
        world, options = self._world, self._world.options
        scope = tuple(body["scope"].split(",")) if "scope" in body else options.scopes
        age, spread = float(body.get("age", 0)), bool(body.get("spread", False))
        refresh_life = float(body.get("refresh_expires_in", options.refresh_expires_in))
        now = world.clock.now()
        pairs, drafts = [], []
        for place, name in enumerate(names):
            past = age * place / max(1, len(names) - 1) if spread else age
            consent = world.registry.consent(str(name), scope, options, now - past + refresh_life)
            life = max(0, round(options.expires_in - past))
            pair = world.registry.issue(consent, now=now, expires_in=life)
            pairs.append(pair)
            drafts.append(world.draft(GRANTS_CALL, pair, consent))
        world.ledger.write(drafts)
        world.counters.pairs += len(pairs)
        return {"grants": [{**world.token_object(pair, now), "issued_at": round(now, 3)} for pair in pairs]}

    def _codes(self, body: Body) -> dict[str, Any]:
        scope = tuple(body["scope"].split(",")) if body.get("scope") else self._world.options.scopes
        code, address = self._page.callback(
            body.get("creator") or self._world.mint.creator_id(), scope, body.get("state")
        )
        return {"code": code, "redirect_url": address}

    def _revoke(self, body: Body) -> dict[str, Any]:
        if not self._world.registry.revoke(body.get("creator", "")):
            raise ControlError("creator: no such creator")
        return {}

    def _creator(self, body: Body) -> dict[str, Any]:
        creator = self._world.registry.creators.get(body.get("creator", ""))
        if creator is None:
            raise ControlError("creator: no such creator")
        consent = creator.consents[-1]
        pair: IssuedPair = consent.pairs[-1]
        return {
            "creator": creator.creator_id,
            "consent": consent.number,
            "revoked": not consent.alive,
            "fp_refresh": pair.fp_refresh,
            "fp_access": pair.fp_access,
            "access_expires_at": pair.access_expires_at,
            "refresh_expires_at": consent.refresh_expires_at,
            "refreshes": creator.refreshes,
            "under_way": creator.under_way,
        }

    def _account(self, body: Body) -> dict[str, Any]:
        traits = dict(body)
        creator_id = traits.pop("creator", None)
        if creator_id is not None and not isinstance(creator_id, str):
            raise ControlError("creator: a text is wanted, or none for all accounts")
        self._world.accounts.set_traits(creator_id, traits)
        return {"traits": self._world.account(creator_id).traits.to_json() if creator_id is not None else traits}

    def _truth(self, body: Body) -> dict[str, Any]:
        asked = dict(body)
        account = self._world.account(str(asked.pop("creator")))
        return {"rows": truth.answer(account, self._world.calendar(), asked, self._world.clock.now())}

    def _scopes(self, body: Body) -> dict[str, Any]:
        creator = self._world.registry.creators.get(body.get("creator", ""))
        if creator is None:
            raise ControlError("creator: no such creator")
        consent = creator.consents[-1]
        consent.scope = tuple(name for name in body["scope"].split(",") if name)
        return {"scope": ",".join(consent.scope)}

    def _app(self, body: Body) -> dict[str, Any]:
        if unknown := body.keys() - {"blocked", "secret", "next_secret"}:
            raise ControlError(f"app: {', '.join(sorted(unknown))} not known; there are blocked, secret, next_secret")
        app = self._world.app
        app.blocked = bool(body.get("blocked", app.blocked))
        if "secret" in body or "next_secret" in body:
            secrets = {body.get("secret"), body.get("next_secret")} - {None}
            if not secrets or not all(isinstance(text, str) and text for text in secrets):
                raise ControlError("app: secrets are texts that are not empty")
            app.secrets = secrets if "secret" in body else app.secrets | secrets
        return {"blocked": app.blocked, "secrets": len(app.secrets)}

    def _options(self, body: Body) -> dict[str, Any]:
        self._world.options = self._world.options.changed(body)
        return {"options": _shown(self._world.options)}

    def _clock(self, body: Body) -> dict[str, Any]:
        seconds = float(body["advance"])
        if seconds < 0:
            raise ControlError("advance: the clock only goes forward")
        self._world.clock.advance(seconds)
        return {"now": self._world.clock.now()}

    def _shutdown(self, _: Body) -> dict[str, Any]:
        self._stop()
        return {}


def _shown(options: SandboxOptions) -> dict[str, Any]:
    return {name: value for name, value in options.to_json().items() if not name.endswith("secret")}
