"""The calls of TikTok's open API as the sandbox answers them: quota, faults, work, envelope, ledger."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from worker.sandbox import account_calls, token_calls
from worker.sandbox.fault_kinds import ABSENT, Plan
from worker.sandbox.faults import CALLS
from worker.sandbox.ledger import fingerprint
from worker.sandbox.protocol import whole_in_cut
from worker.sandbox.registry import Consent, Creator, IssuedPair, Registry
from worker.sandbox.token_calls import NOT_WORKED, Outcome, RefusedError
from worker.sandbox.wire import Deferred, Delivery, Reply, Request, json_reply, text_reply
from worker.sandbox.world import World

BASE: Final = "/open_api/v1.3/"
REFRESH: Final = CALLS["refresh"]
ISSUING: Final = frozenset({CALLS["token"], REFRESH})
POST_CALLS: Final = {
    CALLS["token"]: token_calls.exchange,
    REFRESH: token_calls.refresh,
    CALLS["revoke"]: token_calls.revoke,
    CALLS["token_info"]: token_calls.token_info,
}
OLD_NAMES: Final = {"open_id": "creator_id", "expires_in": "expires", "refresh_token_expires_in": "refresh_expires"}
"""Names of the token object's fields in the answers before today's."""


class OpenApi:
    """Answers calls below `/open_api/`.

    Args:
        world: the sandbox.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._paths = {BASE + path: path for path in CALLS.values()}

    def begin(self, request: Request) -> Reply | Deferred:
        """Answer a request, now or after a while."""
        call = self._paths.get(request.path)
        if call is None:
            return text_reply("404 page not found", 404)
        method = "POST" if call in POST_CALLS else "GET"
        if request.method != method:
            return text_reply("405 method not allowed", 405, (("Allow", method),))
        world, asked = self._world, understand(self._world.registry, call, request)
        now = world.clock.now()
        world.counters.request(now)
        refusal = world.quota.take(world.options, now=now, call=call, creator=asked.creator_id)
        if refusal is not None:
            return self._finish(asked, Outcome(refusal.code, refusal.message), None)
        plan = world.faults.plan(call, asked.creator_id)
        creator = asked.consent.creator if asked.consent is not None and call == REFRESH else None
        if creator is not None:
            asked.under_way = creator.under_way > 0
            creator.under_way += 1
        if plan is not None and plan.wait_first:
            return Deferred(plan.wait_first, partial(self._work, asked, plan, creator))
        return self._work(asked, plan, creator)

    def _work(self, asked: Asked, plan: Plan | None, creator: Creator | None) -> Reply:
        if asked.used is not None and asked.used.used_at is not None:
            asked.reused_after = asked.used.used_answer
        outcome = Outcome(NOT_WORKED, "") if plan is not None and not plan.works else self._carry_out(asked, plan)
        reply = self._finish(asked, outcome, plan)
        if creator is not None:
            if reply.delivery is None:
                creator.under_way -= 1
            else:
                reply.done = partial(_one_less, creator)
        return reply

    def _carry_out(self, asked: Asked, plan: Plan | None) -> Outcome:
        try:
            if asked.call in POST_CALLS:
                return POST_CALLS[asked.call](self._world, asked.body)
            return account_calls.read(self._world, asked.call, asked.access_token, asked.query, plan)
        except RefusedError as refused:
            return refused.outcome

    def _finish(self, asked: Asked, outcome: Outcome, plan: Plan | None) -> Reply:
        reply = self._reply(asked, outcome, plan)
        if self._world.options.latency:
            reply.delivery = reply.delivery or Delivery()
            reply.delivery.wait += self._world.options.latency
        code = plan.code[0] if plan is not None and plan.code is not None else outcome.code
        self._count(asked, code, reply, plan)
        if asked.call == REFRESH or outcome.pair is not None or self._world.options.ledger_all:
            self._enter(asked, outcome, code, reply, plan)
        return reply

    def _reply(self, asked: Asked, outcome: Outcome, plan: Plan | None) -> Reply:
        if plan is not None and plan.instead is not None:
            instead = plan.instead
            return Reply(instead.status, instead.body, instead.content_type, instead.headers, plan.delivery)
        code, message, data = outcome.code, outcome.message, outcome.data
        if plan is not None and plan.code is not None:
            (code, message), data = plan.code, {}
        elif code == NOT_WORKED:
            code, data = 0, {}
        if plan is not None:
            data = _edited(data, plan)
        request_id = self._world.mint.request_id()
        envelope = {"code": code, "message": message, "request_id": request_id, "data": data}
        if data is ABSENT:
            del envelope["data"]
        elif asked.call in ISSUING and data and isinstance(data, dict):
            envelope = _styled(envelope, data, self._world.options.answer_style)
        if plan is not None and plan.padding:
            envelope["padding"] = "x" * plan.padding
        reply = json_reply(envelope, headers=(("X-Tt-Logid", request_id),))
        if plan is not None:
            _spoil(reply, plan)
        return reply

    def _count(self, asked: Asked, code: int, reply: Reply, plan: Plan | None) -> None:
        counters = self._world.counters
        replaced = plan is not None and plan.instead is not None
        counters.outcome(asked.call, f"http {reply.status}" if replaced else str(code))
        counters.errors += bool(replaced or code)
        counters.overlaps += bool(asked.under_way or asked.reused_after)

    def _enter(self, asked: Asked, outcome: Outcome, code: int, reply: Reply, plan: Plan | None) -> None:
        """Write the ledger line; nothing of the answer has left yet."""
        world, pair, used = self._world, outcome.pair, asked.used
        answer = _answer(reply, plan)
        more: dict[str, Any] = {"code": code, "http_status": reply.status, "answer": answer}
        if asked.call == REFRESH:
            sent = text_of(asked.body or {}, "refresh_token")
            more["fp_old_refresh"] = used.fp_refresh if used is not None else (fingerprint(sent) if sent else None)
            more["under_way"], more["reused_after"] = asked.under_way, asked.reused_after
            more["overlap"] = bool(asked.under_way or asked.reused_after)
        if pair is not None:
            world.counters.pairs += not outcome.again
            more["again"] = outcome.again
        if answer == "cut" and pair is not None and reply.delivery is not None:
            texts = (pair.access, pair.refresh, pair.consent.creator.creator_id)
            more["salvageable"] = whole_in_cut(reply, reply.delivery, texts)
        if plan is not None:
            more["faults"] = plan.kinds
        consent = pair.consent if pair is not None else asked.consent
        seq = world.ledger.write([world.draft(asked.call, pair, consent, **more)])
        if used is not None and pair is not None:
            used.used_answer = answer
        if pair is not None and reply.delivery is not None:
            reply.gone = partial(self._gone, seq, used)

    def _gone(self, seq: int, used: IssuedPair | None) -> None:
        self._world.ledger.undelivered(seq)
        if used is not None:
            used.used_answer = "undelivered"


def _edited(data: Any, plan: Plan) -> Any:
    """Change the data of an answer; an error's is left alone."""
    if not data:
        return data
    for edit in plan.edits:
        edit(data)
    return data if plan.data is None else plan.data[0]


def _spoil(reply: Reply, plan: Plan) -> None:
    """Change the bytes of an answer and how they travel."""
    reply.delivery = plan.delivery
    for find, put in plan.rewritten:
        reply.body = reply.body.replace(find, put)
    if plan.packed or plan.bomb:
        reply.body = gzip.compress(reply.body + b" " * plan.bomb)
        reply.headers += (("Content-Encoding", "gzip"),)


def _answer(reply: Reply, plan: Plan | None) -> str:
    if reply.delivery is not None and reply.delivery.lost:
        return "lost"
    if plan is not None and (plan.instead is not None or plan.code is not None):
        return "replaced"
    if reply.delivery is not None and reply.delivery.cut_at is not None:
        return "cut"
    return "altered" if plan is not None and plan.altered else "sent"


def _styled(envelope: dict[str, Any], data: dict[str, Any], style: str) -> dict[str, Any]:
    """Give a token answer the shape of an older version of the API."""
    if style == "current":
        return envelope
    old = {OLD_NAMES.get(name, name): value for name, value in data.items()}
    if style == "early":
        return {**envelope, "data": old}
    del envelope["data"]
    return {**envelope, **old}


def _one_less(creator: Creator) -> None:
    creator.under_way -= 1


@dataclass(slots=True)
class Asked:
    """One call as it was understood.

    Attributes:
        call: its path below the base.
        body: the JSON object that was sent; None if there was none.
        access_token: the Access-Token header.
        query: the raw query.
        creator_id: the creator of the token or code that was sent, if it is known.
        consent: the consent of the token sent.
        used: the pair whose refresh token was sent.
        reused_after: for a used refresh token, what happened to the answer that used it up.
        under_way: whether another refresh of this creator is being answered.
    """

    call: str
    body: dict[str, Any] | None = field(repr=False)
    access_token: str = field(repr=False)
    query: str
    creator_id: str | None = None
    consent: Consent | None = None
    used: IssuedPair | None = None
    reused_after: str | None = None
    under_way: bool = False


def understand(registry: Registry, call: str, request: Request) -> Asked:
    """Read a request and find its creator; the call itself checks the request for mistakes."""
    asked = Asked(call, None, request.headers.get("access-token", ""), request.query)
    pair = None
    if request.method == "POST":
        asked.body = _json_object(request)
        body = asked.body or {}
        if call == CALLS["refresh"]:
            pair = asked.used = registry.by_refresh(text_of(body, "refresh_token"))
        elif call == CALLS["token"]:
            code = registry.code(text_of(body, "auth_code"))
            asked.creator_id = code.creator_id if code is not None else None
        else:
            pair = registry.by_access(text_of(body, "access_token"))
    else:
        pair = registry.by_access(asked.access_token)
    if pair is not None:
        asked.consent = pair.consent
        asked.creator_id = pair.consent.creator.creator_id
    return asked


def _json_object(request: Request) -> dict[str, Any] | None:
    if not request.headers.get("content-type", "").lower().startswith("application/json"):
        return None
    try:
        found = json.loads(request.body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def text_of(body: dict[str, Any], name: str) -> str:
    """Return a field of the body if it is a text, otherwise an empty text."""
    value = body.get(name)
    return value if isinstance(value, str) else ""
