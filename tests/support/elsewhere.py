"""A collector of OpenTelemetry and a Sentry in one HTTP server: keeps what it gets, unpacked, and may hang."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACES: Final = "/v1/traces"
KEY: Final = "elsewhereCanary0123456789"
"""Stands in the DSN, and in a header for the collector."""


class Elsewhere:
    """Runs the server until the block ends.

    Attributes:
        open: requests are answered while it is set; the others wait.
        got: path, headers and unpacked body of each request.
    """

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, bytes]] = []
        self.open = threading.Event()
        self.open.set()
        elsewhere = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                elsewhere.got.append((self.path, bytes(self.headers), body))
                elsewhere.open.wait()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """The usual variables that switch both on."""
        port = self._server.server_port
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={KEY}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "SENTRY_DSN": f"http://{KEY}@127.0.0.1:{port}/1",
        }

    def bodies(self) -> bytes:
        """Return all bodies; the headers have the key, as they must."""
        return b"\n".join(body for _, _, body in list(self.got))

    def spans(self) -> list[tuple[str, Span]]:
        """Return every span, each with the process that it is of."""
        found = []
        for path, _, body in list(self.got):
            if path != TRACES:
                continue
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                process = next(one.value.string_value for one in resource.resource.attributes if one.key == "process")
                found += [(process, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event."""
        for path, _, body in list(self.got):
            if path != TRACES:
                yield json.loads(body.split(b"\n", 2)[2].splitlines()[0])

    def messages(self) -> Counter[str]:
        """Return how often each message was sent."""
        return Counter(str(event["logentry"]["message"]) for event in self.events())
