"""How this process leaves its host: straight or through one HTTP proxy, and which certificate authorities it trusts.

Only the settings decide. The environment's own names (`HTTPS_PROXY`, `SSL_CERT_FILE` and their like) change nothing:
a variable that was set for another program must not send tokens another way.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.exceptions import HTTPError

from worker.addresses import on_loopback
from worker.egress.proxy import Proxy
from worker.egress.reasons import in_words
from worker.egress.sockets import CURRENT, Call, tls_context
from worker.egress.wire import PlainConnection, TlsConnection


@dataclass(frozen=True)
class Head:
    """What the head of an answer says.

    Attributes:
        status: the HTTP status.
        retry_after: the header `Retry-After` as it came; None if there was none.
    """

    status: int
    retry_after: str | None


@dataclass(frozen=True)
class Egress:
    """The way out of one process.

    Attributes:
        proxy: what every call but those to loopback goes through; None for none.
        ca_file: the only certificate authorities to trust, as a PEM file; None for those that certifi brings.
    """

    proxy: Proxy | None = None
    ca_file: Path | None = None

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The one TLS context: TLS 1.2 or later, certificate and host name always checked."""
        return tls_context(self.ca_file)

    def proxy_to(self, url: str) -> Proxy | None:
        """Return the proxy on the way to an address, or None if that address is on this machine."""
        return None if on_loopback(url) else self.proxy

    def ask(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        connect_seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Head:
        """Send one request on a connection of its own and return the head of its answer; the body is not read.

        Nothing is repeated and no redirect is followed.

        Args:
            method: such as `POST`.
            url: a checked address: https, or http on loopback.
            seconds: the longest time of the whole call; resolving a host's name cannot be cut short.
            connect_seconds: the longest time of connecting, and of the TLS handshake after it.
            body: what is sent.
            headers: what is said beside it.

        Raises:
            NotConnectedError: there was no connection, so nothing was sent; the text is our own.
            ConnectionError: no whole head of an answer came in time; the text is our own.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        CURRENT.call = Call(seconds=seconds, connect_seconds=connect_seconds, proxy=self.proxy_to(url))
        connection = (
            TlsConnection(host, parts.port, ssl_context=self.context, cert_reqs="CERT_REQUIRED")
            if parts.scheme == "https"
            else PlainConnection(host, parts.port)
        )
        try:
            # Unless told otherwise, urllib3 reads the whole body and decompresses it, however long it becomes.
            connection.request(
                method,
                target,
                body=body,
                headers={"User-Agent": "evertoken", **(headers or {})},
                preload_content=False,
                decode_content=False,
            )
            answer = connection.getresponse()
            return Head(answer.status, answer.headers.get("Retry-After"))
        except (OSError, HTTPException, HTTPError) as error:
            reason = in_words(error)
        finally:
            connection.close()
            CURRENT.end()
        raise ConnectionError(reason)
