"""A worker whose threads were all busy looks for messages again within a moment, and one at rest is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer


@pytest.fixture
def worker() -> SimpleNamespace:
    """Return what the step sees of a worker: its loop, and whether its threads have room."""
    qos = SimpleNamespace(room=True)
    qos.can_consume = lambda: qos.room
    channel = SimpleNamespace(qos=qos)
    new_hub: Any = Hub
    new_timer: Any = Timer
    return SimpleNamespace(hub=new_hub(timer=new_timer()), qos=qos, task_consumer=SimpleNamespace(channel=channel))


def start(worker: Any) -> None:
    """Start the step."""
    from worker.consumer import LooksAgain  # noqa: PLC0415 - only tests of the app pay for importing Celery

    LooksAgain(worker).start(worker)


def test_a_full_worker_is_woken_a_moment_later_once(worker: SimpleNamespace) -> None:
    """However often its loop finds it full meanwhile, one timer is set; and another one after that has struck."""
    start(worker)
    worker.qos.room = False

    assert [worker.qos.can_consume() for _ in range(5)] == [False] * 5
    assert len(worker.hub.timer) == 1
    assert worker.hub.fire_timers(max_delay=1) <= 0.1
    (entry,) = [waiting.entry for waiting in worker.hub.timer.queue]
    entry()
    worker.qos.can_consume()
    assert len(worker.hub.timer) == 2


def test_a_worker_with_room_sets_no_timer(worker: SimpleNamespace) -> None:
    """At rest nothing wakes it."""
    start(worker)

    assert worker.qos.can_consume()
    assert len(worker.hub.timer) == 0
    worker.hub.close()
