"""An operator's web hook: keeps what it gets, verifies as the reference library does, and gives prepared answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any, Final

from standardwebhooks import Webhook

SECRET: Final = "whsec_" + "Q0FOQVJZ" * 4
"""The base64 of 24 bytes; the word CANARY stands in them."""


@dataclass(frozen=True)
class Posted:
    """One request.

    Attributes:
        headers: by their names in small letters.
        body: as it came.
        path: to which it was posted.
    """

    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def message_id(self) -> str:
        """The id of the notice."""
        return self.headers["webhook-id"]

    def verified(self, secret: str | bytes = SECRET) -> dict[str, Any]:
        """Return the content, verified with the reference library.

        Raises:
            WebhookVerificationError: the signature is not good.
        """
        content: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return content


class Receiver(HTTPServer):
    """Keeps what it gets.

    Attributes:
        answer: the status of each answer.
        retry_after: the header of that name, if any.
        got: what came, in order.
        refuses: says which contents are answered with 400.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = 204
        self.retry_after: str | None = None
        self.got: list[Posted] = []
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False

    @property
    def url(self) -> str:
        """The address to post to."""
        return f"http://127.0.0.1:{self.server_port}/hook"

    @property
    def types(self) -> list[str]:
        """The kinds that came, in order."""
        return [str(json.loads(posted.body)["type"]) for posted in self.got]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """Keep the request and answer."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(Posted({name.lower(): value for name, value in self.headers.items()}, body, self.path))
        self.send_response(400 if self.server.refuses(json.loads(body)) else self.server.answer)
        if self.server.answer in {301, 302, 303, 307, 308}:
            self.send_header("Location", self.server.url.replace("/hook", "/elsewhere"))
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Stay silent."""


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    """Run a receiver until the block ends."""
    server = Receiver()
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
