"""Conversion of the answer to an exchange to a journal record, and of any record back to an answer."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from worker.journal import JournalEntry
from worker.tiktok import RawAnswer

LINK: Final = "link"
"""Name under which the record of an exchange holds the handle of its link."""


def entry_of_exchange(raw: RawAnswer, handle: str, *, sent_at: datetime, seconds: float) -> JournalEntry:
    """Return the record of the answer to an exchange of a code; `handle` names the link that brought the code."""
    return JournalEntry.of("exchange", raw, sent_at=sent_at, seconds=seconds, extra={LINK: handle})


def answer_in(entry: JournalEntry) -> RawAnswer:
    """Return a journaled answer as the client gave it."""
    return RawAnswer(
        call=entry.call,
        http_status=entry.http_status,
        body=entry.body,
        complete=entry.complete,
        fault=entry.fault,
        retry_after=entry.retry_after,
    )
