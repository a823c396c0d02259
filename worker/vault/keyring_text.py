"""The keyring's text in a file: read, checked and changed without unwrapping its keys.

Unwrapping gets a key that the keyring does not hold itself from a file or a key service. It happens once, when a
process reads its keyring, and never for a row: a key service that is away stops no running process.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from worker.errors import ConfigurationError, NotReadyError, UsageError
from worker.pasted import read_file

KEY_BYTES: Final = 32
MAX_KEY_ID: Final = 2**32 - 1
SHAPE: Final = '{"active": 1, "keys": {"1": "root:<32 bytes, base64>"}, "fingerprint": "<32 bytes, base64>"}'
FROM_FILE: Final = "file:"
FROM_SERVICE: Final = "wrapped:"
"""A value with one of these prefixes is not a key: it names a file that holds one, or is a blob for a key service."""
ROOT: Final = "root:"
ACCESS_ONLY: Final = "access:"
"""A prefix says how a key is used: keys are derived from a `root:` key, and an `access:` key was derived for readers.
A key without a prefix seals records itself, as all keys did before there were roots."""

FINGERPRINT_ID: Final = 0
"""The id of the fingerprint key in calls of a key service."""

Unwrap = Callable[[int, str], bytes]
"""`unwrap(key_id, blob)` returns the 32 bytes of a key; `blob` is the text after `wrapped:` in the keyring."""


@dataclass(frozen=True)
class KeyringText:
    """The content of a keyring's JSON, before anything is unwrapped.

    Attributes:
        active: id of the key that seals.
        keys: each key's id and value: `root:`, `access:` or nothing, and then base64, `file:PATH` or `wrapped:BLOB`;
            never printed.
        fingerprint: the value of the key of fingerprints; never printed.
        retired: ids that were used once and are never given to another key.
        app_id: the app whose tokens a reader's keyring is for; empty in the keyring of the workers.
    """

    active: int
    keys: dict[int, str] = field(repr=False)
    fingerprint: str = field(repr=False)
    retired: tuple[int, ...] = ()
    app_id: str = ""

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a keyring's JSON.

        Raises:
            ConfigurationError: its text says what is wrong, and never echoes the keyring.
        """
        try:
            raw = json.loads(text)
        except ValueError:
            raise ConfigurationError(f"the keyring is not JSON; it has the shape {SHAPE}") from None
        if not isinstance(raw, dict) or not isinstance(raw.get("keys"), dict) or not raw["keys"]:
            raise ConfigurationError(f"the keyring names no keys; it has the shape {SHAPE}")
        keys = {_key_id(name): str(value) for name, value in raw["keys"].items()}
        for key_id, value in keys.items():
            _check(bare_of(value), f"key {key_id}")
        active, retired = _key_id(raw.get("active")), raw.get("retired", [])
        if active not in keys:
            raise ConfigurationError(f"the keyring's active key {active} is not among its keys {sorted(keys)}")
        if not isinstance(retired, list) or not keys.keys().isdisjoint(gone := tuple(map(_key_id, retired))):
            raise ConfigurationError('the keyring\'s "retired" is not a list of ids that are no longer in use')
        fingerprint = str(raw.get("fingerprint"))
        _check(fingerprint, "fingerprint")
        if len(keys) < len(raw["keys"]) or len({*map(bare_of, keys.values()), fingerprint}) <= len(keys):
            raise ConfigurationError("the keyring names a key id or holds a key twice; each key has one id and one use")
        app_id = raw.get("app", "")
        if not isinstance(app_id, str):
            raise ConfigurationError('the keyring\'s "app" is not a text')
        read = cls(active, keys, fingerprint, gone, app_id)
        if read.for_readers and not all(value.startswith(ACCESS_ONLY) for value in keys.values()):
            raise ConfigurationError('the keyring mixes "access:" keys with others; a reader\'s keyring has no others')
        return read

    @property
    def for_readers(self) -> bool:
        """True if this keyring opens access tokens only."""
        return any(value.startswith(ACCESS_ONLY) for value in self.keys.values())

    def to_json(self) -> str:
        """Return the JSON that `read` reads; it is a secret, unless all keys are wrapped."""
        raw: dict[str, Any] = {"active": self.active, "keys": {str(number): self.keys[number] for number in self.keys}}
        raw["fingerprint"] = self.fingerprint
        if self.retired:
            raw["retired"] = sorted(self.retired)
        if self.app_id:
            raw["app"] = self.app_id
        return json.dumps(raw)

    def with_new_key(self) -> tuple[Self, int]:
        """Return a keyring with one more random root key, which opens and does not seal yet, and that key's id.

        Raises:
            UsageError: the keys of this keyring are wrapped, and a bare key would defeat that; or it is for readers.
        """
        self._refuse_for_readers()
        if any(is_wrapped(bare_of(value)) for value in self.keys.values()):
            raise UsageError(
                "the keys of this keyring are wrapped: make the new key where they were made, and add it by hand "
                f'under the id {self._next_id()}, with "{ROOT}" before its value'
            )
        key_id = self._next_id()
        value = ROOT + base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        return replace(self, keys=self.keys | {key_id: value}), key_id

    def with_active(self, key_id: int) -> Self:
        """Return the keyring with another of its keys active.

        Raises:
            UsageError: it holds no such key.
        """
        self._refuse_unknown(key_id)
        return replace(self, active=key_id)

    def without(self, key_id: int) -> Self:
        """Return the keyring without a key, whose id is never used again.

        Raises:
            UsageError: it holds no such key, or the key is active.
        """
        self._refuse_unknown(key_id)
        if key_id == self.active:
            raise UsageError(f"key {key_id} is active in this keyring; make another one active first")
        kept = {number: value for number, value in self.keys.items() if number != key_id}
        return replace(self, keys=kept, retired=(*self.retired, key_id))

    def _refuse_for_readers(self) -> None:
        if self.for_readers:
            raise UsageError("this is a reader's keyring; change the one that workers use, and run `keys reader` again")

    def _refuse_unknown(self, key_id: int) -> None:
        self._refuse_for_readers()
        if key_id not in self.keys:
            raise UsageError(f"the keyring holds no key {key_id}; it holds {sorted(self.keys)}")

    def _next_id(self) -> int:
        return max((*self.keys, *self.retired)) + 1


def bare_of(value: str) -> str:
    """Return a key's value without the prefix of its use."""
    for prefix in (ROOT, ACCESS_ONLY):
        if value.startswith(prefix):
            return value.removeprefix(prefix)
    return value


def is_wrapped(value: str) -> bool:
    """Return True if a value without prefix names a file or holds a blob instead of the key itself."""
    return value.startswith((FROM_FILE, FROM_SERVICE))


def decoded(value: str, name: str) -> bytes:
    """Return a key from its base64.

    Raises:
        ConfigurationError: it is not 32 bytes; the text does not echo it.
    """
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):  # ValueError for letters outside ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigurationError(f"the keyring's {name} is not {KEY_BYTES} bytes in base64")
    return key


def _key_id(name: object) -> int:
    try:
        key_id = int(str(name))
    except ValueError:
        key_id = 0
    if not 1 <= key_id <= MAX_KEY_ID:
        raise ConfigurationError(f"a key id in the keyring is not a number from 1 to {MAX_KEY_ID}")
    return key_id


def _check(value: str, name: str) -> None:
    """Refuse a value that is neither a key nor the place of one."""
    if not is_wrapped(value):
        decoded(value, name)


def no_service(key_id: int, blob: str) -> bytes:
    """Refuse to unwrap, because no key service is set.

    Raises:
        ConfigurationError: always.
    """
    del blob
    raise ConfigurationError(f"the keyring's {name_of(key_id)} is wrapped, and EVERTOKEN_KEYRING_UNWRAP is not set")


def load_unwrap(address: str) -> Unwrap:
    """Return the function of a key service.

    Args:
        address: `package.module:function`.

    Raises:
        ConfigurationError: there is no such function.
    """
    module, _, name = address.partition(":")
    try:
        found: Unwrap = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"EVERTOKEN_KEYRING_UNWRAP: {address} cannot be imported ({type(error).__name__}); "
            "it has the form package.module:function"
        ) from None
    if not callable(found):
        raise ConfigurationError(f"EVERTOKEN_KEYRING_UNWRAP: {address} is not a function")
    return found


def key_of(value: str, key_id: int, unwrap: Unwrap) -> bytes:
    """Return the key behind a keyring's value.

    Args:
        value: base64, `file:PATH` or `wrapped:BLOB`.
        key_id: its id; `FINGERPRINT_ID` for the key of fingerprints.
        unwrap: the key service.

    Raises:
        ConfigurationError: the file cannot be read, or the key is not 32 bytes.
        NotReadyError: the service did not give the key; its message is not repeated, since it may hold the key.
    """
    name = name_of(key_id)
    if value.startswith(FROM_FILE):
        return decoded(_content(value.removeprefix(FROM_FILE), name), name)
    if not value.startswith(FROM_SERVICE):
        return decoded(value, name)
    try:
        key = unwrap(key_id, value.removeprefix(FROM_SERVICE))
    except (ConfigurationError, NotReadyError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a foreign service raises, its text stays out of ours
        raise NotReadyError(f"the key service did not unwrap the keyring's {name} ({type(error).__name__})") from None
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise ConfigurationError(f"the key service did not give {KEY_BYTES} bytes for the keyring's {name}")
    return key


def name_of(key_id: int) -> str:
    """Return the name of a key in messages."""
    return "fingerprint" if key_id == FINGERPRINT_ID else f"key {key_id}"


def _content(path: str, name: str) -> str:
    return read_file(Path(path), f"the file of the keyring's {name}")
