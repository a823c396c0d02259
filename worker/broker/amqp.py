"""RabbitMQ as the broker: queues and exchange of our own, looked at by declaring them passively."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

import amqp
from amqp.exceptions import AMQPError, NotFound, PreconditionFailed, ResourceLocked

from worker.amqp_address import read_amqp
from worker.broker.contract import LOOK_SECONDS, QUEUES, QueueLook
from worker.errors import BrokerUnavailableError
from worker.vault.redaction import redact

T = TypeVar("T")
HEARTBEAT_SECONDS: Final = 10
"""A connection of a worker hears from RabbitMQ twice in this time, and is given up after twice this time without."""
NOWHERE: Final = "nowhere"
"""Routing key of a message that RabbitMQ takes and drops, to see whether it takes messages."""
FAULTS: Final = (AMQPError, OSError, AttributeError)  # after the loss of a connection py-amqp raises AttributeErrors
ALARM: Final = "it takes no messages: an alarm for memory or disk (rabbitmq-diagnostics alarms)"


def base_name(namespace: str | None) -> str:
    """Return what each name of an installation in RabbitMQ begins with; see `worker.namespace.key_prefix`."""
    return "evertoken" if namespace is None else f"evertoken-{namespace}"


def queue_name(base: str, queue: str) -> str:
    """Return a queue's name in RabbitMQ; a virtual host may be another program's too."""
    return f"{base}.{queue}"


class LookConnection(amqp.Connection):  # type: ignore[misc]  # py-amqp ships no types
    """A connection that remembers that RabbitMQ takes no messages over it."""

    held = False

    def _on_blocked(self) -> None:
        self.held = True


class AmqpBroker:
    """A look into RabbitMQ; see `Broker`. A connection is kept for the next look."""

    name = "RabbitMQ"
    setting = "EVERTOKEN_BROKER_URL"

    def __init__(self, url: str, base: str, seconds: float = LOOK_SECONDS) -> None:
        """Ask nothing yet.

        Args:
            url: the address, as in the setting.
            base: the name of our exchange, with which the names of our queues begin.
            seconds: longest wait to connect, and for each answer.
        """
        self._address = read_amqp(url)
        self._base = base
        self._seconds = seconds
        self._kept: Any = None

    def serves(self) -> bool:
        """Return True if it lets us in, answers and takes messages."""
        try:
            self.look()
        except BrokerUnavailableError:
            return False
        return True

    def could_work(self, queues: Iterable[str], silent_seconds: float) -> bool:
        """Return True if it serves, and messages wait for this worker, or it does not take or hear at all.

        RabbitMQ sends messages by itself, so a worker that takes none proves nothing while none waits. It does not take
        if one of its queues has no taker, such as one that was deleted while the worker started, and does not hear if
        no heartbeat comes.
        """
        try:
            found = self.look()
        except BrokerUnavailableError:
            return False
        deaf = math.isnan(silent_seconds) or silent_seconds > HEARTBEAT_SECONDS
        return deaf or any(found[queue].waiting or not found[queue].takers for queue in queues)

    def look(self) -> Mapping[str, QueueLook]:
        """Return what waits in the queues and how many workers take it, once a message was taken; see `Broker`."""
        return self._ask(self._look)

    def spoilt(self) -> list[str]:
        """Return exchange and queues that somebody declared otherwise than Celery does; see `Broker`."""
        return self._ask(self._spoilt)

    def version(self) -> str:
        """Return product and version, as the server says.

        Raises:
            BrokerUnavailableError: it does not answer.
        """
        told = self._ask(lambda connection: connection.server_properties)
        return " ".join(redact(str(told.get(name, "?"))) for name in ("product", "version"))

    def close(self) -> None:
        """Close the kept connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.collect()

    def _ask(self, question: Callable[[Any], T]) -> T:
        """Ask over the kept connection, or over a new one if there is none or it has ended."""
        kept, self._kept = self._kept, None
        with suppress(*FAULTS):
            if kept is not None:
                return self._asked(kept, question)
        connection = None
        try:
            connection = self._connect()
            return self._asked(connection, question)
        except FAULTS as error:
            held = connection is not None and connection.held
            raise BrokerUnavailableError(f"RabbitMQ does not serve: {ALARM if held else _reason(error)}") from None

    def _asked(self, connection: Any, question: Callable[[Any], T]) -> T:
        try:
            answer = question(connection)
        except FAULTS:
            connection.collect()
            raise
        self._kept = connection
        return answer

    def _connect(self) -> Any:
        address = self._address
        host = f"[{address.host}]" if ":" in address.host else address.host
        connection = LookConnection(
            host=f"{host}:{address.port}",
            userid=address.user,
            password=address.password,
            login_method="PLAIN",
            virtual_host=address.vhost,
            ssl=dict(address.tls) or False,
            connect_timeout=self._seconds,
            client_properties={"connection_name": "evertoken look"},
        )
        try:
            connection.connect()
            connection.sock.settimeout(self._seconds)
        except FAULTS:
            connection.collect()
            raise
        return connection

    def _look(self, connection: Any) -> dict[str, QueueLook]:
        channel = connection.channel()
        try:
            channel.exchange_declare(self._base, "direct", passive=True)
        except NotFound:  # no worker has been here yet
            channel = connection.channel()
        else:
            # RabbitMQ stops reading from a connection over which a message came during an alarm; the queues tell.
            channel.basic_publish(amqp.Message(""), exchange=self._base, routing_key=NOWHERE)
        found = {}
        for queue in QUEUES:
            try:
                said = channel.queue_declare(queue_name(self._base, queue), passive=True)
                found[queue] = QueueLook(said.message_count, said.consumer_count)
            except NotFound:
                found[queue] = QueueLook(0, 0)
                channel = connection.channel()
        channel.close()
        return found

    def _spoilt(self, connection: Any) -> list[str]:
        names: list[tuple[str, Callable[..., Any], tuple[str, ...]]] = [
            (self._base, amqp.Channel.exchange_declare, ("direct",)),
            *((queue_name(self._base, queue), amqp.Channel.queue_declare, ()) for queue in QUEUES),
        ]
        return [name for name, declare, more in names if self._is_spoilt(connection, name, declare, more)]

    @staticmethod
    def _is_spoilt(connection: Any, name: str, declare: Callable[..., Any], more: tuple[str, ...]) -> bool:
        """Return True if a thing of this name is there and is not what Celery would declare; nothing is made."""
        channel = connection.channel()
        try:
            declare(channel, name, *more, passive=True)
            declare(channel, name, *more, durable=True, auto_delete=False)
        except NotFound:
            return False
        except (PreconditionFailed, ResourceLocked):
            return True
        channel.close()
        return False


def _reason(error: BaseException) -> str:
    """Return why it does not serve, in RabbitMQ's or the system's words, neither of which holds the password."""
    if isinstance(error, AMQPError):
        return redact(str(getattr(error, "reply_text", "") or type(error).__name__))
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
