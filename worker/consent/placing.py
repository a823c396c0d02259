"""Answers that were set aside: a pair is stored under the creator whom TikTok names, anything else is deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from worker.consent.exchanges import Exchanges
from worker.errors import InDoubtError, NotReadyError, StoreUnavailableError, TikTokError, UsageError
from worker.ground import Ground
from worker.journal import AsideRecord, JournalEntry
from worker.records import LINK, answer_in
from worker.store import GrantView
from worker.telemetry import Fact
from worker.tiktok import TOKEN_INFO_CALL, TokenAnswer, read_or_salvage, salvage

LONGEST_WAIT_SECONDS: Final = 5.0
"""How long to wait for a permit of the quota; a person waits at the terminal."""


@dataclass(frozen=True)
class AsidePair:
    """The content of a record that was set aside.

    Attributes:
        name: the record's file name.
        received_at: when the answer came; None if the record cannot be read.
        asked_for: the creator whose refresh it answered, or for whom the link of an exchange was made; None if the link
            was for any creator, and for an unreadable record.
        creator_id: the creator to whom TikTok gave the pair; empty if the answer was cut off before the id.
        fault: why it holds no pair that can be placed.
    """

    name: str
    received_at: datetime | None = None
    asked_for: str | None = None
    creator_id: str = ""
    fault: str | None = None


class Placing:
    """Lists what was set aside, stores a pair of it as its owner's consent, or deletes it."""

    def __init__(self, ground: Ground, *, exchanges: Exchanges) -> None:
        self._ground = ground
        self._exchanges = exchanges

    def pairs(self) -> Iterator[AsidePair]:
        """Yield what was set aside: the pairs that can be placed and the records that cannot.

        Raises:
            JournalError: the folder cannot be read.
        """
        for record in self._ground.journal.aside.records():
            yield self._look(record)

    def look(self, name: str) -> AsidePair:
        """Return one pair with its owner; if the answer lost the owner's id, look it up at TikTok.

        Raises:
            NotFoundError: there is no such record.
            UsageError: it holds no pair that can be placed.
            NotReadyError, TikTokError: TikTok could not be called, or did not name the owner.
        """
        record = self._ground.journal.aside.record(name)
        found = self._look(record)
        if found.fault is not None or record.entry is None:
            raise UsageError(f"{name} cannot be placed: {found.fault}")
        if found.creator_id:
            return found
        return replace(found, creator_id=self._owner_of(_answer(record.entry)))

    def place(self, pair: AsidePair) -> GrantView:
        """Store a pair under its owner, then remove the record; a pair that is stored already changes nothing.

        Raises:
            NotFoundError: the record is gone.
            UsageError: the record cannot be read, or the owner's pair is as new or newer.
            StoreUnavailableError: the database did not take it; the record stays.
        """
        record = self._ground.journal.aside.record(pair.name)
        if record.entry is None:
            raise UsageError(f"{pair.name} cannot be placed: {record.fault}")
        answer = replace(_answer(record.entry), creator_id=pair.creator_id)
        grant = self._exchanges.store_placed(answer, sent_at=record.entry.sent_at)
        self._remove(pair.name, record.entry)
        self._ground.hook(Fact("journal.placed", {"grant_id": grant.grant_id, "creator_id": grant.creator_id}))
        return grant

    def discard(self, name: str) -> AsidePair:
        """Remove a record for good: a grant that waited for it is judged as any other again.

        Raises:
            NotFoundError: there is no such record.
            StoreUnavailableError: the database did not take it; the record stays.
        """
        record = self._ground.journal.aside.record(name)
        found = self._look(record)
        self._remove(name, record.entry)
        self._ground.hook(Fact("journal.discarded", {"record": name}, level="warning"))
        return found

    def give_up(self, creator_id: str) -> int:
        """Let a creator's grant wait for no record any more, wherever these lie; return for how many it waited.

        Raises:
            UnknownCreatorError: no such creator.
            StoreUnavailableError: the database did not take it.
        """
        grant = self._ground.store.grant(creator_id)
        waited = 0
        for attempt in self._ground.store.attempts_aside(grant.grant_id):
            waited += self._ground.store.forget_aside(grant.grant_id, attempt.consent, attempt.generation)
        self._ground.hook(Fact("journal.given_up", {"grant_id": grant.grant_id, "records": waited}, level="warning"))
        return waited

    def _remove(self, name: str, entry: JournalEntry | None) -> None:
        """Remove a record; before that, release its grant unless another record of its attempt stays."""
        if entry is not None and entry.kind == "refresh":
            grant_id, _, consent, generation = attempt = entry.attempt()
            others = (record for record in self._ground.journal.aside.records() if record.name != name)
            if not any(_is_of(other.entry, attempt) for other in others):
                self._ground.store.forget_aside(grant_id, consent, generation)
        self._ground.journal.aside.remove(name)

    def _look(self, record: AsideRecord) -> AsidePair:
        entry = record.entry
        if entry is None:
            return AsidePair(record.name, fault=record.fault)
        found = AsidePair(
            record.name, received_at=entry.received_at, asked_for=entry.creator_id or self._invited(entry)
        )
        try:
            return replace(found, creator_id=_answer(entry).creator_id)
        except TikTokError as error:
            return replace(found, fault=str(error))

    def _invited(self, entry: JournalEntry) -> str | None:
        """Return the creator for whom the link of an exchange was made; None if it was for any, or is not known."""
        handle = entry.extra.get(LINK)
        with suppress(StoreUnavailableError):
            link = self._ground.store.link(handle) if handle else None
            return link.creator_id if link else None
        return None

    def _owner_of(self, answer: TokenAnswer) -> str:
        wait = self._ground.limiter.admit(
            lane="refresh", call=TOKEN_INFO_CALL, account="placing", patience_seconds=LONGEST_WAIT_SECONDS
        )
        if wait:
            raise NotReadyError(f"the quota is spent; nothing was sent, try again in {wait:.0f} s")
        return self._ground.tiktok.token_info(answer.access_token).creator_id


def owner_of(entry: JournalEntry) -> str:
    """Return the creator to whom TikTok gave the pair in an answer, else the one it was asked for; "" if unknown."""
    try:
        return _answer(entry).creator_id or entry.creator_id or ""
    except TikTokError:
        return entry.creator_id or ""


def _is_of(entry: JournalEntry | None, attempt: tuple[int, str, int, int]) -> bool:
    return entry is not None and entry.kind == "refresh" and entry.attempt() == attempt


def _answer(entry: JournalEntry) -> TokenAnswer:
    """Return the pair in an entry.

    Raises:
        TikTokError: there is none, or it lacks its refresh token.
    """
    raw = answer_in(entry)
    answer = read_or_salvage(raw)
    if isinstance(answer, InDoubtError):
        answer = salvage(raw, named=False) or answer
    if isinstance(answer, TikTokError):
        raise answer
    if answer.refresh_token is None:
        raise InDoubtError("the answer holds no refresh token of its own", call=entry.call)
    return answer
