"""What Evertoken asks of a broker besides carrying messages, whichever it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

QUEUES: Final = ("refresh", "pull", "default")
"""The queues by the names that people use, such as with `-Q`."""
LOOK_SECONDS: Final = 2.0
"""Longest wait for each answer to a look; it is shorter than the messages' own, so a broker that is slow excuses."""


@dataclass(frozen=True)
class QueueLook:
    """What a broker says of a queue.

    Attributes:
        waiting: messages that no worker has got yet.
        takers: workers that take its messages; None if the broker does not know them.
    """

    waiting: int
    takers: int | None = None


class Broker(Protocol):
    """A look into a broker, over connections of its own; one thread uses it at a time."""

    name: str
    setting: str
    """The setting that holds its address."""

    def serves(self) -> bool:
        """Return True if it would serve a new client: it answers, takes messages, and nothing of ours is spoilt."""
        ...

    def could_work(self, queues: Iterable[str], silent_seconds: float) -> bool:
        """Return True if it serves, so that nothing but the worker itself can be why it does nothing.

        Args:
            queues: the queues of the worker, by the names that people use.
            silent_seconds: for how long the worker has heard nothing from the broker; NaN if it never did.
        """
        ...

    def look(self) -> Mapping[str, QueueLook]:
        """Return what waits in each queue, by the names that people use.

        Raises:
            BrokerUnavailableError: it does not answer, or takes no messages.
        """
        ...

    def spoilt(self) -> list[str]:
        """Return the names in the broker that Celery needs and that are of a kind which it cannot use.

        Raises:
            BrokerUnavailableError: it does not answer.
        """
        ...
