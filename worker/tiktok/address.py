"""The two addresses of TikTok that a setting may change, checked before anything is sent there."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from worker.errors import ConfigurationError, UsageError


def checked_address(address: str, name: str) -> str:
    """Return an address that tokens may be sent to, without its last slash.

    Args:
        address: an absolute URL: https, or http where the host is this machine's loopback.
        name: the setting's name, for the error's text.

    Raises:
        ConfigurationError: for any other scheme, and for an address with user, query or fragment. The text holds
            nothing of the address, because a user part may hold a password.
    """
    parts = _split(address, name)
    if not parts.hostname:
        raise ConfigurationError(f"{name} names no host")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ConfigurationError(f"{name} must begin with https:// (http:// is for this machine's loopback only)")
    if "@" in parts.netloc or parts.query or parts.fragment or not address.isprintable() or " " in address:
        raise ConfigurationError(f"{name} must be a plain address without user, query, fragment or spaces")
    return address.rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this machine's loopback; no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def authorization_url(*, base: str, client_key: str, redirect_uri: str, state: str, scopes: Sequence[str]) -> str:
    """Return the link at which a creator gives consent.

    The redirect address goes out byte for byte as given: TikTok compares it with the registered one.

    Raises:
        UsageError: without a state or without scopes.
    """
    if not state:
        raise UsageError("an authorization link needs a state")
    if not scopes:
        raise UsageError("an authorization link needs at least one scope")
    query = {
        "client_key": client_key,
        "scope": ",".join(scopes),
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "state": state,
    }
    return f"{base}?{urlencode(query, quote_via=quote, safe='')}"


def _split(address: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None:
        raise ConfigurationError(f"{name} is not an address")
    return parts
