"""The secrets of one rehearsal, each a canary, and lines of imports that carry one."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from tests.security.canary import Canary
from worker.vault import Keyring
from worker.vault.keyring import Use, key_of_use

TAIL_OF_TOKENS: Final = "!4821.va"
"""How every token and code of the sandbox ends, so that half a token is found as well."""


def marker(name: str) -> str:
    """Return a text that stands nowhere else, with letters of both cases and digits."""
    return f"{name}Canary{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Secrets:
    """Every secret of one rehearsal; none of them is printed."""

    issued: str = field(default_factory=lambda: marker("issued"), repr=False)
    spoken: str = field(default_factory=lambda: marker("spoken"), repr=False)
    imported: str = field(default_factory=lambda: marker("imported"), repr=False)
    typed: str = field(default_factory=lambda: marker("typed"), repr=False)
    app: str = field(default_factory=lambda: marker("app"), repr=False)
    next_app: str = field(default_factory=lambda: marker("nextapp"), repr=False)
    redis: str = field(default_factory=lambda: marker("redis"), repr=False)
    rabbitmq: str = field(default_factory=lambda: marker("rabbitmq"), repr=False)
    database: str = field(default_factory=lambda: marker("database"), repr=False)
    flower: str = field(default_factory=lambda: marker("flower"), repr=False)
    cookies: str = field(default_factory=lambda: marker("cookies"), repr=False)
    notice: str = field(default_factory=lambda: marker("notice"), repr=False)
    keyring: Keyring = field(default_factory=Keyring.new, repr=False)

    def canaries(self) -> list[Canary]:
        """Return what is looked for; each name says whose secret it is."""
        names = {
            "a token or code of TikTok": self.issued,
            "the end of a token or code of TikTok": TAIL_OF_TOKENS,
            "a token without a known beginning, or a body of TikTok": self.spoken,
            "an imported token": self.imported,
            "a secret that was typed into the wrong place": self.typed,
            "the app's secret": self.app,
            "the app's next secret": self.next_app,
            "Redis's password": self.redis,
            "RabbitMQ's password": self.rabbitmq,
            "the database's password": self.database,
            "Flower's password": self.flower,
            "the key of Flower's cookies": self.cookies,
            "the key of notices": self.notice,
        }
        keys = {f"sealing key {number}": key for number, key in self.keyring.keys.items()}
        keys |= {
            f"sealing key {number} for {use.value}": key_of_use(key, use)
            for number, key in self.keyring.keys.items()
            for use in Use
        }
        keys["the key of fingerprints"] = self.keyring.fingerprint_key
        texts = [Canary(name, text.encode()) for name, text in names.items()]
        return texts + [Canary(name, key) for name, key in keys.items()]


def bad_lines(secret: str) -> str:
    """Return lines for an import that cannot be taken, each with a secret in another place."""
    pair = {"creator_id": "someone", "access_token": f"act.{secret}", "refresh_token": f"rft.{secret}"}
    changes: list[dict[str, Any]] = [
        {"creator_id": secret + " x"}, {"creator_id": f"act.{secret}"}, {"access_token": [secret]},
        {"refresh_token": {"a": secret}}, {"refresh_token": f"{secret}\u00e9"}, {"expires_in": secret},
        {"issued_at": secret}, {"expires_at": f"2026-{secret}"}, {"scope": {"a": secret}}, {"scope": f"rft.{secret}"},
    ]  # fmt: skip
    lines = [json.dumps(pair | change) for change in changes]
    return "\n".join([*lines, json.dumps(pair)[:-8], f'["{secret}"]', f"act.{secret}"])


def foreign_lines(secret: str, life_seconds: int) -> str:
    """Return lines of creators whose tokens have no known beginning, and which TikTok does not know."""
    pairs = [(f"foreign-{number}", f"{secret}A{number}", f"{secret}R{number}") for number in range(4)]
    return "\n".join(
        json.dumps({"open_id": creator, "access_token": access, "refresh_token": refresh, "expires_in": life_seconds})
        for creator, access, refresh in pairs
    )
