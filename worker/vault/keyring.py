"""The keyring: several sealing keys with ids, one of them active."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Final, Self

from worker.errors import ConfigurationError

KEY_BYTES: Final = 32
MAX_KEY_ID: Final = 2**32 - 1
SHAPE: Final = '{"active": 1, "keys": {"1": "<32 bytes, base64>"}, "fingerprint": "<32 bytes, base64>"}'


@dataclass(frozen=True)
class Keyring:
    """Sealing keys by id, which of them seals, and the key of fingerprints.

    Attributes:
        active: id of the key that new records are sealed with.
        keys: key id to 32 bytes; never printed.
        fingerprint_key: 32 bytes, different from every sealing key.
    """

    active: int
    keys: dict[int, bytes] = field(repr=False)
    fingerprint_key: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a keyring with one fresh random key, id 1."""
        return cls(active=1, keys={1: secrets.token_bytes(KEY_BYTES)}, fingerprint_key=secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a keyring.

        Args:
            text: a JSON object of the shape of `SHAPE`.

        Raises:
            ConfigurationError: says what is wrong; never echoes the text.
        """
        try:
            raw = json.loads(text)
        except ValueError:
            raise ConfigurationError(f"the keyring is not JSON; it has the shape {SHAPE}") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("keys"), dict) or not raw["keys"]:
            raise ConfigurationError(f"the keyring names no keys; it has the shape {SHAPE}")
        keys = {_key_id(name): _key_bytes(value, f"key {name}") for name, value in raw["keys"].items()}
        active = _key_id(raw.get("active"))
        if active not in keys:
            raise ConfigurationError(f"the keyring's active key {active} is not among its keys {sorted(keys)}")
        fingerprint_key = _key_bytes(raw.get("fingerprint"), "fingerprint")
        if len(keys) < len(raw["keys"]) or len({*keys.values(), fingerprint_key}) <= len(keys):
            raise ConfigurationError("the keyring names a key id or holds a key twice; each key has one id and one use")
        return cls(active=active, keys=keys, fingerprint_key=fingerprint_key)

    def to_json(self) -> str:
        """Return the keyring as the JSON text that `from_json` reads; it is a secret."""
        return json.dumps(
            {
                "active": self.active,
                "keys": {str(key_id): base64.b64encode(key).decode() for key_id, key in sorted(self.keys.items())},
                "fingerprint": base64.b64encode(self.fingerprint_key).decode(),
            },
        )


def _key_id(name: object) -> int:
    try:
        key_id = int(str(name))
    except ValueError:
        key_id = 0
    if not 1 <= key_id <= MAX_KEY_ID:
        raise ConfigurationError(f"a key id in the keyring is not a number from 1 to {MAX_KEY_ID}")
    return key_id


def _key_bytes(value: object, name: str) -> bytes:
    try:
        key = base64.b64decode(str(value), validate=True)
    except ValueError:  # binascii.Error, and plain ValueError for letters outside ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the keyring's {name} is not {KEY_BYTES} bytes in base64")
    return key
