"""Sandboxes that end with their test, and a client on raw sockets that shows exactly what arrived."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox

PATHS = {
    "token": "tt_user/oauth2/token/",
    "refresh": "tt_user/oauth2/refresh_token/",
    "revoke": "tt_user/oauth2/revoke/",
    "token_info": "tt_user/token_info/get/",
}
SECRETS = {"client_id": "sandbox-app", "client_secret": "sandbox-secret"}
NUMBERS = count(1)
ALWAYS: dict[str, dict[str, str]] = {
    "token": {**SECRETS, "grant_type": "authorization_code", "redirect_uri": "https://localhost/callback/"},
    "refresh": {**SECRETS, "grant_type": "refresh_token"},
    "revoke": SECRETS,
    "token_info": {"app_id": "sandbox-app"},
}


@pytest.fixture
def start() -> Iterator[Callable[..., RunningSandbox]]:
    """Start sandboxes with the options given."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(start_sandbox(SandboxOptions(**options)))


@pytest.fixture(scope="session")
def shared() -> Iterator[RunningSandbox]:
    """One sandbox for tests that change nothing in it but their own creators."""
    with start_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def send() -> Callable[..., SimpleNamespace]:
    """Send one request and read until the connection ends: status, headers, body, json, ended (`fin` or `rst`)."""
    return _send


@pytest.fixture
def ask() -> Callable[..., SimpleNamespace]:
    """Send a token call by its short name; given fields replace the right ones, and None leaves a field out."""

    def _ask(sandbox: RunningSandbox, call: str, **fields: Any) -> SimpleNamespace:
        body = {name: value for name, value in {**ALWAYS[call], **fields}.items() if value is not None}
        return _send(sandbox, "POST", f"/open_api/v1.3/{PATHS[call]}", body=body)

    return _ask


@pytest.fixture
def struck(shared: RunningSandbox, ask: Callable[..., SimpleNamespace]) -> Callable[..., Any]:
    """Let one fault strike one refresh: gives what arrived and the ledger's line."""

    def _struck(kind: str, **how: Any) -> tuple[SimpleNamespace, LedgerEntry]:
        creator = f"struck-{next(NUMBERS)}"
        token = shared.grants(creators=[creator])[0]["refresh_token"]
        shared.fault(kind, creator=creator, call="refresh", times=1, **how)
        answer = ask(shared, "refresh", refresh_token=token)
        return answer, shared.entries()[-1]

    return _struck


def _send(
    sandbox: RunningSandbox,
    method: str,
    path: str,
    *,
    body: Any = None,
    headers: dict[str, str] | None = None,
    pieces: int = 1,
) -> SimpleNamespace:
    content = b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(content)), **(headers or {})}
    if body is not None:
        lines.setdefault("Content-Type", "application/json")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    whole = f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=20) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(pieces):
            line.sendall(whole[number * len(whole) // pieces : (number + 1) * len(whole) // pieces])
        received, ended = b"", "fin"
        try:
            while chunk := line.recv(65536):
                received += chunk
        except ConnectionResetError:
            ended = "rst"
    return _parsed(received, ended)


def _parsed(received: bytes, ended: str) -> SimpleNamespace:
    head, _, body = received.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    status = int(first.split(" ")[1]) if first else None
    return SimpleNamespace(status=status, headers=headers, body=body, json=found, ended=ended, received=received)
