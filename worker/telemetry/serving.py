"""A small HTTP server for Prometheus and probes: `/metrics`, and `/healthz` beside it."""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from worker.telemetry.facts import Fact

REQUEST_SECONDS: Final = 10.0
"""How long a connection may take to send its request."""
ANSWER_SECONDS: Final = 60.0
"""How long it may then take to make and fetch the answer; Prometheus waits for 10 seconds by default."""
MOST_CONNECTIONS: Final = 32
"""Each has a thread and a descriptor of this process; a scraper and a probe need one each."""
FULL_AGAIN_SECONDS: Final = 60.0
"""How often it is reported that connections are closed unread."""
METRICS_PATHS: Final = frozenset({"/", "/metrics"})


class QuietHandler(WSGIRequestHandler):
    """Logs no request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""

    def parse_request(self) -> bool:
        """Read the head of a request; what follows has its own time limit."""
        whole = super().parse_request()
        self.server.answering(self.connection)  # type: ignore[attr-defined]  # it is a `BoundedServer`
        return whole


class BoundedServer(ThreadingWSGIServer):
    """Serves few connections at a time, and each for a limited time, so that no peer can use this process up."""

    report: Callable[[Fact], object]

    def __init__(self, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        self._deadlines: dict[Any, float] = {}
        self._full_at = -math.inf

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; close it at once if as many as allowed are open."""
        if len(self._deadlines) >= MOST_CONNECTIONS:
            if time.monotonic() - self._full_at >= FULL_AGAIN_SECONDS:
                self._full_at = time.monotonic()
                self.report(Fact("metrics.full", {"connections": MOST_CONNECTIONS}, level="warning"))
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + REQUEST_SECONDS
        super().process_request(request, client_address)

    def answering(self, request: Any) -> None:
        """Give a connection whose request was read the time for its answer."""
        self._deadlines[request] = time.monotonic() + ANSWER_SECONDS

    def service_actions(self) -> None:
        """End connections whose time is up; this is called twice a second."""
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if deadline <= now:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it

    def close_request(self, request: Any) -> None:
        """Close a connection."""
        self._deadlines.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log no peer that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


Check = Callable[[], tuple[bool, str]]


def serve(
    port: int,
    address: str,
    registry: CollectorRegistry,
    *,
    alive: Callable[[], bool],
    report: Callable[[Fact], object],
    pages: Mapping[str, Check] = MappingProxyType({}),
) -> int:
    """Serve metrics, `/healthz` and other checks in a thread, and return the port. Any other path is answered with 404.

    Args:
        port: TCP port; 0 for any that is free.
        address: IP address of this host; 0.0.0.0 or :: for all.
        registry: the metrics.
        alive: called for each request of `/healthz`, which is answered with 200 or 503.
        report: gets the fact `metrics.full`, at most once a minute, while connections are closed unread.
        pages: further checks by path: each returns whether all is well, and that in words.

    Raises:
        OSError: the port is taken or forbidden, or there is no such address.
    """
    metrics = make_wsgi_app(registry)

    checks: dict[str, Check] = {"/healthz": lambda: (True, "alive") if alive() else (False, "hangs"), **pages}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in METRICS_PATHS:
            page: Iterable[bytes] = metrics(environ, start)
            return page
        headers = [("Content-Type", "text/plain"), ("Cache-Control", "no-store")]
        check = checks.get(path)
        if check is None:
            start("404 Not Found", headers)
            return [f"not found; here are {', '.join(['/metrics', *checks])}\n".encode()]
        well, text = check()
        start("200 OK" if well else "503 Service Unavailable", headers)
        return [f"{text}\n".encode()]

    family, *_ = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(BoundedServer):
        address_family = family

    server = make_server(address, port, answer, Server, QuietHandler)
    server.report = report
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)
