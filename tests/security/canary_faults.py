"""Every fault that the sandbox knows, each for a creator of its own, so that all of them are on at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from worker.sandbox.process import RunningSandbox


@dataclass(frozen=True)
class Strike:
    """One fault that strikes once.

    Attributes:
        call: the call that it strikes: `token`, `refresh`, `revoke` or `account`.
        kind: the fault's kind.
        how: the kind's own settings.
    """

    call: str
    kind: str
    how: dict[str, Any] = field(default_factory=dict)


OF_ACCOUNT_DATA: Final = frozenset({"retired", "partial", "data", "other_account", "stuck_cursor", "rewrite"})
"""Kinds that change what a read brings and no more; the tests of account data play them."""


def ordinary(spoken: str, deadline_seconds: float) -> list[Strike]:
    """Return faults that concern one creator, of every kind there is.

    Args:
        spoken: a secret that answers say where they should not, and give as a token.
        deadline_seconds: what the daemon gives a call.
    """
    too_long = deadline_seconds + 1
    echo = f"the request was refresh_token={spoken} and token {spoken}"
    refresh: list[tuple[str, dict[str, Any]]] = [
        ("lost", {"how": "fin"}),
        ("lost", {"how": "rst", "rotates": False}),
        ("slow", {"seconds": too_long}),
        ("slow", {"seconds": too_long, "first": "wait"}),
        ("drip", {"part": "all", "seconds_per_byte": 0.002}),
        ("drip", {"part": "body", "seconds_per_byte": 0.05}),
        ("cut", {"at": 60}),
        ("cut", {"at": 350, "how": "rst"}),
        ("cut", {"at": 200, "framing": "chunked"}),
        ("cut", {"at": 120, "framing": "close", "part": "all"}),
        ("framing", {"framing": "chunked"}),
        ("framing", {"framing": "close"}),
        ("html", {}),
        ("html", {"status": 503, "rotates": False}),
        ("empty", {}),
        ("no_content", {}),
        ("status", {"status": 500, "body": echo}),
        ("status", {"status": 502, "body": f"<html><pre>{echo}</pre></html>"}),
        ("status", {"status": 200, "body": f'{{"code": 0, "data": "{echo}"'}),
        ("redirect", {"location": f"http://127.0.0.1:9/?refresh_token={spoken}", "status": 307}),
        ("redirect", {"location": f"https://{spoken}.example/", "status": 302}),
        *(("code", {"code": code, "message": f"Wrong: {echo}"}) for code in (40102, 40105, 40107, 50000, 51039, 99999)),
        ("code", {"code": 40110, "message": spoken}),
        ("wrong_creator", {}),
        ("expires", {}),
        *(("expires", {"value": value}) for value in (-1, 10**12, "soon", "3600", None)),
        ("expires", {"value": {"token": spoken}, "field": "refresh_token_expires_in"}),
        ("refresh_token", {}),
        ("refresh_token", {"value": spoken}),
        ("refresh_token", {"value": [spoken]}),
        ("scope", {"value": ["user.info.basic", 5, {"token": spoken}]}),
        ("extra", {"fields": {"access_token": spoken, "echo": echo}}),
        ("extra", {"fields": {"access_token": spoken, "refresh_token": spoken, "open_id": ["x", spoken]}}),
        ("huge", {"bytes": 200_000}),
        ("gzip", {}),
        ("gzip_bomb", {"bytes": 2**20}),
    ]
    others = [
        Strike("account", "code", {"code": 40105, "message": f"Access token {spoken} is bad"}),
        Strike("account", "status", {"status": 500, "body": echo}),
        Strike("account", "cut", {"at": 100}),
        Strike("account", "html", {"status": 200}),
        Strike("account", "slow", {"seconds": too_long}),
        Strike("account", "huge", {"bytes": 200_000}),
        Strike("token", "lost", {}),
        Strike("token", "cut", {"at": 300}),
        Strike("token", "code", {"code": 40110, "message": f"auth_code {spoken} was used"}),
        Strike("token", "wrong_creator", {}),
        Strike("token", "status", {"status": 500, "body": echo}),
        Strike("revoke", "code", {"code": 50000, "message": f"access_token={spoken}"}),
    ]
    return [Strike("refresh", kind, how) for kind, how in refresh] + others


def of_the_app(spoken: str) -> dict[str, list[Strike]]:
    """Return refusals about the whole app, said of one creator each, in the order in which they are to come."""
    return {
        "quota": [
            Strike("refresh", "code", {"code": 40133, "message": f"Account {spoken}"}),
            Strike("refresh", "code", {"code": 40100, "message": f"The QPS limit, token {spoken}"}),
            Strike("refresh", "status", {"status": 429, "retry_after": "1", "body": spoken}),
        ],
        "stop": [
            Strike("refresh", "code", {"code": 40002, "message": f"refresh_token: {spoken} is not valid"}),
            Strike("refresh", "code", {"code": 40113, "message": f"client_secret {spoken} is wrong"}),
        ],
    }


def switch_on(sandbox: RunningSandbox, strikes: list[Strike], prefix: str) -> dict[str, list[str]]:
    """Switch faults on, each for a creator of its own.

    Returns:
        The creators' ids by the call that is struck.
    """
    creators: dict[str, list[str]] = {}
    for number, strike in enumerate(strikes):
        creator = f"{prefix}{number}-{strike.call}-{strike.kind}"
        sandbox.fault(strike.kind, creator=creator, call=strike.call, times=1, **strike.how)
        creators.setdefault(strike.call, []).append(creator)
    return creators


def still_on(sandbox: RunningSandbox) -> list[dict[str, Any]]:
    """Return the faults that have not struck yet."""
    left: list[dict[str, Any]] = sandbox.control("faults")["faults"]
    return left
