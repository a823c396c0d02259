"""What a process needs to read access tokens: keys and the database."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Final, Generic, TypeVar

from worker.errors import ConfigurationError
from worker.settings import ReaderSettings
from worker.store import Store, open_store
from worker.vault import Keyring, Sealer, use_fingerprint_key
from worker.vault.keyring_text import load_unwrap, no_service

T = TypeVar("T")
POOL_SIZE: Final = 20
"""Most database connections that are kept; at least the number of worker threads."""


class Reading:
    """What a process needs to read access tokens: keys and the database, each built at its first use."""

    settings: ReaderSettings

    def __init__(self, settings: ReaderSettings, *, pool_size: int) -> None:
        """Keep what the parts are built from.

        Args:
            settings: what to build from.
            pool_size: most database connections that are kept; at least the number of threads that use them.
        """
        self.settings = settings
        self._pool_size = pool_size

    @cached_property
    def keyring(self) -> Keyring:
        """The sealing keys, unwrapped here and never again; their fingerprint key becomes that of the process."""
        address = self.settings.keyring_unwrap
        unwrap = no_service if address is None else load_unwrap(address)
        keyring = Keyring.from_json(self.settings.keyring.reveal(), unwrap)
        if self.settings.tiktok_app_id and keyring.app_id not in ("", self.settings.tiktok_app_id):
            raise ConfigurationError("the reader's keyring is for another app than EVERTOKEN_TIKTOK_APP_ID names")
        use_fingerprint_key(keyring.fingerprint_key)
        return keyring

    @property
    def app_id(self) -> str:
        """The app whose grants are read: the settings name it, or else a reader's keyring.

        Raises:
            ConfigurationError: neither names an app.
        """
        if app_id := self.settings.tiktok_app_id or self.keyring.app_id:
            return app_id
        raise ConfigurationError(
            "the keyring does not name its app: write it again with `celery -A worker keys reader`, or set "
            "EVERTOKEN_TIKTOK_APP_ID"
        )

    @cached_property
    def sealer(self) -> Sealer:
        """Seals and opens."""
        return Sealer(self.keyring, app_id=self.app_id)

    @cached_property
    def store(self) -> Store:
        """The database."""
        return open_store(
            self.settings.database_url,
            app_id=self.app_id,
            namespace=self.settings.namespace,
            pool_size=self._pool_size,
            statement_seconds=self.settings.store_seconds,
        )


class PerProcess(Generic[T]):
    """One object for each process: built at its first use, and again after a fork."""

    def __init__(self, build: Callable[[], T]) -> None:
        self._build = build
        self._lock = threading.RLock()  # a signal handler may ask while the same thread is building
        self._built: T | None = None
        self._pid = 0

    def get(self) -> T:
        """Return the object of this process."""
        with self._lock:
            if self._built is None or self._pid != os.getpid():
                self._built, self._pid = self._build(), os.getpid()
            return self._built
