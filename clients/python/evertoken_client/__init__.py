"""Valid TikTok Business access tokens from an Evertoken desk: one file, the standard library, an address and a key.

    from evertoken_client import Client

    client = Client("https://tokens.example", "etk_...")
    token = client.token("creator-id", min_validity=300)
    answer = call_tiktok(token.access_token)
    if answer.status == 401:  # TikTok refused it: report that, and take a newer one
        token = client.replacement(token, min_validity=300)

A token is kept until it has too little time left, and is asked for again then. Threads may share a client.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, Optional, Tuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

__all__ = [
    "Client",
    "Creator",
    "EvertokenError",
    "NoTokenError",
    "NotYetError",
    "RefusedError",
    "Token",
    "UnknownCreatorError",
]

TYPES = "urn:evertoken:problem:"
LARGEST_ANSWER = 10_000_000
FIRST_OF_SERVER = 500
LONGEST_PAUSE_SECONDS = 5.0
WAIT_SECONDS = 15.0
"""Longest time for which the desk itself waits for a refresh."""


class EvertokenError(Exception):
    """The desk gave no good answer.

    Attributes:
        kind: the problem's word, such as `not-yet`; `unreachable` if no answer came.
        status: the HTTP status; 0 if no answer came.
    """

    def __init__(self, text: str, *, kind: str, status: int) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status


class NotYetError(EvertokenError):
    """No token is valid for so long yet, or the desk or its database is away: ask again later.

    Attributes:
        retry_after: seconds after which it is worth asking again.
    """

    def __init__(self, text: str, *, kind: str, status: int, retry_after: float) -> None:
        super().__init__(text, kind=kind, status=status)
        self.retry_after = retry_after


class UnknownCreatorError(EvertokenError):
    """There is no grant of this creator, or this key may not ask about it."""


class NoTokenError(EvertokenError):
    """The grant has no token and waiting does not help; `kind` is revoked, lost, held or reauth-needed."""


class RefusedError(EvertokenError):
    """The key or the request is wrong."""


@dataclass(frozen=True)
class Token:
    """A creator's access token.

    Attributes:
        expires_at: its end, in ISO 8601.
        generation: its number; a later token of the creator has a higher one.
    """

    creator_id: str
    access_token: str = field(repr=False)
    expires_at: str
    consent: int
    generation: int


@dataclass(frozen=True)
class Creator:
    """A creator that the key may ask about.

    Attributes:
        status: active, suspect, needs_reauth or revoked.
        reference: the operator's own name for the creator.
    """

    creator_id: str
    reference: Optional[str]
    status: str
    access_token_ends_at: Optional[str]
    refresh_token_ends_at: Optional[str]
    scopes: Tuple[str, ...]


class Client:
    """Asks a desk; safe to share between threads.

    Args:
        url: where the desk is, such as https://tokens.example.
        key: a key of `evertoken consumers add`.
        patience_seconds: how long a call asks again while no token is valid for so long, or the desk is away.
        timeout_seconds: longest wait for one answer; more than the 15 seconds for which a desk waits for a refresh.
        context: for https, such as one that trusts your own authority.
        monotonic: clock of this process, in seconds.
        sleep: waits between two tries.

    Raises:
        ValueError: the address or the key cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        patience_seconds: float = 30.0,
        timeout_seconds: float = 30.0,
        context: Optional[ssl.SSLContext] = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the address is a scheme and a host, such as https://tokens.example")
        if not key.isascii() or not key.isprintable() or not key or " " in key:
            raise ValueError("the key is not one of `evertoken consumers add`")
        self._url = url.rstrip("/")
        self._key = key
        self._patience = patience_seconds
        self._timeout = timeout_seconds
        self._monotonic = monotonic
        self._sleep = sleep
        self._opener = _opener(context)
        self._lock = threading.Lock()
        self._creators: Dict[str, threading.Lock] = {}
        self._kept: Dict[str, Tuple[Token, float]] = {}

    def __repr__(self) -> str:
        return f"Client({self._url!r})"

    def token(self, creator_id: str, *, min_validity: float = 60.0) -> Token:
        """Return a token that is valid for so many seconds more.

        Raises:
            NotYetError: none is yet, or nobody answers; ask again after `retry_after` seconds.
            UnknownCreatorError: there is no such creator for this key.
            NoTokenError: the grant has none, and waiting does not help.
            RefusedError: the key or `min_validity` is wrong.
        """
        return self._token(creator_id, min_validity, None)

    def replacement(self, token: Token, *, min_validity: float = 60.0) -> Token:
        """Report that TikTok refused a token, and return a newer one; errors as for `token`."""
        return self._token(token.creator_id, min_validity, token.generation)

    def report_rejected(self, token: Token) -> bool:
        """Report that TikTok refused a token, and wait for nothing.

        Returns:
            True if this report made a refresh due; False if a newer token is there, or one is under way.

        Raises:
            EvertokenError: as for `token`.
        """
        self._forget(token.creator_id, token.generation)
        body = json.dumps({"generation": token.generation}).encode()
        path = f"/v1/creators/{quote(token.creator_id, safe='')}/rejected"
        return bool(self._patiently(path, body)["refresh_requested"])

    def creators(self, *, status: Optional[str] = None) -> Iterator[Creator]:
        """Yield the creators that the key may ask about, page by page.

        Raises:
            EvertokenError: as for `token`.
        """
        after = 0
        while True:
            query = {"after": str(after), "limit": "1000", **({} if status is None else {"status": status})}
            page = self._patiently(f"/v1/creators?{urlencode(query)}", None)
            for each in page["creators"]:
                yield Creator(
                    each["creator_id"],
                    each["reference"],
                    each["status"],
                    each["access_token_ends_at"],
                    each["refresh_token_ends_at"],
                    tuple(each["scopes"]),
                )
            if page["next_after"] is None:
                return
            after = page["next_after"]

    def _token(self, creator_id: str, min_validity: float, refused: Optional[int]) -> Token:
        with self._lock:
            turn = self._creators.setdefault(creator_id, threading.Lock())
        with turn:  # threads that want the same token ask once
            if refused is not None:
                self._forget(creator_id, refused)
            kept, ends = self._kept.get(creator_id, (None, 0.0))
            if kept is not None and ends - self._monotonic() > min_validity:
                return kept
            query = {"min_validity": repr(float(min_validity)), "wait": f"{WAIT_SECONDS:g}"}
            if refused is not None:
                query["newer_than"] = str(refused)
            path = f"/v1/creators/{quote(creator_id, safe='')}/token?{urlencode(query)}"
            asked_at = self._monotonic()
            got = self._patiently(path, None)
            token = Token(got["creator_id"], got["access_token"], got["expires_at"], got["consent"], got["generation"])
            # Counted from before the request, so that the time of the answer's way is not added to the token's life.
            self._kept[creator_id] = token, asked_at + got["expires_in"]
            return token

    def _forget(self, creator_id: str, generation: int) -> None:
        kept, _ = self._kept.get(creator_id, (None, 0.0))
        if kept is not None and kept.generation <= generation:
            self._kept.pop(creator_id, None)

    def _patiently(self, path: str, body: Optional[bytes]) -> Any:
        """Ask, and ask again while that may help and the patience lasts."""
        end = self._monotonic() + self._patience
        while True:
            try:
                return self._ask(path, body)
            except NotYetError as error:
                pause = min(max(error.retry_after, 0.1), LONGEST_PAUSE_SECONDS)
                if self._monotonic() + pause >= end:
                    raise
            self._sleep(pause)

    def _ask(self, path: str, body: Optional[bytes]) -> Any:
        request = Request(self._url + path, data=body, method="GET" if body is None else "POST")  # noqa: S310 - checked
        request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        request.add_header("Accept", "application/json")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return json.loads(answer.read(LARGEST_ANSWER))
        except HTTPError as error:
            with error:
                raise _error_of(error) from None
        except (URLError, OSError, ValueError) as error:
            reason = type(getattr(error, "reason", error)).__name__
            raise NotYetError(
                f"the desk at {self._url} does not answer ({reason})", kind="unreachable", status=0, retry_after=1.0
            ) from None


class _NoRedirects(HTTPRedirectHandler):
    """Follows no redirect: the key is for one host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _opener(context: Optional[ssl.SSLContext]) -> OpenerDirector:
    # No proxy of the environment: a token's way is the address that the application names.
    return build_opener(ProxyHandler({}), HTTPSHandler(context=context), _NoRedirects)


def _error_of(error: HTTPError) -> EvertokenError:
    try:
        problem = json.loads(error.read(LARGEST_ANSWER))
        kind, text = str(problem["type"])[len(TYPES) :], str(problem["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        kind, text = "unreadable-answer", f"the answer is not one of a desk (HTTP {error.code})"
    if error.code in (429, 502, 503, 504):
        try:
            seconds = float(error.headers.get("Retry-After", "1"))
        except ValueError:
            seconds = 1.0
        return NotYetError(text, kind=kind, status=error.code, retry_after=seconds)
    kinds = {404: UnknownCreatorError, 409: NoTokenError}
    return kinds.get(error.code, RefusedError if error.code < FIRST_OF_SERVER else EvertokenError)(
        text, kind=kind, status=error.code
    )
