"""What is wrong with an address in a setting, told before a library meets it; no text shows a part of the address."""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

TLS_SCHEME: Final = "rediss"
CERTIFICATE_CHECKS: Final = {
    word: check
    for short, check in (("none", ssl.CERT_NONE), ("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED))
    for word in (short, f"CERT_{short.upper()}")
}
"""What `ssl_cert_reqs` may say in Redis's address: the words of the client and those of Celery."""

TIKTOK_DOMAINS: Final = ("tiktok.com", "tiktokapis.com")


def bad_server(name: str, url: str) -> str | None:
    """Return what is wrong with a server's address, or None.

    Libraries that met it later would show a part of the password.

    Args:
        name: the setting, for the text.
        url: its value.
    """
    if url.startswith(("sqlite:", "redis+socket:")):
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.fragment or parts.netloc.count("@") > 1 or "@" in parts.path + parts.query:
        return (
            f"{name} cannot be read: it is scheme://user:password@host:port/name, and in user and password each of "
            "/ ? # @ : % [ ] is written as % and two digits (%2F %3F %23 %40 %3A %25 %5B %5D)"
        )
    if dict(parse_qsl(parts.query)).get("ssl_cert_reqs", "required") not in CERTIFICATE_CHECKS:
        return f"{name} holds an ssl_cert_reqs that is none of required, optional and none"
    return None


def redis_tls(url: str) -> dict[str, Any]:
    """Return how a Redis client speaks TLS to an address; empty where it is not `rediss://`.

    Celery's transport checks no certificate unless told to, so it is told: only the address itself can ask for less.

    Args:
        url: such as `rediss://host/0?ssl_ca_certs=FILE`; every `ssl_` option of the client is taken.
    """
    parts = urlsplit(url)
    if parts.scheme != TLS_SCHEME:
        return {}
    told: dict[str, Any] = {name: value for name, value in parse_qsl(parts.query) if name.startswith("ssl_")}
    told["ssl_cert_reqs"] = CERTIFICATE_CHECKS[told.get("ssl_cert_reqs", "required")]
    if "ssl_check_hostname" in told:
        told["ssl_check_hostname"] = told["ssl_check_hostname"].lower() != "false"
    return told


def bad_url(name: str, url: str, *, bare: bool = False) -> str | None:
    """Return what is wrong with an address of the web, or None.

    Args:
        name: the setting, for the text.
        url: its value.
        bare: True where nothing may follow the path, because we append to it.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return f"{name} cannot be read as an address: its host or port is not one"
    if "@" in parts.netloc or not parts.hostname:
        return f"{name} must be a plain address with a host and no password, such as https://host/path"
    if parts.scheme != "https" and not (parts.scheme == "http" and on_loopback(url)):
        return f"{name} must begin with https:// (plain http is taken only on loopback)"
    if not url.isascii() or not url.isprintable() or " " in url:
        return (
            f"{name} must be ASCII without blanks: other characters are written as % and two digits, a host in punycode"
        )
    if parts.fragment or (bare and parts.query):
        return f"{name} must end with its path: nothing may stand behind a {'#' if parts.fragment else '?'} in it"
    return None


def is_tiktoks(url: str) -> bool:
    """Return True where the host of an address belongs to TikTok."""
    host = (urlsplit(url).hostname or "").removesuffix(".")
    return any(host == domain or host.endswith(f".{domain}") for domain in TIKTOK_DOMAINS)


def bad_proxy(name: str, url: str) -> str | None:
    """Return what is wrong with the address of an egress proxy, or None; arguments as for `bad_server`."""
    if problem := bad_server(name, url):
        return problem
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path not in {"", "/"} or parts.query:
        return (
            f"{name} must be http://host:port or http://user:password@host:port: an HTTP proxy that opens tunnels "
            "(CONNECT); it sees the host's name and no more"
        )
    return None


def bad_authorities(name: str, file: Path) -> str | None:
    """Return what is wrong with a file of certificate authorities, or None.

    Args:
        name: the setting, for the text.
        file: its value.
    """
    try:
        ssl.create_default_context(cafile=str(file))
    except ssl.SSLError:
        return f"{name}: the file holds no certificate, or one that is damaged; it is in PEM form (BEGIN CERTIFICATE)"
    except OSError as error:
        return f"{name}: the file cannot be read ({error.strerror})"
    return None


def on_loopback(url: str) -> bool:
    """Return True where the host of an address is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
