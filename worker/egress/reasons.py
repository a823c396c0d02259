"""Why no connection came about, in words of our own: the text of a foreign error may hold anything."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Final

FLAWS: Final = {
    "certificate has expired": "it has expired",
    "certificate is not yet valid": "it is not valid yet; is this machine's clock right?",
    "self-signed certificate": "it is signed by itself",
    "self-signed certificate in certificate chain": "its authority is not trusted",
    "unable to get local issuer certificate": "its authority is not trusted",
    "Hostname mismatch": "it is for another host name",
    "IP address mismatch": "it is for another address",
    "Missing Authority Key Identifier": "it does not say which key signed it (no Authority Key Identifier)",
    "Missing Subject Key Identifier": "its authority has no Subject Key Identifier",
    "CA cert does not include key usage extension": "its authority does not say that it may sign (no Key Usage)",
    "Basic Constraints of CA cert not marked critical": "its authority's Basic Constraints are not marked critical",
}
"""OpenSSL's words, by how they begin, and ours. Python 3.13 and later also refuse what RFC 5280 calls a flaw."""


SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What the system says when it has no descriptor or memory left for us."""
SHORTAGE: Final = "this host has no file descriptor or no memory left for it"


class NotConnectedError(Exception):
    """No connection came about, so nothing was sent; the text says why, in our own words.

    Attributes:
        ours: True if it was for want of descriptors or memory on this host.
    """

    def __init__(self, text: str, *, ours: bool = False) -> None:
        super().__init__(text)
        self.ours = ours


class ProxyError(OSError):
    """The proxy opened no way to the host, so nothing was sent; the text is our own."""


def is_shortage(error: BaseException) -> bool:
    """Return True if a call failed for want of descriptors or memory on this host."""
    if error.__context__ is not None and isinstance(error, ProxyError):  # it says so in words of its own
        return is_shortage(error.__context__)
    if isinstance(error, socket.gaierror):  # the resolver names no cause if it could open no file or socket
        return error.errno == socket.EAI_MEMORY or not _opens()
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in SHORT)


def _opens() -> bool:
    """Return False if this process can open nothing more."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in SHORT
    return True


def in_words(error: Exception) -> str:
    """Say why no connection came about, or why it broke."""
    if isinstance(error, ProxyError | NotConnectedError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {_flaw(error)}"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(error, socket.gaierror) and not is_shortage(error):
        return "its name was not resolved"
    refused = "the connection was refused" if isinstance(error, ConnectionRefusedError) else "the connection failed"
    return SHORTAGE if is_shortage(error) else refused


def _flaw(error: ssl.SSLCertVerificationError) -> str:
    """Say what is wrong with a certificate; how to make a good one is in docs/operations.md."""
    for theirs, ours in sorted(FLAWS.items(), reverse=True):
        if error.verify_message.startswith(theirs):
            return ours
    return f"OpenSSL's code is {error.verify_code}"
