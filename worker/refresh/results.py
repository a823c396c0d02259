"""The possible results of a refresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from worker.policy.verdicts import AttemptOutcome


@dataclass(frozen=True)
class _Result:
    """How a refresh ended: `reason` says why, for people; `kind` is the word for logs and tables."""

    grant_id: int
    reason: str = ""
    kind: ClassVar[str]


@dataclass(frozen=True)
class Refreshed(_Result):
    """The new pair is stored and current; with `resumed`, this refresh has released the brake."""

    kind = "refreshed"
    resumed: bool = False


@dataclass(frozen=True)
class Superseded(_Result):
    """The new pair is stored, and somebody else's newer pair or consent is current."""

    kind = "superseded"


@dataclass(frozen=True)
class Skipped(_Result):
    """There was nothing to do, and nothing was sent."""

    kind = "skipped"


@dataclass(frozen=True)
class Denied(_Result):
    """The quota had no permit; one is likely after `wait_seconds`."""

    kind = "denied"
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Braked(_Result):
    """Refreshing is stopped for the whole app, and another grant has the probe."""

    kind = "braked"


@dataclass(frozen=True)
class NotReady(_Result):
    """This process could not keep an answer now, so nothing was sent."""

    kind = "not_ready"


@dataclass(frozen=True)
class Failed(_Result):
    """The attempt brought no pair; its outcome is recorded, unless nothing was sent."""

    kind = "failed"
    outcome: AttemptOutcome = AttemptOutcome.NOT_SENT


@dataclass(frozen=True)
class LeftOver(_Result):
    """TikTok answered, and the database has yet to take the result."""

    kind = "left_over"


Result = Refreshed | Superseded | Skipped | Denied | Braked | NotReady | Failed | LeftOver
