"""The figures of a demo: lives short enough to see several refreshes, and the daemon's settings for them."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.sandbox.options import SandboxOptions
from worker.sandbox.stack import Stack
from worker.vault import Keyring

LIFE_SHARE: Final = 0.6
"""Life of an access token, as a part of the run: with renewal at two thirds, each creator is refreshed twice in it."""
LIFE_SHARE_OF_MANY: Final = 0.9
"""The same if many creators keep the processor busy: each is then refreshed once, and half of them twice."""
MANY_RATE: Final = 30.0
"""Refreshes a second above which creators count as many."""
RENEW_AT: Final = 2 / 3
SHORTEST_LIFE: Final = 6
SCANS_PER_LIFE: Final = 18
LATENCY_SECONDS: Final = 0.02
"""How long the sandbox takes to answer: short, but as long as a near network."""
COMFORTABLE_RATE: Final = 70.0
"""Refreshes a second, each followed by a pull, that two cores carry along with the sandbox, Flower and the board."""
ACCOUNTS: Final[dict[str, Any]] = {"videos": 24, "video_seconds": 20}
"""What the accounts are like: two pages of short videos, so that two cores can read most of them in a minute."""
OWNER_ONLY: Final = 0o600


@dataclass(frozen=True)
class DemoPlan:
    """The figures of a demo.

    Attributes:
        creators: how many creators consent.
        seconds: how long the daemon keeps their tokens alive.
    """

    creators: int
    seconds: float

    @property
    def life_seconds(self) -> int:
        """Life of an access token."""
        many = self.creators / (self.seconds * LIFE_SHARE * RENEW_AT) > MANY_RATE
        return max(SHORTEST_LIFE, round(self.seconds * (LIFE_SHARE_OF_MANY if many else LIFE_SHARE)))

    @property
    def rate(self) -> float:
        """Refreshes a second that keep all of them alive."""
        return self.creators / (self.life_seconds * RENEW_AT)

    @property
    def scan_seconds(self) -> float:
        """Time between two scans."""
        return round(min(5.0, max(0.25, self.life_seconds / SCANS_PER_LIFE)), 2)

    @property
    def quota_per_second(self) -> int:
        """A quota of which the fleet needs half: for refreshes, as many pulls, and as much again."""
        return max(20, math.ceil(self.rate * 4))

    def sandbox(self) -> SandboxOptions:
        """Return the sandbox's options: short lives, and a used refresh token is dead at once."""
        return SandboxOptions(
            app_id="demo-app",
            app_secret=secrets.token_hex(16),
            expires_in=self.life_seconds,
            rotation="strict",
            latency=LATENCY_SECONDS,
        )

    def environ(self, stack: Stack) -> dict[str, str]:
        """Write the secrets of this demo into files of its folder, and return the daemon's settings."""
        folder, options = stack.folder, stack.sandbox.options
        per_second = self.quota_per_second
        values: dict[str, object] = {
            "DATABASE_URL": f"sqlite:///{folder / 'evertoken.db'}",
            "REDIS_URL": stack.redis_url,
            "KEYRING_FILE": _secret_file(folder / "keyring.json", Keyring.new().to_json()),
            "JOURNAL_DIR": folder / "journal",
            "RUN_DIR": folder / "run",
            "TIKTOK_APP_ID": options.app_id,
            "TIKTOK_APP_SECRET_FILE": _secret_file(folder / "app_secret", options.app_secret),
            "TIKTOK_REDIRECT_URI": options.redirect_uri,
            "TIKTOK_BASE_URL": stack.sandbox.url,
            "TIKTOK_AUTHORIZE_URL": stack.sandbox.authorize_url,
            "RENEW_AT": RENEW_AT,
            "QUOTA_PER_SECOND": per_second,
            "QUOTA_PER_MINUTE": per_second * 60,
            "SCAN_SECONDS": self.scan_seconds,
            "UPKEEP_SECONDS": 15,
            "CONNECT_SECONDS": 2,
            "DEADLINE_SECONDS": 4,
            "STORE_SECONDS": 5,
            "LEASE_SECONDS": 15,
            "LOG_FORMAT": "json",
        }
        return {f"EVERTOKEN_{name}": str(value) for name, value in values.items()}


def _secret_file(path: Path, text: str) -> Path:
    path.touch(mode=OWNER_ONLY)
    path.write_text(text, encoding="utf-8")
    return path
