"""What is wrong with an address in a setting, told before a library meets it; no text shows a part of the address."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit


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
    return None


def bad_url(name: str, url: str) -> Iterator[str]:
    """Yield what is wrong with an address of the web; arguments as for `bad_server`."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        yield f"{name} cannot be read as an address: its host or port is not one"
        return
    if parts.username or parts.password or not parts.hostname:
        yield f"{name} must be a plain address with a host and no password, such as https://host/path"
    elif parts.scheme != "https" and not (parts.scheme == "http" and on_loopback(url)):
        yield f"{name} must begin with https:// (plain http is taken only on loopback)"


def on_loopback(url: str) -> bool:
    """Return True where the host of an address is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
