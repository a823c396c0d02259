"""Tokens at hand for many requests at once: one statement reads them, and one commit notes that they were handed out.

A request puts its wish into a queue. A thread takes all that wait there, and gives the loop their answers in one call.
While it reads and writes, the next ones gather. So nobody waits for company, and a database on another host costs a
round trip for each group, not for each request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from worker.store import ConsumerView, HandOut, ServedPair, Store
from worker.tokens.audit import Audit
from worker.tokens.consumers import ConsumerKeys
from worker.tokens.reader import ServedToken, TokenReader

MOST_AT_ONCE: Final = 500
"""Requests of one group: the rest of them wait for the next, so that a statement stays short."""


@dataclass(frozen=True)
class Wish:
    """A request for a token.

    Attributes:
        key: the consumer's, which has worked in this process before.
        has: tags of tokens that the consumer has already.
    """

    key: str
    creator_id: str
    min_validity: float
    newer_than: int | None
    has: tuple[str, ...]


@dataclass(frozen=True)
class Given:
    """A token at hand.

    Attributes:
        is_known: True if the consumer has it already; then it is not handed out, and has no audit row.
    """

    consumer: ConsumerView
    served: ServedToken
    is_known: bool


_Answer = asyncio.Future[Given | None]
_Asked = tuple[Wish, _Answer]


class Gathering:
    """Answers wishes in groups, from a thread of its own between `begin` and `end`."""

    def __init__(self, *, store: Store, reader: TokenReader, keys: ConsumerKeys, audit: Audit) -> None:
        self._store = store
        self._reader = reader
        self._keys = keys
        self._audit = audit
        self._waiting: SimpleQueue[_Asked | None] = SimpleQueue()

    def begin(self) -> None:
        """Start the thread; called from the loop that `ask` is called from."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="gathering", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, when no request waits any more."""
        self._waiting.put(None)
        self._thread.join()

    async def ask(self, wish: Wish) -> Given | None:
        """Return the token, audited; None if none is at hand that does, or the consumer may not have it.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        answer: _Answer = self._loop.create_future()
        self._waiting.put((wish, answer))
        return await answer

    def _work(self) -> None:
        group = list[_Asked | None]()
        while None not in group:
            group = [self._waiting.get(), *self._more()]
            try:
                given = self._answer([each[0] for each in group if each])
            except Exception as error:  # noqa: BLE001 - each request tells it to its client, and to the log
                # Who came meanwhile has waited for this database, too, and does not wait for it again.
                group += self._more()
                self._loop.call_soon_threadsafe(_fail, [each[1] for each in group if each], error)
            else:
                self._loop.call_soon_threadsafe(_resolve, [each[1] for each in group if each], given)

    def _more(self) -> list[_Asked | None]:
        """Return what waits in the queue; None stands for the end."""
        found = list[_Asked | None]()
        with suppress(Empty):
            while len(found) < MOST_AT_ONCE:
                found.append(self._waiting.get_nowait())
        return found

    def _answer(self, wishes: Sequence[Wish]) -> list[Given | None]:
        if not wishes:
            return []
        found = self._store.served_pairs(sorted({wish.creator_id for wish in wishes}))
        given = [self._given(wish, *found[wish.creator_id]) if wish.creator_id in found else None for wish in wishes]
        self._audit.note([row_of(each) for each in given if each and not each.is_known])
        return given

    def _given(self, wish: Wish, pair: ServedPair, reference: str | None) -> Given | None:
        consumer = self._keys.find(wish.key)
        if consumer is None or not consumer.scope.permits(wish.creator_id, reference):
            return None
        served = self._reader.at_hand(pair, min_validity=wish.min_validity, newer_than=wish.newer_than)
        return None if served is None else Given(consumer, served, tag_of(served) in wish.has)


def row_of(given: Given) -> HandOut:
    """Return the audit row of a token that is handed out."""
    served = given.served
    return HandOut(given.consumer.consumer_id, served.grant_id, served.consent, served.generation)


def tag_of(served: ServedToken) -> str:
    """Return the ETag of a token: it names consent and generation."""
    return f'"{served.consent}.{served.generation}"'


def _resolve(answers: Sequence[_Answer], given: Sequence[Given | None]) -> None:
    for answer, each in zip(answers, given, strict=True):
        if not answer.done():  # it is if the client went away
            answer.set_result(each)


def _fail(answers: Sequence[_Answer], error: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
