"""From an answer to a journal record and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.world import World
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


def test_a_record_that_cannot_be_built_costs_no_pair(
    new_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pair that came goes into the database all the same, whatever fails on the way to the journal."""
    world = new_world()
    grant = world.creator()

    def broken(*_: object, **__: object) -> JournalEntry:
        raise RuntimeError("an error that nobody thought of")

    monkeypatch.setattr(JournalEntry, "of", broken)
    world.services.refresher.refresh(grant.grant_id, force=True)

    assert world.look(grant).pair_generation > grant.pair_generation
    assert world.verdict(grant).sound
