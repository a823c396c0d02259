"""A small HTTP server for Prometheus and probes: `/metrics`, and `/healthz` beside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer


class QuietHandler(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


Check = Callable[[], tuple[bool, str]]


def serve(
    port: int,
    address: str,
    registry: CollectorRegistry,
    *,
    alive: Callable[[], bool],
    pages: Mapping[str, Check] = MappingProxyType({}),
) -> int:
    """Serve metrics, `/healthz` and other checks in a thread, and return the port.

    Args:
        port: TCP port; 0 for any that is free.
        address: IP address of this host; 0.0.0.0 or :: for all.
        registry: the metrics.
        alive: called for each request of `/healthz`, which is answered with 200 or 503.
        pages: further checks by path: each returns whether all is well, and that in words.

    Raises:
        OSError: the port is taken or forbidden, or there is no such address.
    """
    metrics = make_wsgi_app(registry)

    checks: dict[str, Check] = {"/healthz": lambda: (True, "alive") if alive() else (False, "hangs"), **pages}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        check = checks.get(environ["PATH_INFO"])
        if check is None:
            page: Iterable[bytes] = metrics(environ, start)
            return page
        well, text = check()
        headers = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
        start("200 OK" if well else "503 Service Unavailable", headers)
        return [f"{text}\n".encode()]

    family, *_ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(ThreadingWSGIServer):
        address_family = family

    server = make_server(address, port, answer, Server, QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)
