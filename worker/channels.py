"""How messages come from the broker and go to it: checked before they are decoded, over connections that never hang."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from queue import Empty
from threading import Event
from typing import Any, Final, cast

from amqp.exceptions import ConsumerCancelled, NotFound, RecoverableConnectionError
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp, redis
from kombu.transport.virtual import Message

from worker.policy.messages import delivery_problem, envelope_problem
from worker.telemetry import Fact, report
from worker.watchdog import watchdog

ANSWER_SECONDS: Final = 10
"""Longest wait for an answer of RabbitMQ, if whoever asks says nothing else."""


class RefusedMessageError(Exception):
    """A message is refused; the text says why and quotes nothing of the message."""


def refuse_message(reason: str) -> None:
    """Report a message that was refused and dropped."""
    report(Fact("message.refused", {"reason": reason}, level="warning"))


class CheckedMessage(Message):
    """A message that is checked before it is decoded; a refused message is empty and holds the error."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        problem, read = envelope_problem(payload), cast("Callable[..., None]", super().__init__)
        if problem is None:
            try:
                read(payload, channel=channel, **options)
            except Exception as error:  # noqa: BLE001 - whatever a message does to the library, it ends no worker
                problem = f"it cannot be decoded ({type(error).__name__})"
            else:
                return
        empty = {
            "body": "",
            "headers": {},
            "properties": {"delivery_tag": str(uuid.uuid4()), "delivery_info": {"exchange": "", "routing_key": ""}},
        }
        read(empty, channel=channel, **options)
        self.errors = [(RefusedMessageError, RefusedMessageError(problem), None)]  # type: ignore[list-item]  # never raised, so no traceback


class CheckedChannel(redis.Channel):
    """Keeps the connection and the worker when Redis returns something that is not a message."""

    Message = CheckedMessage

    def _brpop_read(self, **options: Any) -> Any:
        try:
            message = self._checked(super()._brpop_read, **options)
        except Empty:  # no message, but an answer
            watchdog.moved()
            raise
        watchdog.moved()
        return message

    def _receive(self) -> Any:
        return self._checked(super()._receive)

    @staticmethod
    def _checked(read: Callable[..., Any], **options: Any) -> Any:
        try:
            return read(**options)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            refuse_message(f"it cannot be read ({type(error).__name__})")
            raise Empty from None


class CheckedSentinelChannel(CheckedChannel, redis.SentinelChannel):
    """The same, over a connection to the master that Sentinels name."""


class CheckedDelivery(pyamqp.Message):
    """The same for a message of RabbitMQ, whose own parts arrive in order: only what it brings is checked."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        problem = delivery_problem(msg.properties.get("application_headers") or {}, msg.body)
        if problem is not None:
            msg.body, msg.properties = "", {}
        read = cast("Callable[..., None]", super().__init__)
        read(msg, channel=channel, **options)
        if problem is not None:
            self.errors = [(RefusedMessageError, RefusedMessageError(problem), None)]  # type: ignore[list-item]  # as above


class AmqpChannel(pyamqp.Channel):
    """A channel that checks messages, and publishes none while RabbitMQ takes none."""

    Message = CheckedDelivery

    def basic_publish_confirm(self, *arguments: Any, **options: Any) -> Any:
        """Publish a message and wait until RabbitMQ confirms it; arguments as for py-amqp.

        Raises:
            OperationalError: it takes no messages, because of an alarm for memory or disk.
            RecoverableConnectionError: the exchange is gone; over a new connection it is declared again.
        """
        connection = self.connection
        if connection is not None and connection.takes_nothing():
            raise OperationalError("RabbitMQ takes no messages: an alarm for memory or disk")
        try:
            result = super().basic_publish_confirm(*arguments, **options)
        except NotFound as error:
            raise RecoverableConnectionError(str(error)) from None
        if not self.connection.blocked:
            note_taken()
        return result

    def _on_basic_cancel(self, consumer_tag: str) -> None:
        self.connection.cancelled = True
        super()._on_basic_cancel(consumer_tag)


class AmqpConnection(pyamqp.Connection):
    """A connection to RabbitMQ: every wait on it ends, and it reports an alarm for memory or disk."""

    Channel = AmqpChannel
    blocked = False
    cancelled = False
    """True once RabbitMQ gives a queue's messages to this connection no more, such as because the queue was deleted."""

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read a frame; without a timeout a half-open connection would stop worker and beat for ever.

        Raises:
            TimeoutError: none came in time.
        """
        return super().blocking_read(ANSWER_SECONDS if timeout is None else timeout)

    def takes_nothing(self) -> bool:
        """Return True if RabbitMQ has said that it takes nothing over this connection, and has not taken it back."""
        while self.blocked:
            try:
                self.blocking_read(timeout=0)
            except TimeoutError:
                break
        return self.blocked

    def _on_blocked(self) -> None:
        self.blocked = True
        if not _alarm.is_set():
            _alarm.set()
            report(Fact("broker.blocked", level="error"))

    def _on_unblocked(self) -> None:
        self.blocked = False
        note_taken()


def note_taken() -> None:
    """Report that RabbitMQ takes messages again, if it did not before; a connection that it held may be gone."""
    if _alarm.is_set():
        _alarm.clear()
        report(Fact("broker.unblocked", level="warning"))


_alarm: Final = Event()  # set while RabbitMQ takes nothing over one of our connections


class HeardConnection(AmqpConnection):
    """The connection over which a worker takes messages: whatever comes over it is a sign that it listens."""

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read a frame, a heartbeat for example, and note that one came.

        Raises:
            ConsumerCancelled: one of the worker's queues is gone; the first such error Celery may drop at its start.
        """
        if self.cancelled:
            raise ConsumerCancelled("a queue of this worker is gone")
        frame = super().blocking_read(timeout)
        watchdog.heard()
        return frame


class AmqpTransport(pyamqp.Transport):
    """RabbitMQ over such connections."""

    Connection = AmqpConnection


class AmqpsTransport(AmqpTransport, pyamqp.SSLTransport):
    """The same over TLS."""


def listen(connection: Any) -> None:
    """Let a connection of Celery, not opened yet, be the one over which this worker takes messages.

    It makes a new transport whenever it goes on to the next address, which with Sentinels it does at each try that
    fails. With channels of kombu's own the worker would check nothing after that, and seem to hang.
    """
    create = connection.create_transport

    def create_transport() -> Any:
        transport = create()
        if isinstance(transport, AmqpTransport):
            transport.Connection = HeardConnection
        else:
            by_sentinels = issubclass(transport.Channel, redis.SentinelChannel)
            transport.Channel = CheckedSentinelChannel if by_sentinels else CheckedChannel
        return transport

    connection.create_transport = create_transport


def publish_unconfirmed(connection: Any) -> None:
    """Let a connection of Celery, not opened yet, wait for no confirmation: it carries events, which the loop sends."""
    connection.transport_options = {**connection.transport_options, "confirm_publish": False}
