"""Consumers' keys: made here, shown once, kept as a hash, and compared in constant time.

A key is `etk_HANDLE_SECRET`. The handle is public and finds the row. The secret has 256 random bits, so a plain hash of
the key cannot be turned back, and a stolen database gives nobody a key.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from worker.errors import UsageError
from worker.policy.scope import ConsumerScope
from worker.store import ConsumerView, Store
from worker.vault import Token

KEY: Final = re.compile(r"etk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HANDLE_BYTES: Final = 8
SECRET_BYTES: Final = 32
TRUSTED_SECONDS: Final = 1.0
"""For how long a key that was found is not looked up again; a revoked key works so much longer at most."""
MOST_KNOWN: Final = 10_000
_NOBODYS: Final = sha256(secrets.token_bytes()).hexdigest()
"""What a key is compared with if no consumer has its handle, so that both cases take the same time."""


def add_consumer(store: Store, name: str, scope: ConsumerScope) -> tuple[ConsumerView, Token]:
    """Store a new consumer and return it with its key, which nobody can show again.

    Raises:
        UsageError: the name cannot be used, or another consumer has it.
        StoreUnavailableError: the database did not take it.
    """
    if not NAME.fullmatch(name):
        raise UsageError("a consumer's name has 1 to 64 letters, digits, dots, dashes and underscores")
    handle = secrets.token_hex(HANDLE_BYTES)
    key = f"etk_{handle}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return store.add_consumer(name, handle=handle, key_hash=hash_of(key), scope=scope), Token(key)


def hash_of(key: str) -> str:
    """Return what is stored of a key: its SHA-256, in hexadecimal."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


class ConsumerKeys:
    """Finds the consumer of a key; safe to share between threads.

    Args:
        store: where consumers are.
        monotonic: clock of this process, in seconds.
    """

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[str, tuple[ConsumerView, float]] = {}

    def seen(self, key: str) -> ConsumerView | None:
        """Return the consumer of a key that has worked in this process; it may have been revoked since."""
        found = self._known.get(hash_of(key))
        return found and found[0]

    def find(self, key: str) -> ConsumerView | None:
        """Return the consumer of a key; None if no consumer has it, or it was revoked.

        Raises:
            StoreUnavailableError: the database does not answer, and the key was not looked up a moment ago.
        """
        hashed, at = hash_of(key), self._monotonic()
        known, until = self._known.get(hashed, (None, 0.0))
        if known is not None and at < until:
            return known
        parts = KEY.fullmatch(key)
        found = self._store.consumer_of(parts[1]) if parts else None
        if not hmac.compare_digest(found.key_hash if found else _NOBODYS, hashed) or found is None:
            with self._lock:
                self._known.pop(hashed, None)
            return None
        with self._lock:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[hashed] = found, at + TRUSTED_SECONDS
        return found
