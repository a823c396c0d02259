"""The keyring: several sealing keys with ids, one of them active."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import Self

from worker.errors import ConfigurationError
from worker.vault.keyring_text import KEY_BYTES, KeyringText
from worker.vault.unwrapping import FINGERPRINT_ID, Unwrap, key_of, no_service


@dataclass(frozen=True)
class Keyring:
    """Sealing keys by id, which of them is meant to seal, and the key of fingerprints.

    Attributes:
        active: id of the key that new records are to be sealed with.
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
    def from_json(cls, text: str, unwrap: Unwrap = no_service) -> Self:
        """Read a keyring.

        Args:
            text: a JSON object of the shape of `keyring_text.SHAPE`.
            unwrap: the key service for values that are wrapped; see `unwrapping`.

        Raises:
            ConfigurationError: says what is wrong; never echoes the text.
            NotReadyError: the key service did not answer.
        """
        read = KeyringText.read(text)
        keys = {key_id: key_of(value, key_id, unwrap) for key_id, value in read.keys.items()}
        fingerprint_key = key_of(read.fingerprint, FINGERPRINT_ID, unwrap)
        if len({*keys.values(), fingerprint_key}) <= len(keys):
            raise ConfigurationError("the keyring holds a key twice; each key has one id and one use")
        return cls(active=read.active, keys=keys, fingerprint_key=fingerprint_key)

    def to_json(self) -> str:
        """Return the keyring as JSON text with its keys in it; it is a secret."""
        return KeyringText(
            active=self.active,
            keys={key_id: base64.b64encode(key).decode() for key_id, key in sorted(self.keys.items())},
            fingerprint=base64.b64encode(self.fingerprint_key).decode(),
        ).to_json()
