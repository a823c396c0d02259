"""Conversion of a received answer to a journal record, and back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, Literal

from worker.journal import JournalEntry
from worker.store import Claim
from worker.tiktok import RawAnswer

LINK: Final = "link"
"""Name under which the record of an exchange holds the handle of its link."""


def entry_of_refresh(raw: RawAnswer, claim: Claim, *, sent_at: datetime, seconds: float) -> JournalEntry:
    """Return the record of the answer to a refresh.

    Args:
        raw: the answer as received.
        claim: the claim under which the request was sent.
        sent_at: when the request was sent, on the database's clock.
        seconds: how long the call took.
    """
    ids = (claim.grant_id, claim.creator_id, claim.consent, claim.generation)
    return _entry("refresh", ids, raw, sent_at=sent_at, seconds=seconds, extra={})


def entry_of_exchange(raw: RawAnswer, handle: str, *, sent_at: datetime, seconds: float) -> JournalEntry:
    """Return the record of the answer to an exchange of a code; `handle` names the link that brought the code."""
    return _entry("exchange", (None, None, None, None), raw, sent_at=sent_at, seconds=seconds, extra={LINK: handle})


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


def _entry(
    kind: Literal["refresh", "exchange"],
    ids: tuple[int | None, str | None, int | None, int | None],
    raw: RawAnswer,
    *,
    sent_at: datetime,
    seconds: float,
    extra: dict[str, str],
) -> JournalEntry:
    return JournalEntry(
        kind,
        *ids,
        call=raw.call,
        http_status=raw.http_status,
        body=raw.body,
        complete=raw.complete,
        fault=raw.fault,
        retry_after=raw.retry_after,
        sent_at=sent_at,
        received_at=sent_at + timedelta(seconds=seconds),
        extra=extra,
    )
