"""RabbitMQ's address, checked before a library reads it; no text shows a part of the address."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from worker.addresses import bad_server
from worker.redis_address import TLS_OPTIONS, tls_flaws, tls_options

AMQP_SCHEME: Final = "amqp"
AMQPS_SCHEME: Final = "amqps"
PORTS: Final = {AMQP_SCHEME: 5672, AMQPS_SCHEME: 5671}
TAKES: Final = {AMQP_SCHEME: frozenset[str](), AMQPS_SCHEME: TLS_OPTIONS}
"""Options that may follow the ? in the address."""


@dataclass(frozen=True)
class AmqpAddress:
    """A RabbitMQ, and how to log in there.

    Attributes:
        vhost: its virtual host.
        tls: TLS options of py-amqp; empty without TLS.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: Mapping[str, Any] = field(repr=False)


def bad_amqp(name: str, url: str) -> str | None:
    """Return what is wrong with the address of RabbitMQ, or None; arguments as for `bad_server`."""
    scheme = url.partition("://")[0]
    if scheme not in TAKES or "://" not in url:
        return f"{name} must begin with amqp:// or amqps://; if Redis carries the messages, leave it out"
    return bad_server(name, url) or next(_flaws(name, scheme, url), None)


def _flaws(name: str, scheme: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    options, takes = dict(parse_qsl(parts.query, keep_blank_values=True)), TAKES[scheme]
    if not parts.hostname or "," in parts.netloc or ";" in url:
        yield f"{name} must name one host: amqp://user:password@host:5672/vhost; for a cluster, its load balancer"
    for option in sorted(options.keys() - takes):
        others = ", ".join(sorted(takes)) or "none"
        yield f"{name} holds the option {option[:40]!a}, and {scheme}:// takes {others}; timeouts are ours to set"
    if parts.path != "//" and "/" in parts.path.removeprefix("/"):
        yield f"{name} ends with the virtual host; a / in its name is written %2F"
    yield from tls_flaws(name, options)


def read_amqp(url: str) -> AmqpAddress:
    """Return the parts of a checked address; without a login it is RabbitMQ's own, guest."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return AmqpAddress(
        host=host,
        port=parts.port or PORTS[parts.scheme],
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        vhost=unquote(parts.path.removeprefix("/")) or "/",
        tls=_tls(parts.query, host) if parts.scheme == AMQPS_SCHEME else {},
    )


def amqp_url(url: str) -> str:
    """Return a checked address as Celery reads it: without options, which `AmqpAddress.tls` has."""
    return urlunsplit(urlsplit(url)._replace(query=""))


def _tls(query: str, host: str) -> dict[str, Any]:
    """Return TLS options in py-amqp's words: certificate and host are checked, unless the address asks for less."""
    asked = tls_options(query)
    checks_host = asked.pop("ssl_check_hostname", True) and asked["ssl_cert_reqs"] != ssl.CERT_NONE
    options = {name.removeprefix("ssl_"): value for name, value in asked.items()}
    return options | ({"server_hostname": host} if checks_host else {})
