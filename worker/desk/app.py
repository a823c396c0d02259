"""The desk as one ASGI application, put together from the services of its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from starlette.applications import Starlette

from worker.desk.api import WAITERS, Api
from worker.desk.guard import Addresses, Guard, host_name
from worker.desk.health import Health
from worker.desk.web import Ways, problem_answer
from worker.errors import ConfigurationError
from worker.services import Services
from worker.settings import Settings
from worker.sources import PREFIX
from worker.tokens import token_reader

THREADS: Final = WAITERS + 20
"""Requests that are answered at the same time: those that wait for a refresh, and as many as the database has
connections for."""


def build_desk(services: Services) -> Guard:
    """Return the application.

    Raises:
        ConfigurationError: the desk lacks a setting.
    """
    refuse_lacking(services.settings)
    settings = services.settings
    addresses = Addresses(settings.desk_proxies)
    programs = Ways(addresses.of, problem_answer)
    api = Api(store=services.store, reader=token_reader(services), hook=services.hook)
    app = Starlette(
        routes=[*Health(services).routes(programs), *api.routes(programs)],
        lifespan=_with_threads,
    )
    return Guard(app, hosts=hosts_of(settings), over_tls=address_of(settings).startswith("https:"))


def refuse_lacking(settings: Settings) -> None:
    """Refuse to start without the secrets of the desk.

    Raises:
        ConfigurationError: its text names all that are missing.
    """
    lacking = []
    if settings.desk_secret is None:
        lacking.append(
            f"{PREFIX}DESK_SECRET is missing (or name a file that holds it in {PREFIX}DESK_SECRET_FILE); "
            "`openssl rand -hex 32` makes one"
        )
    if settings.desk_password is None and settings.desk_operator_header is None:
        lacking.append(
            f"{PREFIX}DESK_PASSWORD is missing (or name a file that holds it in {PREFIX}DESK_PASSWORD_FILE, or let a "
            f"proxy name the operators: {PREFIX}DESK_OPERATOR_HEADER)"
        )
    if lacking:
        raise ConfigurationError("; ".join(lacking))


def address_of(settings: Settings) -> str:
    """Return where people reach the desk, without a slash at the end."""
    if settings.desk_url is not None:
        return settings.desk_url.rstrip("/")
    host = f"[{settings.desk_address}]" if ":" in settings.desk_address else settings.desk_address
    return f"http://{host}:{settings.desk_port}"


def hosts_of(settings: Settings) -> set[str]:
    """Return the names under which the desk shows pages: the operator's, and those of this host itself."""
    return {host_name(address_of(settings)), settings.desk_address, "localhost", "127.0.0.1", "::1"}


@asynccontextmanager
async def _with_threads(_: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
