"""What stands before every page and answer: the names under which the desk is reached, and the headers that it bears.

A page is shown only under a name that the operator gave, since links are made and cookies are kept by names. The API
and the health checks have neither, and neighbours reach them by any name of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMELESS: Final = ("/v1/", "/healthz", "/readyz")
POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
}
"""No page is framed, runs a script, loads from elsewhere or tells where it came from."""
NO_STORE: Final = (b"cache-control", b"no-store")
"""Of each answer that does not say otherwise."""
STRICT_TRANSPORT: Final = "max-age=31536000"


class Guard:
    """Refuses pages under foreign names, and adds the headers.

    Args:
        inside: what is guarded.
        hosts: names under which pages are shown, without ports.
        over_tls: True if people reach the desk over TLS.
    """

    def __init__(self, inside: ASGIApp, *, hosts: Iterable[str], over_tls: bool) -> None:
        self._inside = inside
        self._hosts = frozenset(host.lower() for host in hosts)
        headers = HEADERS | ({"Strict-Transport-Security": STRICT_TRANSPORT} if over_tls else {})
        self._headers = {name.lower().encode(): value.encode() for name, value in headers.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._inside(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [each for each in message["headers"] if each[0] not in self._headers]
                if all(name != NO_STORE[0] for name, _ in headers):
                    headers.append(NO_STORE)
                message["headers"] = [*headers, *self._headers.items()]
            await send(message)

        nameless = scope["path"].startswith(NAMELESS)
        if nameless or _host_of(Headers(scope=scope)) in self._hosts:
            await self._inside(scope, receive, guarded)
            return
        refused = PlainTextResponse("This desk is not reached by this name; EVERTOKEN_DESK_URL names it.\n", 421)
        await refused(scope, receive, guarded)


class Addresses:
    """Finds out where a request came from.

    Args:
        proxies: addresses or networks whose `X-Forwarded-For` is taken.
    """

    def __init__(self, proxies: Iterable[str]) -> None:
        self._proxies = [ip_network(each) for each in proxies]

    def of(self, request: Request) -> str:
        """Return the address of the client, or of the last proxy that is not trusted."""
        address = self.peer(request)
        if not self.is_proxy(address):
            return address
        passed = [each.strip() for each in ",".join(request.headers.getlist("x-forwarded-for")).split(",")]
        for each in reversed(passed):
            if not _is_address(each):
                break
            address = each
            if not self.is_proxy(each):
                break
        return address

    def peer(self, request: Request) -> str:
        """Return the address at the other end of the connection."""
        return "" if request.client is None else request.client.host

    def is_proxy(self, address: str) -> bool:
        """Return True if an address is that of a trusted proxy."""
        return (
            bool(self._proxies) and _is_address(address) and any(ip_address(address) in each for each in self._proxies)
        )


def host_name(url: str) -> str:
    """Return the host of an address, without its port."""
    return urlsplit(url).hostname or ""


def _host_of(headers: Headers) -> str:
    """Return the name in the header Host, without its port; nothing if there is none or several."""
    given = headers.getlist("host")
    try:
        return (urlsplit(f"//{given[0]}").hostname or "") if len(given) == 1 else ""
    except ValueError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
