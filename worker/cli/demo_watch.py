"""What a demo observes while it runs: counts from the database and the sandbox, and the daemon's log lines."""

from __future__ import annotations

import itertools
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worker.errors import StoreUnavailableError
from worker.sandbox.process import RunningSandbox, SandboxError
from worker.store import FleetStatus, Store
from worker.vault.redaction import redact

EVENTS_KEPT: Final = 60
LINE_LIMIT: Final = 160
REFRESH_CALL: Final = "tt_user/oauth2/refresh_token/"
PULL_CALL: Final = "business/get/"


@dataclass(frozen=True)
class Event:
    """One thing that the daemon logged.

    Attributes:
        stamp: when, as ISO 8601 in UTC.
        name: the dotted fact; for a foreign line its logger.
        level: `info`, `warning`, `error` ...
        text: a line for people.
    """

    stamp: str
    name: str
    level: str
    text: str

    @property
    def at(self) -> str:
        """The time of day, `HH:MM:SS`."""
        return self.stamp[11:19]


@dataclass(frozen=True)
class Sample:
    """The state of a run at one time.

    Attributes:
        elapsed: seconds since the creators consented.
        fleet: counts of the grants.
        refreshed: refreshes that the sandbox answered with a pair, since the start.
        pulled: reads of account data that it answered, since the start.
    """

    elapsed: float
    fleet: FleetStatus
    refreshed: int
    pulled: int


class Watch:
    """Samples a run; if a sample fails, the last one stays."""

    def __init__(self, store: Store, sandbox: RunningSandbox, logs: Path) -> None:
        self.samples: deque[Sample] = deque(maxlen=3600)
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._store = store
        self._sandbox = sandbox
        self._tails = [_Tail(path) for path in sorted(logs.glob("worker-*.log"))]
        self._begun = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self._begun

    def look(self) -> None:
        """Take a sample and read what was logged since the last look."""
        new = (event for tail in self._tails for event in tail.events())
        self.events.extend(sorted(new, key=lambda event: event.stamp))
        try:
            calls = self._sandbox.stats()["calls"]
            fleet = self._store.fleet_status()
        except (StoreUnavailableError, SandboxError, OSError):
            return
        self.samples.append(Sample(self.elapsed, fleet, _answered(calls, REFRESH_CALL), _answered(calls, PULL_CALL)))

    def rates(self, name: str, count: int) -> list[float]:
        """Return how many of `refreshed` or `pulled` came in a second, sample by sample, for the last ones."""
        samples = list(self.samples)[-count - 1 :]
        return [
            (getattr(after, name) - getattr(before, name)) / max(0.001, after.elapsed - before.elapsed)
            for before, after in itertools.pairwise(samples)
        ]


class _Tail:
    """Reads what is appended to a log file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._rest = b""

    def events(self) -> Iterator[Event]:
        """Return what was logged since the last call."""
        with self._path.open("rb") as log:
            log.seek(self._read)
            *lines, self._rest = (self._rest + log.read()).split(b"\n")
            self._read = log.tell()
        for line in lines:
            event = event_of(line)
            if event is not None:
                yield event


def event_of(line: bytes) -> Event | None:
    """Return what people are shown of a log line: our facts, and warnings and errors of any logger."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    level, name, logger = (str(found.get(key, "")) for key in ("level", "event", "logger"))
    if logger == "evertoken":
        text = _sentence(name, found)
    elif level in {"warning", "error", "critical"}:
        name, text = logger, f"{logger}: {name}"
    else:
        return None
    return Event(str(found.get("timestamp", "")), name, level, redact(text, LINE_LIMIT))


def _sentence(name: str, found: Mapping[str, Any]) -> str:
    creator = found.get("creator_id", "")
    if name == "refresh.saved":
        return f"refreshed {creator}, generation {found.get('generation')}"
    if name == "pull.saved":
        return f"pulled {creator}, {found.get('fields')} fields"
    shown = {key: found[key] for key in ("creator_id", "grant_id", "code", "reason") if found.get(key) is not None}
    return f"{name} " + ", ".join(f"{key} {value}" for key, value in shown.items())


def _answered(calls: Mapping[str, Mapping[str, int]], call: str) -> int:
    return sum(codes.get("0", 0) for path, codes in calls.items() if path.strip("/").endswith(call.strip("/")))
