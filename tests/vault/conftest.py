"""What the tests of the vault share: a folder for journals, answers to put into them, and alarms that were raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from worker.journal import Journal, JournalEntry
from worker.vault import Sealer

NOW = datetime(2026, 11, 23, 4, 5, 6, 789, tzinfo=UTC)

NewEntry = Callable[..., JournalEntry]
NewJournal = Callable[..., Journal]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the journal lies; it is not there yet."""
    return tmp_path / "journal"


@pytest.fixture
def alarms() -> list[str]:
    """What the journals of the test alarmed about."""
    return []


@pytest.fixture
def new_entry() -> NewEntry:
    """Makes an answer to a refresh; fields may be given by name."""

    def make(number: int = 1, **fields: Any) -> JournalEntry:
        values: dict[str, Any] = {
            "kind": "refresh",
            "grant_id": number,
            "creator_id": f"creator-{number}",
            "consent": 1,
            "generation": 2,
            "call": "tt_user/oauth2/refresh_token/",
            "http_status": 200,
            "body": b'{"code":0,"data":{"access_token":"act.%d!x","refresh_token":"rft.%d"}}' % (number, number),
            "complete": True,
            "fault": None,
            "retry_after": None,
            "sent_at": NOW,
            "received_at": NOW,
        }
        return JournalEntry(**(values | fields))

    return make


@pytest.fixture
def new_journal(folder: Path, sealer: Sealer, alarms: list[str]) -> Iterator[NewJournal]:
    """Makes a journal on `folder`, as another process would; closed with the test."""
    with ExitStack() as opened:

        def make(**options: Any) -> Journal:
            values: dict[str, Any] = {"owner": "test", "segment_bytes": 64 * 1024, "floor_bytes": 0}
            journal = Journal(
                options.pop("directory", folder),
                options.pop("sealer", sealer),
                **(values | {"alarm": alarms.append} | options),
            )
            opened.callback(journal.close)
            return journal

        yield make


@pytest.fixture
def dead_segment(folder: Path, new_entry: NewEntry, new_journal: NewJournal) -> Callable[..., Path]:
    """Leaves the segment of an ended process with this many waiting records, and returns its path."""

    def leave(records: int = 3) -> Path:
        journal = new_journal(owner="dead")
        for number in range(1, records + 1):
            journal.append(new_entry(number))
        journal.close()
        (path,) = folder.glob("*.segment")
        return path

    return leave
