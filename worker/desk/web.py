"""What every way through the desk shares: a request with its bounded body, its answer, and the way into a thread.

The store is synchronous, so each request is answered in a thread. Whatever goes wrong there becomes an answer: a
problem in JSON for programs, a page for people. No text of an exception that is not ours leaves the desk.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

from anyio.to_thread import current_default_thread_limiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from worker.errors import StoreUnavailableError
from worker.telemetry import SPANS, Fact, Span, count_answer, count_fact

LARGEST_BODY: Final = 16_384
"""Bytes of a request's body: the largest is a form of a few fields."""
DATABASE_SECONDS: Final = 5
"""When to come back if the database is away."""
PROBLEM: Final = "application/problem+json"
TYPES: Final = "urn:evertoken:problem:"


class ProblemError(Exception):
    """A request that gets no good answer.

    Attributes:
        status: HTTP's.
        kind: stable word for programs, the end of the problem's `type`.
        detail: one safe sentence.
        headers: such as `Retry-After`.
        more: further members of the problem.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = dict(more or {})


@dataclass(frozen=True)
class Asked:
    """A request whose body is here.

    Attributes:
        request: what Starlette read of it.
        body: its body.
        address: of the client, as a trusted proxy says if one stands between.
    """

    request: Request
    body: bytes
    address: str

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.request.method

    def part(self, name: str) -> str:
        """Return a part of the path."""
        return str(self.request.path_params[name])

    def query(self, known: Iterable[str]) -> dict[str, str]:
        """Return the parameters of the address.

        Raises:
            ProblemError: one is not known, comes twice or is no text.
        """
        return _pairs(self.request.scope["query_string"], frozenset(known))

    def form(self, known: Iterable[str]) -> dict[str, str]:
        """Return the fields of a form.

        Raises:
            ProblemError: as for `query`.
        """
        return _pairs(self.body, frozenset(known))


Handler = Callable[[Asked], Response]
"""Answers a request; called in a thread."""
Swift = Callable[[Asked], Awaitable[Response | None]]
"""Answers a request from the loop, or leaves it to the handler in a thread."""
IN_THREADS: Final[Mapping[str, Swift]] = MappingProxyType({})
MOST_WAITING: Final = 100
"""Requests that wait for a thread; more are refused at once, so that a database that hangs does not hold everybody."""
BUSY_SECONDS: Final = 5
Troubled = Callable[[Asked, ProblemError], Response]
"""Tells a problem: to a program, or to a person."""


class Ways:
    """Makes the routes of one kind of client.

    Args:
        address_of: returns a request's address.
        trouble: tells problems.
    """

    def __init__(self, address_of: Callable[[Request], str], trouble: Troubled) -> None:
        self._address_of = address_of
        self._trouble = trouble

    def route(
        self, path: str, name: str, handlers: Mapping[str, Handler], *, at_once: Mapping[str, Swift] = IN_THREADS
    ) -> Route:
        """Return a route.

        Args:
            path: its pattern.
            name: for metrics.
            handlers: by method; others are answered with 405. HEAD is not GET here, since a link that a program only
                looks at must not be used up.
            at_once: by method, what is asked in the loop before the handler, or in its place.
        """

        async def run(request: Request) -> Response:
            began = time.monotonic()
            asked = Asked(request, b"", self._address_of(request))
            handler, swift = handlers.get(request.method), at_once.get(request.method)
            with SPANS.over(Span("desk.request", {"route": name})) as span:
                if handler or swift:
                    answer = await self._answer(asked, handler, swift)
                else:
                    answer = self._trouble(asked, _not_allowed(request.method, {**handlers, **at_once}))
                span.fields |= {"method": request.method if handler or swift else "other", "status": answer.status_code}
            count_answer(name, answer.status_code, time.monotonic() - began)
            return answer

        route = Route(path, run, name=name)
        route.methods = None  # any: those without a handler are told so here
        return route

    async def _answer(self, asked: Asked, handler: Handler | None, at_once: Swift | None) -> Response:
        try:
            whole = Asked(asked.request, await _body_of(asked.request), asked.address)
            answer = await at_once(whole) if at_once else None
            if answer is not None or handler is None:
                return answer or Response(status_code=HTTPStatus.NO_CONTENT)
            _refuse_crowd()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            return self._told(asked, error)
        return await run_in_threadpool(self._guarded, whole, handler)

    def _guarded(self, asked: Asked, handler: Handler) -> Response:
        try:
            return handler(asked)
        except Exception as error:  # noqa: BLE001 - as above
            return self._told(asked, error)

    def _told(self, asked: Asked, error: Exception) -> Response:
        """Tell an error to the client, and one that we do not know to the log, with its traceback."""
        match error:
            case ProblemError():
                return self._trouble(asked, error)
            case StoreUnavailableError():
                return self._trouble(asked, database_away())
        count_fact(Fact("desk.crashed"))
        logging.getLogger("evertoken").error("desk.crashed", exc_info=error)
        return self._trouble(
            asked, ProblemError(500, "internal", "the desk met an error that it does not know; its log has it")
        )


def database_away() -> ProblemError:
    """Return the problem that the database does not answer, or refuses."""
    return ProblemError(
        503,
        "database-away",
        "the database does not answer",
        headers={"Retry-After": str(DATABASE_SECONDS)},
    )


def problem_answer(asked: Asked, problem: ProblemError) -> Response:
    """Return a problem as programs read it (RFC 9457)."""
    del asked
    document = {
        "type": TYPES + problem.kind,
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    return json_answer(document, status=problem.status, headers=problem.headers, media_type=PROBLEM)


def json_answer(
    document: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """Return a JSON document."""
    return Response(json.dumps(document), status, dict(headers or {}), media_type)


def _not_allowed(method: str, handlers: Iterable[str]) -> ProblemError:
    allowed = ", ".join(sorted(handlers))
    return ProblemError(405, "method", f"{method} is not possible here, only {allowed}", headers={"Allow": allowed})


def _refuse_crowd() -> None:
    """Refuse a request that would wait behind too many others.

    Raises:
        ProblemError: that is so.
    """
    if current_default_thread_limiter().statistics().tasks_waiting >= MOST_WAITING:
        raise ProblemError(
            503, "busy", "too many requests wait for the database", headers={"Retry-After": str(BUSY_SECONDS)}
        )


async def _body_of(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        ProblemError: it is too large, or the client went away.
    """
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise ProblemError(
                    413,
                    "too-large",
                    f"a body has at most {LARGEST_BODY} bytes",
                    headers={"Connection": "close"},
                )
    except ClientDisconnect:
        raise ProblemError(400, "cut-off", "the request was cut off") from None
    return body


def _pairs(text: bytes, known: frozenset[str]) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=50
        )
    except ValueError:
        raise ProblemError(422, "parameter", "the parameters are not names and values as of a form") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ProblemError(422, "parameter", f"a parameter is not known here; there are: {listed}")
        if name in found:
            raise ProblemError(422, "parameter", f"{name} comes twice")
        found[name] = value
    return found
