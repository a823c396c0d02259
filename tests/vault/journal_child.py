"""A process of its own that journals one answer; the tests kill it at a failpoint, or let the disk fail under it."""

from __future__ import annotations

import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from worker.errors import JournalError
from worker.journal import Journal, JournalEntry
from worker.vault import Keyring, Sealer

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def entry(number: int) -> JournalEntry:
    """Return an answer of 1,000 bytes."""
    body = b"%d" % number * 1_000
    return JournalEntry("refresh", number, "c", 1, 2, "call", 200, body[:1_000], True, None, None, NOW, NOW)


def killed_at(journal: Journal) -> None:
    """Journal answers; the failpoint ends the process."""
    journal.append(entry(1))


def waiting(journal: Journal) -> None:
    """Journal an answer and live on until the standard input ends."""
    journal.append(entry(1))
    print("journaled", flush=True)  # noqa: T201 - how the parent learns of it
    sys.stdin.buffer.read()
    os._exit(0)


def full_disk(journal: Journal) -> None:
    """Let the disk take nothing more after two answers; say what became of the third, and of readiness."""
    journal.ready()
    kept = [journal.append(entry(number)) for number in (1, 2)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
    try:
        journal.append(entry(3))
    except JournalError as error:
        print(f"append: {error}")  # noqa: T201 - how the parent learns of it
    journal.release(kept[0])
    try:
        journal.ready()
    except JournalError as error:
        print(f"ready: {error}")  # noqa: T201 - how the parent learns of it
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append(entry(4))
    os._exit(0)


def main() -> None:
    """Run `journal_child.py FOLDER WHAT [FAILPOINT]` with the keyring in the first line of the standard input."""
    folder, what, *rest = sys.argv[1:]
    sealer = Sealer(Keyring.from_json(sys.stdin.buffer.readline().decode()))

    def failpoint(name: str) -> None:
        if name in rest:
            os.kill(os.getpid(), signal.SIGKILL)

    journal = Journal(Path(folder), sealer, owner="child", segment_bytes=64 * 1024, floor_bytes=0, failpoint=failpoint)
    {"killed_at": killed_at, "waiting": waiting, "full_disk": full_disk}[what](journal)


if __name__ == "__main__":
    main()
