"""Sends a request to the configured host and returns every byte of the answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final

import requests
from urllib3.response import HTTPResponse

from worker.egress import SHORTAGE, Egress, NotConnectedError, is_shortage
from worker.egress.sockets import CURRENT, Call
from worker.egress.wire import BoundAdapter, Kept, silence_wire_logs
from worker.errors import NotSentError, ShortageError
from worker.tiktok.answers import told_of
from worker.tiktok.values import RawAnswer
from worker.tiktok.waits import header_seconds
from worker.vault.token import Token

VERSION: Final = "v1.3"
TOKEN_CALLS: Final = "tt_user/oauth2/"  # noqa: S105 - a path
CHUNK_BYTES: Final = 16384
HEAD_BYTES: Final = 16384
HEADER_LIMIT: Final = 64
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "evertoken"}
Observe = Callable[[str, float, Callable[[], Mapping[str, str | int | None]]], object]


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        method: `GET` or `POST`.
        path: below the version, with its final slash: without it TikTok answers a plain 404.
        content: the JSON body, or None.
        query: the query string; never a secret.
        access_token: the Access-Token header, or None.
        secrets: every secret in these, to be hidden from texts about the answer.
        most_bytes: most bytes of the answer's body, as it is sent.
        compressed: True to allow gzip; the body is returned as it came, and the reader bounds what it inflates to.
        failpoint: called with "post_send" and "post_recv".
    """

    method: str
    path: str
    most_bytes: int
    content: Mapping[str, str] | None = None
    query: Mapping[str, str] | None = None
    access_token: Token | None = None
    secrets: tuple[Token, ...] = ()
    compressed: bool = False
    failpoint: Callable[[str], object] = lambda _: None


class Transport:
    """Sends requests: reads over a connection of each thread, token calls over such as `Kept` allows.

    Requests are prepared here and handed to the adapter. A session of requests would do so too, and look for redirects,
    cookies, proxies and passwords on the way, which cost half as much as the call itself.

    Args:
        base_url: a checked address without its last slash.
        connect_seconds: longest time to connect, and again for the TLS handshake.
        deadline_seconds: longest time of a whole call. Resolving the host's name cannot be interrupted; if it used up
            the time, nothing is sent.
        observe: takes the path of each call that was sent, the seconds it took, and a function that reads its answer
            for a trace; an answer to a token call must be in the journal before that is called.
        egress: the route to the host.
    """

    def __init__(
        self,
        *,
        base_url: str,
        connect_seconds: float,
        deadline_seconds: float,
        observe: Observe,
        egress: Egress | None = None,
    ) -> None:
        self._root = requests.Request("GET", f"{base_url}/{VERSION}/").prepare().url or ""
        self._connect_seconds = connect_seconds
        self._deadline_seconds = deadline_seconds
        self._observe = observe
        egress = egress or Egress()
        self._context, self._proxy = egress.context, egress.proxy_to(base_url)
        self._own = threading.local()
        self._lock = threading.Lock()
        self._readers: list[tuple[threading.Thread, BoundAdapter]] = []
        self._kept = Kept()
        self._tokens = BoundAdapter(self._root + TOKEN_CALLS, context=self._context, kept=self._kept)
        self._closed = False
        silence_wire_logs()

    def send(self, request: Request) -> RawAnswer:
        """Send one request once, and return what came, complete or not.

        An exception of the failpoint "post_send" counts as a broken connection.

        Raises:
            NotSentError: no byte of the request's body can have reached TikTok.
        """
        call = Call(
            seconds=self._deadline_seconds,
            connect_seconds=self._connect_seconds,
            keep_bytes=request.most_bytes + HEAD_BYTES,
            after_send=partial(request.failpoint, "post_send"),
            proxy=self._proxy,
            keep=not request.path.startswith(TOKEN_CALLS) or self._kept.wanted,
        )
        CURRENT.call = call
        began = time.monotonic()
        try:
            raw = self._exchange(request, call)
        finally:
            CURRENT.end()
        self._observe(request.path, time.monotonic() - began, partial(told_of, raw))
        return raw

    def _exchange(self, request: Request, call: Call) -> RawAnswer:
        body = bytearray()
        status = retry_after = fault = None
        not_sent: str | None = None
        kind: type[NotSentError] = NotSentError
        try:
            with self._begin(request, call) as response:
                status = response.status
                retry_after = _retry_after(response.headers.get("Retry-After"))
                fault = _receive(response, body, request.most_bytes)
        except NotConnectedError as error:
            not_sent, kind = str(error), ShortageError if error.ours else NotSentError
        except Exception as error:  # noqa: BLE001 - a pair may have been received: no surprise may lose it
            fault = _fault(error, call, status)
            if request.content is not None and not call.body_began and not call.received:
                not_sent = "the connection broke before the request's body was sent"
                if is_shortage(error):
                    not_sent, kind = SHORTAGE, ShortageError
        if call.reused and (fault or not_sent):
            self._kept.distrust()
        if not_sent is not None:
            raise kind(f"{request.path} was not sent: {not_sent}", call=request.path)
        request.failpoint("post_recv")
        return RawAnswer(
            call=request.path,
            http_status=status,
            body=bytes(body) or _off_the_wire(call, status, request.most_bytes),
            complete=fault is None,
            fault=fault,
            retry_after=retry_after,
            sent=request.secrets,
        )

    def close(self) -> None:
        """Close every thread's connections; calls made later are not sent."""
        with self._lock:
            self._closed = True
            readers, self._readers = self._readers, []
        for adapter in (*(adapter for _, adapter in readers), self._tokens):
            adapter.close()

    def _begin(self, request: Request, call: Call) -> HTTPResponse:
        """Send and read up to the end of the answer's head."""
        if self._closed:
            raise NotConnectedError("the client is closed")
        response: HTTPResponse = (self._tokens if request.path.startswith(TOKEN_CALLS) else self._reader()).send(
            self._prepared(request, keep=call.keep),
            stream=True,
            timeout=(self._connect_seconds, self._deadline_seconds),
            verify=True,
        )
        if call.ended:  # the head was cut off, and http.client takes the cut for its end
            response.close()
            raise EOFError
        return response

    def _prepared(self, request: Request, *, keep: bool) -> requests.PreparedRequest:
        """Return a request as it is sent, with nothing in it that is not set here."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.hooks = request.method, {}
        url = self._root + request.path
        if request.query is None:
            prepared.url = url
        else:
            prepared.prepare_url(url, request.query)
        headers = dict(HEADERS)
        if request.compressed:
            headers["Accept-Encoding"] = "gzip"
        if request.content is not None:
            prepared.body = json.dumps(request.content).encode()
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(prepared.body))}
        if not keep:
            headers["Connection"] = "close"
        if request.access_token is not None:
            headers["Access-Token"] = request.access_token.reveal()
        prepared.headers = headers  # type: ignore[assignment]  # any mapping does; none of these stands there twice
        return prepared

    def _reader(self) -> BoundAdapter:
        """Return this thread's adapter for reads; those of threads that ended are closed on the way."""
        adapter: BoundAdapter | None = getattr(self._own, "reader", None)
        if adapter is not None:
            return adapter
        adapter = self._own.reader = BoundAdapter(self._root, context=self._context)
        with self._lock:
            ended = [pair for pair in self._readers if not pair[0].is_alive()]
            self._readers = [pair for pair in self._readers if pair[0].is_alive()]
            self._readers.append((threading.current_thread(), adapter))
        for _, other in ended:
            other.close()
        return adapter


def _receive(response: HTTPResponse, body: bytearray, most_bytes: int) -> str | None:
    """Read the body into `body` as it comes, so that nothing is lost if it is cut off; return what is wrong."""
    while chunk := response.read1(CHUNK_BYTES, decode_content=False):
        body += chunk
        if len(body) > most_bytes:
            del body[most_bytes:]
            return f"longer than {most_bytes} bytes"
    return None


def _off_the_wire(call: Call, status: int | None, most_bytes: int) -> bytes:
    """Return the received bytes if no body was found: a broken head may have swallowed it."""
    return bytes(call.received)[-most_bytes:] if status is None or b"{" in call.received else b""


def _fault(error: Exception, call: Call, status: int | None) -> str:
    """Say in our own words how an answer was cut off; the error's text may hold anything."""
    if call.overdue:
        return f"no complete answer within {call.seconds:g} s"
    where = "before an answer came" if status is None else "inside the answer"
    return f"the connection broke {where} ({type(error).__name__})"


def _retry_after(text: str | None) -> str | None:
    """Keep a Retry-After header only if it can be read: otherwise it could be any text, even an echo."""
    if text is None or header_seconds(text[:HEADER_LIMIT], datetime.now(UTC)) is None:
        return None
    return text[:HEADER_LIMIT]
