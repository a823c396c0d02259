"""Redis's address in all its forms, checked before a library reads it, for Celery's broker and for the limiter alike.

Both read `redis://`, `rediss://` and a Unix socket in forms of their own, and several Sentinels in neither's; so each
form is taken apart here, once. No text shows a part of the address.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from worker.addresses import HIGHEST_PORT, HOST_AND_PORT, bad_server, unreadable

TLS_SCHEME: Final = "rediss"
SOCKET_SCHEME: Final = "redis+socket"
SENTINEL_SCHEME: Final = "sentinel"
SENTINELS_SCHEME: Final = "sentinels"
SENTINEL_SCHEMES: Final = frozenset({SENTINEL_SCHEME, SENTINELS_SCHEME})
"""The second one is with TLS, to the Sentinels and to the servers that they name."""
TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"})
SENTINEL_OPTIONS: Final = frozenset({"service", "sentinel_username", "sentinel_password"})
REDIS_OPTIONS: Final = {
    "redis": frozenset[str](),
    TLS_SCHEME: TLS_OPTIONS,
    SOCKET_SCHEME: frozenset({"virtual_host"}),
    SENTINEL_SCHEME: SENTINEL_OPTIONS,
    SENTINELS_SCHEME: SENTINEL_OPTIONS | TLS_OPTIONS,
}
"""Options that may follow the ? in Redis's address. Celery and the limiter read the same address with other options."""
NUMBER: Final = re.compile(r"/?\d{1,5}", re.ASCII)
SERVICE: Final = re.compile(r"[\w.-]{1,60}", re.ASCII)
SENTINEL_PORT: Final = 26379
CERTIFICATE_CHECKS: Final = {
    word: check
    for short, check in (("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED))
    for word in (short, f"CERT_{short.upper()}")
}
"""Values of `ssl_cert_reqs` in Redis's address: the client's words and Celery's."""


@dataclass(frozen=True)
class Sentinels:
    """The Sentinels that know which server is the master, and how to speak to them and to it.

    Attributes:
        hosts: host and port of each Sentinel.
        service: the name by which they know the master.
        database: number of the database.
        login: user and password of the servers, as options of the client; empty if there is none.
        sentinel_login: the same for the Sentinels.
        tls: TLS options of the client, for both; empty without TLS.
    """

    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    login: Mapping[str, str] = field(repr=False)
    sentinel_login: Mapping[str, str] = field(repr=False)
    tls: Mapping[str, Any] = field(repr=False)


def bad_redis(name: str, url: str) -> str | None:
    """Return what is wrong with the address of Redis, or None; arguments as for `bad_server`."""
    scheme = url.partition("://")[0]
    if scheme not in REDIS_OPTIONS or "://" not in url:
        return f"{name} must begin with redis://, rediss://, redis+socket://, sentinel:// or sentinels://"
    problem = _bad_hosts(name, url) if scheme in SENTINEL_SCHEMES else bad_server(name, url)
    return problem or next(_redis_flaws(name, scheme, url), None)


def _bad_hosts(name: str, url: str) -> str | None:
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    matches = [HOST_AND_PORT.fullmatch(host) for host in hosts]
    strange = parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query
    if strange or any(match is None or int(match["port"] or 1) not in range(1, HIGHEST_PORT + 1) for match in matches):
        return unreadable(name)
    if any(not host.partition(":")[0] for host in hosts):
        return f"{name} must name the Sentinels: sentinel://host1:26379,host2:26379/0?service=NAME"
    return None


def _redis_flaws(name: str, scheme: str, url: str) -> Iterator[str]:
    parts = urlsplit(url)
    options, takes = dict(parse_qsl(parts.query, keep_blank_values=True)), REDIS_OPTIONS[scheme]
    for option in sorted(options.keys() - takes):
        others = ", ".join(sorted(takes)) or "none"
        yield f"{name} holds the option {option[:40]!a}, and {scheme}:// takes {others}; timeouts are ours to set"
    if not NUMBER.fullmatch(options.get("virtual_host", "0")):
        yield f"{name}: virtual_host is a number"
    if scheme != SOCKET_SCHEME and not NUMBER.fullmatch(parts.path.removeprefix("/") or "0"):
        yield f"{name} ends with the number of the database, such as /0, and with nothing else behind the /"
    if scheme in SENTINEL_SCHEMES and not SERVICE.fullmatch(options.get("service", "")):
        yield f"{name} must say by which name the Sentinels know the master, such as ?service=mymaster"
    yield from tls_flaws(name, options)


def tls_flaws(name: str, options: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the TLS options of an address.

    Args:
        name: the setting, for the text.
        options: what follows the ? in the address.
    """
    if options.get("ssl_cert_reqs", "required") not in CERTIFICATE_CHECKS:
        yield f"{name} holds an ssl_cert_reqs that is none of required, optional and none"
    if options.get("ssl_check_hostname", "true").lower() not in {"true", "false"}:
        yield f"{name} holds an ssl_check_hostname that is none of true and false"
    for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if option in options and not Path(options[option]).is_file():
            yield f"{name}: there is no file where {option} says"


def redis_tls(url: str) -> dict[str, Any]:
    """Return the TLS options of a Redis client for an address; empty if it is neither `rediss://` nor `sentinels://`.

    Celery's transport checks no certificate by default, so checking is set here; only the address can ask for less.

    Args:
        url: such as `rediss://host/0?ssl_ca_certs=FILE`; every `ssl_` option of the client is accepted.
    """
    parts = urlsplit(url)
    return tls_options(parts.query) if parts.scheme in {TLS_SCHEME, SENTINELS_SCHEME} else {}


def tls_options(query: str) -> dict[str, Any]:
    """Return the `ssl_` options of an address in the words of a Redis client; the certificate is checked by default.

    Args:
        query: what follows the ? in the address.
    """
    options: dict[str, Any] = {name: value for name, value in parse_qsl(query) if name.startswith("ssl_")}
    options["ssl_cert_reqs"] = CERTIFICATE_CHECKS[options.get("ssl_cert_reqs", "required")]
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() != "false"
    return options


def redis_client_url(url: str) -> str:
    """Return Redis's address in the client's form: with Celery's form of a Unix socket converted, and without TLS.

    Pass the client what `redis_tls` returns, too. For Sentinels see `read_sentinels`.
    """
    parts = urlsplit(url)
    if parts.scheme == TLS_SCHEME:
        others = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
        return urlunsplit(parts._replace(query=urlencode(others)))
    if parts.scheme != SOCKET_SCHEME:
        return url
    number = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/") or "0"
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"unix://{login}{unquote(parts.path)}?db={number}"


def read_sentinels(url: str) -> Sentinels | None:
    """Return the Sentinels that a checked address names; None if it names a server."""
    parts = urlsplit(url)
    if parts.scheme not in SENTINEL_SCHEMES:
        return None
    options = dict(parse_qsl(parts.query))
    who, _, hosts = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    tls = redis_tls(url)
    return Sentinels(
        hosts=tuple(_host_and_port(host) for host in hosts.split(",")),
        service=options["service"],
        database=int(parts.path.removeprefix("/") or "0"),
        login=_login(unquote(user), unquote(password)),
        sentinel_login=_login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        tls={"ssl": True, **tls} if tls else {},
    )


def _host_and_port(text: str) -> tuple[str, int]:
    match = HOST_AND_PORT.fullmatch(text)
    port = match["port"] if match else None
    host = text.removesuffix(f":{port}") if port else text.removesuffix(":")
    return host.strip("[]"), int(port or SENTINEL_PORT)


def _login(user: str, password: str) -> dict[str, str]:
    return {name: value for name, value in (("username", user), ("password", password)) if value}


def broker_address(url: str) -> str:
    """Return Redis's address as Celery reads it: of Sentinels each by itself, with the login of the servers."""
    sentinels = read_sentinels(url)
    if sentinels is None:
        return url
    parts = urlsplit(url)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return ";".join(
        f"{SENTINEL_SCHEME}://{login}{f'[{host}]' if ':' in host else host}:{port}/{sentinels.database}"
        for host, port in sentinels.hosts
    )


def broker_options(url: str, *, seconds: float) -> dict[str, Any]:
    """Return the transport options that Celery needs beside its address; empty if it names a server.

    Args:
        url: the address, as in the setting.
        seconds: longest wait for a Sentinel, to connect and for each answer.
    """
    sentinels = read_sentinels(url)
    if sentinels is None:
        return {}
    return {
        "master_name": sentinels.service,
        "sentinel_kwargs": {
            "socket_timeout": seconds, "socket_connect_timeout": seconds, **sentinels.sentinel_login, **sentinels.tls,
        },
    }  # fmt: skip
