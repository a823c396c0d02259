"""The consumer of a worker: it survives the loss of its broker, and refuses what is not a message of ours."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery import bootsteps, signals
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel
from celery.worker.state import maybe_shutdown

from worker.broker import broker_of
from worker.celery import app, closing, end_work
from worker.celeryconfig import over_amqp, settings
from worker.channels import RefusedMessageError, listen, publish_unconfirmed, refuse_message
from worker.errors import BrokerUnavailableError
from worker.hardening import dump_stacks_on_signal
from worker.policy.messages import task_problem
from worker.services import shared_services
from worker.signalled import SignalFlag
from worker.telemetry import Fact, report
from worker.telemetry.repeats import CONSUMER, REDIS, Repeats
from worker.watchdog import STATUS, touch, watchdog

PREFIX: Final = "tasks."
LOOK_AGAIN_SECONDS: Final = 0.1
SPOILT_SECONDS: Final = 2.0
"""Time between two looks at keys or queues that a person has to delete."""
REFUSED_SECONDS: Final = 5.0
"""Time between two tries if RabbitMQ refuses the login or the virtual host; Celery itself tries again at once."""
CLOSING_SECONDS: Final = 5.0
"""Time in which a worker that has nothing in hand may close what it opened, if Celery does not end it."""
GOODBYE_SECONDS: Final = 15.0
"""Time that Celery has for its goodbye to the broker once nothing is in hand: longer than one wait of a connection."""
CONTROLS: Final = frozenset({
    "ping", "active_queues", "registered", "stats", "conf", "active", "reserved", "scheduled", "revoked",
    "enable_events", "heartbeat",
})  # fmt: skip
"""Remote commands that `doctor` and Flower send. With others, whoever reaches the broker could end or slow a worker."""


class Controls(dict[str, Callable[..., Any]]):
    """The remote commands that a worker obeys; another is refused in one line, for which Celery logs a traceback."""

    def __init__(self, commands: Mapping[str, Callable[..., Any]]) -> None:
        """Take Celery's commands, and keep those of `CONTROLS`."""
        super().__init__({name: commands[name] for name in CONTROLS})
        self._known = frozenset(commands)

    def __missing__(self, name: str) -> Callable[..., Any]:
        """Return what refuses a command; its name is logged only if it is one of Celery's."""
        reason = f"the remote command {name} is not permitted" if name in self._known else "an unknown remote command"

        def refuse(*_: Any, **__: Any) -> dict[str, str]:
            refuse_message(reason)
            return {"error": reason}

        return refuse


Panel.data = Controls(Panel.data)
for _name in set(Panel.meta) - CONTROLS:
    del Panel.meta[_name]


class Watched(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Judges whether the worker still takes messages, and touches a file while it does.

    The pool is there before the consumer is, so a consumer that hangs at its first connection is found too.
    """

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to judge, and replace Celery's handler of SIGUSR1, which is installed by now."""
        dump_stacks_on_signal()
        threading.Thread(target=end_in_time, name="end", daemon=True).start()
        touch(settings.run_dir, f"worker-{parent.hostname}")
        watchdog.judge(
            Fact("worker.hangs", {"limit_seconds": settings.hang_seconds}, level="error"),
            busy=lambda: len(state.reserved_requests) >= parent.pool.num_processes,
            could_work=lambda busy: could_work(busy) and not is_full_of_delayed(parent.consumer),
            alive=lambda: touch(settings.run_dir, f"worker-{parent.hostname}"),
            end=end_hung,
        )


def could_work(busy: bool) -> bool:
    """Return True if nothing but the worker itself can be why it does nothing.

    Args:
        busy: True if all threads are busy, which they are for long while the database is away.
    """
    taken = [queue.alias or queue.name for queue in app.amqp.queues.consume_from.values()]
    return _broker.could_work(taken, watchdog.silent_seconds()) and not (
        busy and shared_services().store.outages.seconds()
    )


def is_full_of_delayed(consumer: Any) -> bool:
    """Return True if RabbitMQ sends a worker nothing more because messages for later fill its window.

    With the window for a whole channel, which RabbitMQ has up to version 3, it grows with each of them.
    """
    if not over_amqp or consumer is None or consumer.qos is None or consumer.qos_global:
        return False
    return bool(consumer.qos.value - consumer.initial_prefetch_count >= consumer.initial_prefetch_count)


_broker: Final = broker_of(settings)
_repeats: Final = Repeats(report)
if not over_amqp:  # RabbitMQ is tried again every few seconds at most
    for _logger in (CONSUMER, REDIS):
        logging.getLogger(_logger).addFilter(_repeats)


def end_hung() -> None:
    """End this worker once what it has in hand is stored, or a lease later: by Celery, or without it if its loop hangs.

    What is not stored by then is in the journal.
    """
    state.should_stop = STATUS
    wait_for_celery(CLOSING_SECONDS)
    end_without_celery(STATUS)


def end_in_time() -> None:
    """Wait until this worker is asked to end, and end it if Celery does not.

    Then nobody judges it, since it takes no messages, and its threads wait no longer for the database: the pairs that
    they hold are in the journal. At its end Celery speaks to the broker over several connections, one after the other,
    and waits for each answer.
    """
    asked_to_end.wait()
    watchdog.stop()
    shared_services().stop.set()
    wait_for_celery(GOODBYE_SECONDS)
    waits_for = "the broker" if not closing.locked() else "the database"
    in_hand = len(state.reserved_requests)
    report(Fact("worker.goodbye_unanswered", {"waits_for": waits_for, "in_hand": in_hand}, level="warning"))
    end_without_celery(state.should_terminate or state.should_stop or 0)


def wait_for_celery(seconds: float) -> None:
    """Return once nothing has been in hand for some seconds, or those seconds after a lease.

    If Celery ends the process meanwhile, it ends this thread with it.
    """
    now = time.monotonic()
    until, lease_until = now + seconds, now + shared_services().settings.lease_seconds
    while now < until:
        time.sleep(LOOK_AGAIN_SECONDS)
        now = time.monotonic()
        if state.reserved_requests and now < lease_until:
            until = now + seconds


def end_without_celery(status: int) -> None:
    """Close what this process opened, within `CLOSING_SECONDS`, and end it.

    Messages that it has not acknowledged stay with the broker, which gives them to another worker.
    """
    leaving = threading.Thread(target=end_work, daemon=True)
    leaving.start()
    leaving.join(CLOSING_SECONDS)
    os._exit(status)


asked_to_end: Final = SignalFlag()
signals.worker_shutting_down.lock = threading.RLock()  # a second signal may come while the first is in Celery's hands


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]  # celery ships no types
def wake_end(**_: Any) -> None:
    """Wake the thread that ends the worker, and do nothing else: Celery sends this from a signal handler."""
    asked_to_end.set()


class LooksAgain(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Wakes the loop of a worker whose threads were all busy, so that it soon asks for messages again.

    With `worker_disable_prefetch` a worker without a free thread asks Redis for nothing, and its loop asks again only
    when something wakes it. That takes up to a second, in which the threads would be idle. RabbitMQ sends by itself.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Wake the loop a moment after each time that it found all threads busy; a worker at rest is not woken."""
        if over_amqp:
            return
        qos, hub = parent.task_consumer.channel.qos, parent.hub
        has_room, waking = qos.can_consume, False

        def woken() -> None:
            nonlocal waking
            waking = False

        def can_consume() -> bool:
            nonlocal waking
            room = bool(has_room())
            if not room and not waking and hub is not None:
                waking = True
                hub.call_later(LOOK_AGAIN_SECONDS, woken)
            return room

        qos.can_consume = can_consume


class LastingConsumer(Consumer):  # type: ignore[misc]  # celery ships no types
    """Survives the loss of its broker while it holds delayed messages, which is most of the time.

    When its channel closes, kombu 5.7 puts unacknowledged messages back. Over a lost connection that raises an
    AttributeError, which ends the worker. The messages are only hints: the next scan finds their grants again.
    """

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        # Workers share state through the database. Mingle and gossip would take it from Redis.
        alone = {**(worker_options or {}), "without_mingle": True, "without_gossip": True}
        super().__init__(*args, worker_options=alone, **options)

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """Connect so that messages are checked, once Celery's keys or queues have their right types."""
        self.wait_for_keys()
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        listen(connection)
        return self.ensure_connected(connection)

    def connection_for_write(self, url: Any = None, heartbeat: Any = None) -> Any:
        """Connect for events, which the loop itself publishes: it must wait for nothing."""
        connection = self.app.connection_for_write(url=url, heartbeat=heartbeat)
        if over_amqp:
            publish_unconfirmed(connection)
        return self.ensure_connected(connection)

    def on_ready(self) -> None:
        """End an outage for the log: by now queues are declared, which a full or read-only Redis refuses."""
        super().on_ready()
        _repeats.ready()

    def wait_for_keys(self) -> None:
        """Wait until Celery's keys or queues have their right types: it would connect and fail several times a second.

        Raises:
            WorkerShutdown, WorkerTerminate: the worker must end.
        """
        reported: list[str] = []
        while found := self.spoilt_keys():
            if found != reported:
                report(Fact("broker.spoilt", {"keys": " ".join(found)}, level="error"))
            reported = found
            maybe_shutdown()
            time.sleep(SPOILT_SECONDS)
        if reported:
            report(Fact("broker.mended", {"keys": " ".join(reported)}, level="warning"))

    @staticmethod
    def spoilt_keys() -> list[str]:
        """Return Celery's keys or queues of a wrong type; none if the broker is away, which connecting reports."""
        try:
            return broker_of(settings).spoilt()
        except BrokerUnavailableError:
            return []

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Return the handler of messages; one that does not call a task of ours is reported and dropped."""
        handle = super().create_task_handler(*args, **options)
        tasks = {name: inspect.signature(task.run) for name, task in self.app.tasks.items() if name.startswith(PREFIX)}

        def take(message: Any) -> Any:
            watchdog.moved()
            problem = task_problem(
                message.headers, message.content_type, message.body, tasks=tasks, now=datetime.now(UTC)
            )
            if problem is None:
                try:
                    return handle(message)
                except (ValueError, KeyError, TypeError) as error:
                    problem = f"it cannot be taken ({type(error).__name__})"
            refuse_message(problem)
            return None if message.acknowledged else message.ack()

        return take

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Report a message that cannot be decoded; the log does not quote it, since it may hold anything."""
        watchdog.moved()
        refuse_message(
            str(exc) if isinstance(exc, RefusedMessageError) else f"it cannot be decoded ({type(exc).__name__})"
        )
        message.ack()

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Report why the broker did not let us in, and wait for the next try: with RabbitMQ a person has to act.

        Raises:
            WorkerShutdown, WorkerTerminate: the worker must end.
        """
        super().on_connection_error_before_connected(exc)
        deadline = time.monotonic() + (REFUSED_SECONDS if over_amqp else 0)
        while time.monotonic() < deadline:
            maybe_shutdown()
            time.sleep(LOOK_AGAIN_SECONDS)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the lost connection without putting its messages back."""
        if self.task_consumer is not None:
            self.task_consumer.channel.do_restore = False  # RabbitMQ does that itself
        super().on_connection_error_after_connected(exc)
