"""Schedules of the chaos run: what goes wrong, when and to whom, drawn from a seed and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SPAN_SECONDS: Final = 0.35
"""Faults strike within this time from the start."""
WORKERS: Final = 2
STEPS: Final = (
    "pre_claim",
    "post_claim",
    "pre_send",
    "post_send",
    "post_recv",
    "pre_journal",
    "post_write",
    "post_fsync",
    "pre_commit",
    "post_commit",
)
RAISING: Final = tuple(step for step in STEPS if step != "post_recv")
"""Where an exception may come from: nothing that could fail stands between the last byte and the journal's begin."""
ANSWERS: Final[tuple[Mapping[str, Any], ...]] = (
    {"kind": "lost", "how": "rst"},
    {"kind": "lost", "how": "fin"},
    {"kind": "lost", "how": "fin", "rotates": False},
    {"kind": "slow", "seconds": 0.2},
    {"kind": "slow", "seconds": 0.8},
    {"kind": "slow", "seconds": 0.8, "first": "wait"},
    {"kind": "drip", "part": "body", "seconds_per_byte": 0.02, "bytes": 8},
    {"kind": "cut", "at": -2, "framing": "length"},
    {"kind": "cut", "at": -2, "framing": "chunked"},
    {"kind": "cut", "at": -40, "framing": "close"},
    {"kind": "cut", "at": 60, "framing": "length", "how": "rst"},
    {"kind": "html", "status": 200},
    {"kind": "empty"},
    {"kind": "no_content"},
    {"kind": "status", "status": 502, "rotates": True},
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "retry_after": "1"},
    {"kind": "code", "code": 40100, "message": "Too many requests. The QPS limit was reached."},
    {"kind": "code", "code": 50000},
    {"kind": "redirect", "location": "http://127.0.0.1:9/", "status": 307},
    {"kind": "wrong_creator"},
    {"kind": "expires", "value": -1},
    {"kind": "expires", "value": None},
    {"kind": "huge", "bytes": 70_000},
)


@dataclass(frozen=True)
class Event:
    """One thing that goes wrong.

    Attributes:
        kind: `answer`, `point`, `kill`, `stop`, `end`, `redis_flush`, `redis_stop`, `redis_gone`, `database_held`,
            `database_read_only`, `row_refused`, `duplicates`, `consent` or `revoke`.
        at: seconds from the start.
        worker: the worker that it strikes, if it strikes one.
        creator: the creator that it strikes, if it strikes one.
        how: the kind's own settings.
    """

    kind: str
    at: float = 0.0
    worker: int = 0
    creator: int = 0
    how: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = " ".join(f"{name}={value}" for name, value in self.how.items())
        return f"{self.kind} at {self.at:.2f} s (worker {self.worker}, creator {self.creator}) {details}".rstrip()


@dataclass(frozen=True)
class Schedule:
    """One run of a small fleet through three faults."""

    seed: int
    database: str
    rotation: str
    retry: str
    creators: int
    events: tuple[Event, ...]

    def __str__(self) -> str:
        events = "; ".join(str(event) for event in self.events)
        return f"seed {self.seed}: {self.database}, {self.rotation}, retry {self.retry}: {events}"


def draw(seed: int, *, rotation: str | None = None) -> Schedule:
    """Return the schedule of a seed.

    Args:
        seed: any number; the same one gives the same schedule.
        rotation: TikTok's rotation mode, if not drawn.
    """
    dice = random.Random(seed)  # noqa: S311 - a seed must give the same schedule again
    database = dice.choice(("sqlite", "sqlite", "postgresql"))
    mode = dice.choice(("strict", "strict", "grace", "grace_another", "same"))
    return Schedule(
        seed=seed,
        database=database,
        rotation=rotation or mode,
        retry=dice.choice(("once", "once", "never")),
        creators=dice.randint(1, 4),
        events=tuple(sorted((_event(dice, database) for _ in range(3)), key=lambda event: event.at)),
    )


def _event(dice: random.Random, database: str) -> Event:
    make = dice.choices(list(_MAKERS), weights=list(_MAKERS.values()))[0]
    event = make(dice)
    if event.kind == "database_read_only" and database == "sqlite":
        return Event("database_held", event.at, how=event.how)
    return event


def _answer(dice: random.Random) -> Event:
    how = dict(dice.choice(ANSWERS)) | {"times": dice.randint(1, 3)}
    return Event("answer", creator=dice.randint(-1, 3), how=how)


def _point(dice: random.Random) -> Event:
    action = dice.choices(("kill", "stop", "raise"), weights=(6, 2, 1))[0]
    how = {
        "name": dice.choice(RAISING if action == "raise" else STEPS),
        "action": action,
        "passing": dice.randint(1, 3),
    }
    return Event("point", worker=dice.randrange(WORKERS), how=how)


def _timed(kind: str) -> Callable[[random.Random], Event]:
    return lambda dice: Event(
        kind, dice.uniform(0, SPAN_SECONDS), worker=dice.randrange(WORKERS), creator=dice.randrange(4)
    )


def _lasting(kind: str) -> Callable[[random.Random], Event]:
    return lambda dice: Event(
        kind, dice.uniform(0, SPAN_SECONDS), creator=dice.randrange(4), how={"seconds": dice.choice((0.1, 0.4, 0.9))}
    )


_MAKERS: Final[Mapping[Callable[[random.Random], Event], int]] = {
    _answer: 12,
    _point: 12,
    _timed("kill"): 5,
    _timed("stop"): 1,
    _timed("end"): 2,
    _timed("redis_flush"): 2,
    _lasting("redis_stop"): 1,
    _timed("redis_gone"): 1,
    _lasting("database_held"): 4,
    _lasting("database_read_only"): 2,
    _lasting("row_refused"): 2,
    _timed("duplicates"): 3,
    _timed("consent"): 4,
    _timed("revoke"): 2,
}
