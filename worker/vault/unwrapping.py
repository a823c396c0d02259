"""Unwrapping: how the keys of a keyring are got where it does not hold them itself, from files or a key service.

It happens once, when a process reads its keyring, and never for a row: a key service that is away stops nobody who
runs already.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.errors import ConfigurationError, NotReadyError
from worker.pasted import read_file
from worker.vault.keyring_text import FROM_FILE, FROM_SERVICE, KEY_BYTES, decoded

FINGERPRINT_ID: Final = 0
"""The id under which a service is asked for the key of fingerprints."""

Unwrap = Callable[[int, str], bytes]
"""`unwrap(key_id, blob)` returns the 32 bytes of a key; `blob` is what stands behind `wrapped:` in the keyring."""


def no_service(key_id: int, blob: str) -> bytes:
    """Stand in where no key service is set.

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
        ConfigurationError: the file cannot be read, or what came is not 32 bytes.
        NotReadyError: the service did not give the key; what it said is not repeated, since it may hold the key.
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
        raise ConfigurationError(f"the key service gave something else than {KEY_BYTES} bytes for the keyring's {name}")
    return key


def name_of(key_id: int) -> str:
    """Return how messages call a key."""
    return "fingerprint" if key_id == FINGERPRINT_ID else f"key {key_id}"


def _content(path: str, name: str) -> str:
    return read_file(Path(path), f"the file of the keyring's {name}")
