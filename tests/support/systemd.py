"""A stand-in for systemd's end of a watchdog: a socket that a process feeds."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field


@dataclass
class Systemd:
    """Listens for what processes feed to the watchdog.

    Attributes:
        address: the value of NOTIFY_SOCKET for them.
    """

    address: str = field(default_factory=lambda: f"@evertoken-test-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        """Begin to listen."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + self.address.removeprefix("@"))

    def fed(self, seconds: float) -> bool:
        """Wait for a message; return whether one came that feeds the watchdog."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(99) == b"WATCHDOG=1"
        except TimeoutError:
            return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
