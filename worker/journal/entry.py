"""One received answer as the journal keeps it, and its format as the plaintext of a sealed record.

The plaintext is one line of JSON (every field but the body, in ASCII), a line feed, and the body's bytes as received.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, Self

from worker.errors import JournalError

FORM: Final = 1
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class RecordId:
    """Names one record of a journal.

    Attributes:
        segment: file name of the segment.
        number: number of the record in it, from 1.
    """

    segment: str
    number: int


class Received(Protocol):
    """An answer as the client of an API gives it."""

    @property
    def call(self) -> str:
        """The path of the call."""

    @property
    def http_status(self) -> int | None:
        """The HTTP status, or None."""

    @property
    def body(self) -> bytes:
        """The bytes received."""

    @property
    def complete(self) -> bool:
        """True if the answer ended as its framing said."""

    @property
    def fault(self) -> str | None:
        """What went wrong, or None."""

    @property
    def retry_after(self) -> str | None:
        """The Retry-After header's text, or None."""


@dataclass(frozen=True)
class JournalEntry:
    """The bytes of one answer to a token call, as received, and what is needed to read them later.

    Attributes:
        kind: `refresh` belongs to an attempt and has its four ids; `exchange` has none.
        call: the path of the call.
        http_status: the HTTP status, or None if no status line came.
        body: the bytes received, however few; they may hold tokens and are never printed.
        complete: True if the answer ended as its framing said.
        fault: for an incomplete answer, what went wrong, without any of its bytes.
        retry_after: the Retry-After header's text, or None.
        sent_at: when the request was sent, with its time zone.
        received_at: when the last byte came, with its time zone.
        extra: further facts of the caller, sealed too.

    Raises:
        ValueError: a refresh without its ids, an unknown kind, or an instant without a time zone.
    """

    kind: Literal["refresh", "exchange"]
    grant_id: int | None
    creator_id: str | None
    consent: int | None
    generation: int | None
    call: str
    http_status: int | None
    body: bytes = field(repr=False)
    complete: bool
    fault: str | None
    retry_after: str | None
    sent_at: datetime
    received_at: datetime
    extra: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in {"refresh", "exchange"}:
            raise ValueError("a journal entry is a refresh or an exchange")
        if self.kind == "refresh" and None in self._ids():
            raise ValueError("a journal entry of a refresh needs grant, creator, consent and generation")
        if self.sent_at.tzinfo is None or self.received_at.tzinfo is None:
            raise ValueError("the instants of a journal entry need a time zone")

    @classmethod
    def of(
        cls,
        kind: Literal["refresh", "exchange"],
        received: Received,
        ids: tuple[int | None, str | None, int | None, int | None] = (None, None, None, None),
        *,
        sent_at: datetime,
        seconds: float,
        extra: dict[str, str] | None = None,
    ) -> Self:
        """Return the record of an answer.

        Args:
            kind: `refresh` or `exchange`.
            received: the answer as received.
            ids: grant id, creator id, consent and generation of the attempt; none for an exchange.
            sent_at: when the request was sent, on the database's clock.
            seconds: how long the call took.
            extra: further facts of the caller.
        """
        return cls(
            kind,
            *ids,
            received.call,
            received.http_status,
            received.body,
            received.complete,
            received.fault,
            received.retry_after,
            sent_at,
            sent_at + timedelta(seconds=seconds),
            extra or {},
        )

    def attempt(self) -> tuple[int, str, int, int]:
        """Return grant id, creator id, consent and generation of the attempt that this answer belongs to.

        Raises:
            JournalError: the entry belongs to no attempt.
        """
        grant_id, creator_id, consent, generation = self._ids()
        if grant_id is None or creator_id is None or consent is None or generation is None:
            raise JournalError(f"a journal record of kind {self.kind} belongs to no attempt")
        return grant_id, creator_id, consent, generation

    def to_bytes(self) -> bytes:
        """Return the plaintext of the record; it is a secret."""
        head = {
            "form": FORM,
            "kind": self.kind,
            "grant_id": self.grant_id,
            "creator_id": self.creator_id,
            "consent": self.consent,
            "generation": self.generation,
            "call": self.call,
            "http_status": self.http_status,
            "complete": self.complete,
            "fault": self.fault,
            "retry_after": self.retry_after,
            "sent_at": self.sent_at.isoformat(),
            "received_at": self.received_at.isoformat(),
            "extra": self.extra,
        }
        return _COMPACT.encode(head).encode("ascii") + b"\n" + self.body

    @classmethod
    def from_bytes(cls, plaintext: bytes) -> Self:
        """Read the plaintext of a record.

        Raises:
            JournalError: it is not one; the text holds none of it.
        """
        head, found, body = plaintext.partition(b"\n")
        try:
            raw = json.loads(head)
            if not found or raw.pop("form") != FORM:
                raise JournalError("a journal record is of a form that is unknown here")
            sent_at, received_at = (datetime.fromisoformat(raw.pop(name)) for name in ("sent_at", "received_at"))
            return cls(**raw, sent_at=sent_at, received_at=received_at, body=body)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise JournalError("a journal record opened and cannot be read") from None

    def _ids(self) -> tuple[int | None, str | None, int | None, int | None]:
        return self.grant_id, self.creator_id, self.consent, self.generation


@dataclass(frozen=True)
class Orphan:
    """A waiting record, with the two ways to release it.

    Attributes:
        entry: the answer.
        record: its id.
    """

    entry: JournalEntry
    record: RecordId
    _release: Callable[[RecordId], None] = field(repr=False, compare=False)
    _set_aside: Callable[[RecordId], None] = field(repr=False, compare=False)

    def release(self) -> None:
        """Release the record, because the database has what it brought."""
        self._release(self.record)

    def set_aside(self) -> None:
        """Keep a copy of the record for a person, and release it.

        Raises:
            JournalError: the copy could not be made; the record goes on waiting.
        """
        self._set_aside(self.record)
