"""Tokens at hand for many requests at once: one statement reads them, and one commit notes that they were handed out.

A thread reads for a group of requests. While it reads and writes, others gather, and they are the next group when it
has ended. If it takes long, as with a database on another host, further groups start meanwhile. Round trips to the
database, its statements and commits are those of groups, not of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from worker.store import ConsumerView, HandOut, ServedPair, Store
from worker.tokens.audit import Audit
from worker.tokens.consumers import ConsumerKeys
from worker.tokens.reader import ServedToken, TokenReader

MOST_AT_ONCE: Final = 500
"""Requests of one group: the rest of them wait for the next, so that a statement stays short."""
MOST_GROUPS: Final = 4
"""Groups that are read and written at the same time."""
PATIENCE_SECONDS: Final = 0.03
"""How long the next group waits for the end of one under way: large groups cost the processor less than many."""
GATHER_SECONDS: Final = 0.002
"""How long a group waits for others, if more than one came the last time; a lone request does not wait."""


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
    """Answers wishes in groups; all but `_answer` runs in the loop of `ask`."""

    def __init__(self, *, store: Store, reader: TokenReader, keys: ConsumerKeys, audit: Audit) -> None:
        self._store = store
        self._reader = reader
        self._keys = keys
        self._audit = audit
        self._threads = ThreadPoolExecutor(MOST_GROUPS, "gathering")
        self._waiting: list[_Asked] = []
        self._groups: set[asyncio.Task[None]] = set()
        self._planned: asyncio.TimerHandle | None = None
        self._crowded = False

    def close(self) -> None:
        """End the threads, when no request waits any more."""
        self._threads.shutdown()

    async def ask(self, wish: Wish) -> Given | None:
        """Return the token, audited; None if none is at hand that does, or the consumer may not have it.

        Raises:
            StoreUnavailableError: the database does not answer.
        """
        answer: _Answer = asyncio.get_running_loop().create_future()
        self._waiting.append((wish, answer))
        if self._planned is None:
            self._plan(GATHER_SECONDS if self._crowded else 0.0)
        return await answer

    def _plan(self, seconds: float) -> None:
        """Start the next group in so many seconds, and not before."""
        if self._planned is not None:
            self._planned.cancel()
        self._planned = asyncio.get_running_loop().call_later(seconds, self._start)

    def _start(self) -> None:
        """Let a thread answer those who wait, if one is free."""
        self._planned = None
        if not self._waiting or len(self._groups) == MOST_GROUPS:
            return
        group, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        self._crowded = len(group) > 1
        task = asyncio.get_running_loop().create_task(self._run(group))
        self._groups.add(task)
        task.add_done_callback(self._ended)
        self._plan(PATIENCE_SECONDS)

    def _ended(self, group: asyncio.Task[None]) -> None:
        self._groups.discard(group)
        self._plan(GATHER_SECONDS if self._crowded else 0.0)

    async def _run(self, group: list[_Asked]) -> None:
        wishes = [wish for wish, _ in group]
        try:
            given = await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, wishes)
        except Exception as error:  # noqa: BLE001 - each request tells it to its client, and to the log
            # Who came meanwhile has waited for this database, too, and does not wait for it again.
            group, self._waiting = group + self._waiting, []
            for _, answer in group:
                if not answer.done():  # it is if the client went away
                    answer.set_exception(error)
            return
        for (_, answer), each in zip(group, given, strict=True):
            if not answer.done():
                answer.set_result(each)

    def _answer(self, wishes: Sequence[Wish]) -> list[Given | None]:
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
