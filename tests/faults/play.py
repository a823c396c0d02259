"""One schedule under way: two workers serve while things go wrong around them at their times."""

from __future__ import annotations

import heapq
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from itertools import count
from typing import Final

import psycopg

from tests.conftest import ServerProcess
from tests.faults.databases import read_only, refuse_pairs, take_pairs, writes_held
from tests.faults.scene import Scene
from tests.faults.schedules import SPAN_SECONDS, WORKERS, Event, Schedule
from tests.faults.workers import Worker
from worker.errors import ReauthNeededError, StoreUnavailableError

LEASE_SECONDS: Final = 0.9
SERVE: Final = {"do": "serve", "threads": 2, "seconds": 20}


class Play:
    """One schedule under way."""

    def __init__(self, scene: Scene, schedule: Schedule, redis: ServerProcess, url: str) -> None:
        self._scene = scene
        self._schedule = schedule
        self._redis = redis
        self._url = url
        self._timeline: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._lasting = ExitStack()
        self._workers: list[Worker] = []

    def run(self) -> None:
        """Let two workers serve while the events happen, and let what stopped go on once its lease has run out."""
        points: list[list[str]] = [[] for _ in range(WORKERS)]
        for event in self._schedule.events:
            if event.kind == "point":
                points[event.worker].append("{name}:{action}@{passing}".format(**event.how))
            elif event.kind == "answer":
                self._spoil(event)
            else:
                self._plan(event.at, partial(getattr(self, f"_{event.kind}"), event))
        self._plan(SPAN_SECONDS / 2, self._make_due)
        with self._lasting:
            for mine in points:
                self._workers.append(self._scene.worker(SERVE, at=",".join(mine)))
            self._follow_timeline()
        self._let_go_on()

    def _plan(self, at: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._timeline, (at, next(self._numbers), act))

    def _follow_timeline(self) -> None:
        began = time.monotonic()
        while self._timeline:
            at, _, act = heapq.heappop(self._timeline)
            time.sleep(max(0.0, began + at - time.monotonic()))
            with suppress(StoreUnavailableError, psycopg.Error, sqlite3.OperationalError):  # two troubles may collide
                act()
        time.sleep(max(0.0, began + SPAN_SECONDS + 0.1 - time.monotonic()))

    def _let_go_on(self) -> None:
        for worker in self._workers:
            if worker.is_stopped:
                time.sleep(max(0.0, worker.stopped_at + LEASE_SECONDS + 0.1 - time.monotonic()))
                worker.resume()
        for worker in self._workers:
            if worker.status is None and not worker.is_stopped:
                with suppress(AssertionError):  # it may have reached the point where it stops
                    worker.finish(5)

    def _creator(self, event: Event) -> int:
        return event.creator % len(self._scene.grants)

    def _spoil(self, event: Event) -> None:
        creator = None if event.creator < 0 else self._scene.grants[self._creator(event)].creator_id
        self._scene.sandbox.control("faults", {"creator": creator, "call": "refresh", **event.how})

    def _make_due(self) -> None:
        for grant in self._scene.grants:
            with suppress(ReauthNeededError):  # its pair went with a worker that died with it unwritten
                self._scene.store.request_refresh(grant.creator_id)

    def _duplicates(self, _: Event) -> None:
        ids = [grant.grant_id for grant in self._scene.grants]
        self._make_due()
        self._workers.append(self._scene.worker({"do": "refresh", "ids": ids, "threads": 4, "times": 3}))

    def _kill(self, event: Event) -> None:
        self._workers[event.worker].kill()

    def _stop(self, event: Event) -> None:
        self._workers[event.worker].signal(signal.SIGSTOP)

    def _end(self, event: Event) -> None:
        self._workers[event.worker].signal(signal.SIGTERM)

    def _consent(self, event: Event) -> None:
        self._persist(event.at, self._scene.consent_again(self._scene.grants[self._creator(event)]))

    def _persist(self, at: float, act: Callable[[], object]) -> None:
        """Do something at a time, or as soon after it as the database takes it."""

        def again() -> None:
            try:
                act()
            except StoreUnavailableError:
                self._wake()
                self._persist(at + 0.1, act)

        self._plan(at, again)

    def _wake(self) -> None:
        """Let go on what stopped once its lease has run out: it may stand still with SQLite's lock in its hand."""
        for worker in self._workers:
            if worker.is_stopped and time.monotonic() > worker.stopped_at + LEASE_SECONDS + 0.1:
                worker.resume()

    def _revoke(self, event: Event) -> None:
        self._scene.revoke(self._scene.grants[self._creator(event)])

    def _redis_flush(self, _: Event) -> None:
        self._scene.flush_redis()

    def _redis_stop(self, event: Event) -> None:
        self._redis.process.send_signal(signal.SIGSTOP)
        self._lasting.callback(self._redis.process.send_signal, signal.SIGCONT)
        self._plan(event.at + event.how["seconds"], lambda: self._redis.process.send_signal(signal.SIGCONT))

    def _redis_gone(self, _: Event) -> None:
        self._redis.process.kill()
        self._redis.process.wait()

    def _database_held(self, event: Event) -> None:
        self._last(event, writes_held(self._url))

    def _database_read_only(self, event: Event) -> None:
        self._last(event, read_only(self._url))

    def _row_refused(self, event: Event) -> None:
        refuse_pairs(self._scene.store, self._scene.grants[self._creator(event)].grant_id)
        self._persist(event.at + event.how["seconds"], partial(take_pairs, self._scene.store))

    def _last(self, event: Event, trouble: AbstractContextManager[None]) -> None:
        """Begin a trouble, and plan its end."""
        stack = ExitStack()
        stack.enter_context(trouble)
        self._lasting.push(stack)
        self._plan(event.at + event.how["seconds"], stack.close)
