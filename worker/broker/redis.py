"""Redis as the broker: the same server that counts the quota."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import redis

from worker.broker.contract import LOOK_SECONDS, QUEUES, QueueLook
from worker.errors import BrokerUnavailableError
from worker.limiter.connecting import connect
from worker.limiter.rights import PRIORITIES, spoilt_keys

SERVED: Final = "served"
SERVED_SECONDS: Final = 60


class RedisBroker:
    """A look into Redis; see `Broker`."""

    name = "Redis"
    setting = "EVERTOKEN_REDIS_URL"

    def __init__(self, url: str, prefix: str) -> None:
        """Ask nothing yet.

        Args:
            url: the address, as in the setting.
            prefix: what each of our keys begins with.
        """
        self._url = url
        self._prefix = prefix

    def serves(self) -> bool:
        """Return True if it answers, takes writes and has no spoilt key; a full or read-only one does not serve."""
        try:
            with connect(self._url, LOOK_SECONDS) as client:
                client.set(self._prefix + SERVED, "1", ex=SERVED_SECONDS)
                return not spoilt_keys(client, QUEUES, self._prefix)
        except (redis.RedisError, OSError):
            return False

    def could_work(self, queues: Iterable[str], silent_seconds: float) -> bool:
        """Return True if it serves: a worker asks it all the time, and gets an answer every second."""
        del queues, silent_seconds
        return self.serves()

    def look(self) -> Mapping[str, QueueLook]:
        """Return the lengths of the queues; see `Broker`."""
        try:
            with connect(self._url, LOOK_SECONDS) as client:
                return {name: QueueLook(self._length(client, name)) for name in QUEUES}
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailableError(f"Redis gives no queue's length ({type(error).__name__})") from None

    def spoilt(self) -> list[str]:
        """Return Celery's keys of a wrong type; see `Broker`."""
        try:
            with connect(self._url, LOOK_SECONDS) as client:
                return spoilt_keys(client, QUEUES, self._prefix)
        except (redis.RedisError, OSError) as error:
            raise BrokerUnavailableError(f"Redis does not answer ({type(error).__name__})") from None

    def _length(self, client: redis.Redis, queue: str) -> int:
        return sum(int(client.llen(f"{self._prefix}{queue}{priority}")) for priority in PRIORITIES)
