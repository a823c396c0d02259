"""Beat: publishes due tasks, shows that it lives, and ends when it is asked to."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from celery import signals
from celery.beat import Scheduler, SchedulingError

from worker.broker import broker_of
from worker.celery import TOUCH_SECONDS, all_published, command, note_published, note_unpublished
from worker.celeryconfig import settings
from worker.telemetry import Fact, report
from worker.watchdog import STATUS, touch, watchdog


class TickingScheduler(Scheduler):  # type: ignore[misc]  # celery ships no types
    """Keeps the schedule in memory, since intervals of seconds need no file, and touches a file at each tick."""

    stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM and SIGINT: end beat now, or at its next tick.

        Celery's own handler closes the connection first. If the signal arrives while a message is being sent, the send
        then fails with an error that replaces SystemExit, and beat runs on. So this handler closes nothing and sets
        `stopping`.

        Raises:
            SystemExit: always; the next tick raises it again if a library swallowed it.
        """
        del number, frame
        self.stopping = True
        raise SystemExit

    def tick(self, *args: Any, **options: Any) -> float:
        """Publish what is due, and show that beat lives.

        Raises:
            SystemExit: beat was asked to end.
        """
        if self.stopping:
            raise SystemExit
        touch(settings.run_dir, "beat")
        wait = float(super().tick(*args, **options))
        if all_published():
            watchdog.moved()
        return wait

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Publish one entry; Celery would log two tracebacks for each entry that the broker does not take."""
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except SchedulingError as error:
            if not self.stopping:
                note_unpublished(entry.task, error.__context__ or error)
        else:
            note_published(entry.task)


@signals.beat_init.connect
def answer_signals(sender: Any, **_: Any) -> None:
    """Replace Celery's handlers of SIGTERM and SIGINT; a beat inside a worker has none, and its worker ends it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        if getattr(signal.getsignal(number), "__module__", None) == "celery.apps.beat":
            signal.signal(number, sender.scheduler.stop)


@signals.beat_init.connect
def judge(**_: Any) -> None:
    """Judge from now on whether beat ticks and publishes; it has nothing in hand when it ends."""

    def end() -> None:
        if command == "worker":  # a worker does not start its beat again
            os.kill(os.getppid(), signal.SIGTERM)
        os._exit(STATUS)

    broker = broker_of(settings)
    watchdog.judge(
        Fact("beat.hangs", {"limit_seconds": settings.hang_seconds}, level="error"),
        busy=lambda: False,
        could_work=lambda _: broker.serves(),
        alive=lambda: touch(settings.run_dir, "beat"),
        end=end,
    )


@signals.beat_embedded_init.connect
def end_with_the_worker(**_: Any) -> None:
    """End a beat that is part of a worker when that worker is gone, even if it was killed."""

    def watch(worker: int) -> None:
        while os.getppid() == worker:
            time.sleep(TOUCH_SECONDS)
        report(Fact("beat.left_alone", {}, level="warning"))
        os._exit(0)

    threading.Thread(target=watch, args=(os.getppid(),), daemon=True).start()
