"""The desk as one ASGI application, put together from the services of its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio.to_thread
from starlette.applications import Starlette
from starlette.responses import Response

from worker.desk.api import WAITERS, Api
from worker.desk.connecting import Connecting
from worker.desk.guard import Addresses, Guard, host_name
from worker.desk.health import Health
from worker.desk.lacking import refuse_lacking
from worker.desk.operating import Operating
from worker.desk.pages import Pages
from worker.desk.sessions import Sessions
from worker.desk.web import Asked, ProblemError, Ways, problem_answer
from worker.services import Services
from worker.settings import Settings
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
    pages = Pages()
    people = Ways(addresses.of, pages.trouble)
    address = address_of(settings)
    sessions = Sessions(settings, origin=address, addresses=addresses, hook=services.hook)
    app = Starlette(
        routes=[
            *Health(services).routes(programs),
            *api.routes(programs),
            *pages.routes(people),
            *Connecting(services, pages).routes(people),
            *Operating(services, pages, sessions, address=address).routes(people),
            people.route("/{rest:path}", "unknown", {"GET": _nowhere}),
        ],
        lifespan=lambda _: _running(api),
    )
    return Guard(app, hosts=hosts_of(settings), over_tls=address_of(settings).startswith("https:"))


def address_of(settings: Settings) -> str:
    """Return where people reach the desk, without a slash at the end."""
    if settings.desk_url is not None:
        return settings.desk_url.rstrip("/")
    host = f"[{settings.desk_address}]" if ":" in settings.desk_address else settings.desk_address
    return f"http://{host}:{settings.desk_port}"


def hosts_of(settings: Settings) -> set[str]:
    """Return the names under which the desk shows pages: the operator's, and those of this host itself."""
    return {host_name(address_of(settings)), settings.desk_address, "localhost", "127.0.0.1", "::1"}


def _nowhere(asked: Asked) -> Response:
    del asked
    raise ProblemError(404, "unknown-address", "this address leads nowhere")


@asynccontextmanager
async def _running(api: Api) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield
    api.close()
