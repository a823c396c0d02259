"""The keyring: several sealing keys with ids, one of them active; whole, or for readers of access tokens."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.errors import ConfigurationError, UsageError
from worker.vault.keyring_text import (
    ACCESS_ONLY,
    FINGERPRINT_ID,
    KEY_BYTES,
    ROOT,
    KeyringText,
    Unwrap,
    bare_of,
    key_of,
    no_service,
)

_FOR_READERS: Final = b"evertoken fingerprints of readers"


class Use(StrEnum):
    """What a record holds; each use has a separate key, derived from a root key."""

    ACCESS = "access"
    REFRESH = "refresh"
    RECORD = "record"


@dataclass(frozen=True)
class Keyring:
    """Sealing keys by id, which of them should seal, and the key of fingerprints.

    Attributes:
        active: id of the key that should seal new records.
        keys: key id to 32 bytes; never printed.
        fingerprint_key: 32 bytes, different from every sealing key.
        direct: ids of the keys that seal records themselves; every other key is a root, from which keys are derived.
        for_readers: True if `keys` holds no roots, but the keys of access tokens that were derived from them.
        app_id: the app whose tokens a reader's keyring is for; empty in the keyring of the workers.
    """

    active: int
    keys: dict[int, bytes] = field(repr=False)
    fingerprint_key: bytes = field(repr=False)
    direct: frozenset[int] = field(default=frozenset(), repr=False)
    for_readers: bool = field(default=False, repr=False)
    app_id: str = field(default="", repr=False)

    @classmethod
    def new(cls) -> Self:
        """Return a keyring with one fresh random root key, id 1."""
        return cls(active=1, keys={1: secrets.token_bytes(KEY_BYTES)}, fingerprint_key=secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_json(cls, text: str, unwrap: Unwrap = no_service) -> Self:
        """Read a keyring.

        Args:
            text: a JSON object of the shape of `keyring_text.SHAPE`.
            unwrap: the key service for values that are wrapped; see `unwrapping`.

        Raises:
            ConfigurationError: its text says what is wrong, and never echoes the keyring.
            NotReadyError: the key service did not answer.
        """
        read = KeyringText.read(text)
        keys = {key_id: key_of(bare_of(value), key_id, unwrap) for key_id, value in read.keys.items()}
        fingerprint_key = key_of(read.fingerprint, FINGERPRINT_ID, unwrap)
        if len({*keys.values(), fingerprint_key}) <= len(keys):
            raise ConfigurationError("the keyring holds a key twice; each key has one id and one use")
        return cls(
            active=read.active,
            keys=keys,
            fingerprint_key=fingerprint_key,
            direct=frozenset(key_id for key_id, value in read.keys.items() if value == bare_of(value)),
            for_readers=read.for_readers,
            app_id=read.app_id,
        )

    def to_json(self) -> str:
        """Return the keyring as JSON text with its keys in it; it is a secret."""
        prefix = ACCESS_ONLY if self.for_readers else ROOT
        return KeyringText(
            active=self.active,
            keys={
                key_id: ("" if key_id in self.direct else prefix) + base64.b64encode(key).decode()
                for key_id, key in sorted(self.keys.items())
            },
            fingerprint=base64.b64encode(self.fingerprint_key).decode(),
            app_id=self.app_id,
        ).to_json()

    def reader(self, app_id: str = "") -> Self:
        """Return the keyring for applications that read access tokens: it opens those, nothing else, and seals nothing.

        It has a separate fingerprint key, so that nobody who has it can sign the state of a consent link.

        Args:
            app_id: the app whose tokens it is for; an application then needs no setting that names the app.

        Raises:
            UsageError: no key of this keyring can be given to readers.
        """
        if self.for_readers:
            raise UsageError("this is a reader's keyring already; make others from the keyring that workers use")
        roots = {key_id: key for key_id, key in self.keys.items() if key_id not in self.direct}
        if not roots:
            raise UsageError(
                "no key of this keyring has a key for access tokens alone, because all were made before such keys; "
                "add one with `keys new --add-to`, make it active, and run `keys rotate`"
            )
        return type(self)(
            active=self.active if self.active in roots else max(roots),
            keys={key_id: key_of_use(key, Use.ACCESS) for key_id, key in roots.items()},
            fingerprint_key=_derived(self.fingerprint_key, _FOR_READERS),
            for_readers=True,
            app_id=app_id,
        )


def key_of_use(root: bytes, use: Use) -> bytes:
    """Return the 32 bytes that seal records of one use; neither the root nor another use's key follows from them."""
    return _derived(root, b"evertoken seal " + use.value.encode())


def _derived(key: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label).derive(key)
