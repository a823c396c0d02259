"""From an answer to a journal record and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from worker.journal import JournalEntry
from worker.records import LINK, answer_in, entry_of_exchange
from worker.tiktok import RawAnswer

SENT_AT = datetime(2026, 11, 22, 10, tzinfo=UTC)
RAW = RawAnswer("call/", 200, b'{"code":0', complete=False, fault="cut", retry_after="7")


def test_an_answer_comes_back_from_its_record_as_it_was() -> None:
    """Through the record's bytes on disk, with the handle of its link."""
    entry = JournalEntry.from_bytes(entry_of_exchange(RAW, "handle", sent_at=SENT_AT, seconds=1.5).to_bytes())

    assert answer_in(entry) == RAW
    assert entry.extra[LINK] == "handle"


def test_a_record_is_dated_by_one_clock() -> None:
    """The answer came as long after the request as the call took, whatever this host's clock says."""
    entry = entry_of_exchange(RAW, "handle", sent_at=SENT_AT, seconds=1.5)

    assert entry.received_at - entry.sent_at == timedelta(seconds=1.5)
