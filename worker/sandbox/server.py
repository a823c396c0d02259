"""Run the sandbox: one asyncio server for the open API, the authorization page and the control API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from worker.sandbox.api import OpenApi
from worker.sandbox.consent import PATHS as CONSENT_PATHS
from worker.sandbox.consent import ConsentPage
from worker.sandbox.control import PREFIX as CONTROL_PREFIX
from worker.sandbox.control import Control
from worker.sandbox.options import SandboxOptions
from worker.sandbox.protocol import Connection
from worker.sandbox.wire import Deferred, Reply, Request, text_reply
from worker.sandbox.world import World

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where a sandbox listens."""

    host: str
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def to_json(self) -> dict[str, object]:
        """Return what a program that waits for the sandbox needs."""
        return {
            "event": "sandbox.ready",
            "port": self.port,
            "url": f"{self.origin}/open_api",
            "authorize_url": f"{self.origin}/v2/auth/authorize/",
            "control_url": f"{self.origin}{CONTROL_PREFIX}",
        }


async def serve(options: SandboxOptions, *, ready: Callable[[Address], None], stop: asyncio.Event) -> None:
    """Serve until asked to stop.

    Args:
        options: how the sandbox behaves.
        ready: called once it listens.
        stop: ends it; a control request sets it too.

    Raises:
        OSError: the port is taken or the ledger cannot be opened.
    """
    world = World(options)
    connections: set[Connection] = set()
    page = ConsentPage(world)
    control = Control(world, page, stop.set, lambda: len(connections))
    answering = partial(_answer, OpenApi(world), page, control)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: Connection(answering, connections), options.host, options.port, backlog=BACKLOG
        )
        try:
            bound = server.sockets[0].getsockname()
            ready(Address(bound[0], bound[1]))
            await stop.wait()
            # One turn of the loop, so that the answer to the request that stopped us is sent.
            await asyncio.sleep(0)
        finally:
            server.close()
            for connection in list(connections):
                connection.transport.close()
    finally:
        world.ledger.close()


def _answer(api: OpenApi, page: ConsentPage, control: Control, request: Request) -> Reply | Deferred:
    if request.path.startswith(CONTROL_PREFIX):
        return control.answer(request)
    if request.path in CONSENT_PATHS:
        if request.method != "GET":
            return text_reply("405 method not allowed", 405, (("Allow", "GET"),))
        return page.answer(request)
    return api.begin(request)
