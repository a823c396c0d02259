"""Understand a request to the open API: which call, what was sent, and whose it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.faults import CALLS
from worker.sandbox.registry import Consent, IssuedPair, Registry
from worker.sandbox.wire import Request


@dataclass(slots=True)
class Asked:
    """One call as it was understood.

    Attributes:
        call: its path below the base.
        body: the JSON object sent, None where there was none.
        access_token: the Access-Token header.
        query: the raw query.
        creator_id: whose call it is, as far as its token or code tells.
        consent: the consent of the token sent.
        used: the pair whose refresh token was sent.
        reused_after: for a used refresh token, what became of the answer that used it up.
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
    """Read a request and find out whose call it is; what is wrong with it is left to the call's work."""
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
    """Give a field of the body where it is a text, else an empty text."""
    value = body.get(name)
    return value if isinstance(value, str) else ""
