"""A small HTTP server for Prometheus and probes: `/metrics`, and `/healthz` beside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer


class QuietHandler(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


def serve(port: int, address: str, registry: CollectorRegistry, *, alive: Callable[[], bool]) -> int:
    """Serve metrics and `/healthz` in a thread, and return the port.

    Args:
        port: TCP port; 0 for any that is free.
        address: IP address of this host; 0.0.0.0 or :: for all.
        registry: the metrics.
        alive: called for each request of `/healthz`, which is answered with 200 or 503.

    Raises:
        OSError: the port is taken or forbidden, or there is no such address.
    """
    metrics = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/healthz":
            page: Iterable[bytes] = metrics(environ, start)
            return page
        well = alive()
        start(
            "200 OK" if well else "503 Service Unavailable",
            [("Content-Type", "text/plain"), ("Cache-Control", "no-store")],
        )
        return [b"alive\n" if well else b"hangs\n"]

    family, *_ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(ThreadingWSGIServer):
        address_family = family

    server = make_server(address, port, answer, Server, QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)
