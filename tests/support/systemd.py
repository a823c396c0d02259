"""A stand-in for systemd's end of a watchdog: a socket that a process feeds."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from typing import Final

FED: Final = b"WATCHDOG=1"
"""What systemd takes for food."""


@dataclass
class Systemd:
    """Listens for what processes feed to the watchdog.

    Attributes:
        address: the value of NOTIFY_SOCKET for them.
        socket: where it arrives.
    """

    address: str = field(default_factory=lambda: f"@evertoken-test-{secrets.token_hex(8)}")

    def __post_init__(self) -> None:
        """Begin to listen."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + self.address.removeprefix("@"))

    def fed(self, seconds: float) -> bool:
        """Wait for a message; return whether one came that feeds the watchdog."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recv(99) == FED
        except TimeoutError:
            return False

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()
