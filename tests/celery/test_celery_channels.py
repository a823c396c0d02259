"""Connections to RabbitMQ: every wait ends, an alarm is said once, and what is no message of ours is not decoded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import NotFound, RecoverableConnectionError
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp

from worker import channels
from worker.broker.amqp import LookConnection
from worker.channels import AmqpChannel, AmqpConnection, CheckedDelivery, HeardConnection, RefusedMessageError
from worker.watchdog import watchdog


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the facts that are reported."""
    names: list[str] = []
    monkeypatch.setattr(channels, "report", lambda fact: names.append(fact.name))
    return names


def channel_of(connection: AmqpConnection) -> Any:
    """Return a channel of a connection that was not opened."""
    channel = AmqpChannel.__new__(AmqpChannel)
    channel.connection = connection
    return channel


def test_every_read_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read without a timeout gets ours: without it a half-open connection stops worker and beat for ever."""
    asked: list[float | None] = []
    monkeypatch.setattr(pyamqp.Connection, "blocking_read", lambda _, timeout=None: asked.append(timeout))

    AmqpConnection().blocking_read()
    AmqpConnection().blocking_read(0)

    assert asked == [10, 0]


def test_a_worker_hears_what_comes_and_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat is a sign that it listens; a sender's connection and a read without a frame are none."""
    heard: list[str] = []
    monkeypatch.setattr(watchdog, "heard", lambda: heard.append("heard"))
    monkeypatch.setattr(pyamqp.Connection, "blocking_read", lambda *_: None)
    AmqpConnection().blocking_read()
    assert heard == []
    HeardConnection().blocking_read()

    def silence(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(pyamqp.Connection, "blocking_read", silence)
    with pytest.raises(TimeoutError):
        HeardConnection().blocking_read()

    assert heard == ["heard"]


def test_a_look_notices_that_it_is_held() -> None:
    """What RabbitMQ says about an alarm is why it then answers nothing."""
    look = LookConnection()
    before = look.held
    look._on_blocked()

    assert (before, look.held) == (False, True)


def test_during_an_alarm_nothing_is_sent_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, reported: list[str]
) -> None:
    """Each sender is told at once; the first message that is taken over whichever connection ends the alarm."""
    sent: list[str] = []

    def silence(_: Any, timeout: float | None = None) -> None:
        raise TimeoutError

    monkeypatch.setattr(pyamqp.Connection, "blocking_read", silence)
    monkeypatch.setattr(pyamqp.Channel, "basic_publish_confirm", lambda _, text: sent.append(text), raising=False)
    held, other = AmqpConnection(), AmqpConnection()
    held._on_blocked()
    other._on_blocked()
    with pytest.raises(OperationalError, match="takes no messages"):
        channel_of(held).basic_publish_confirm("lost")

    channel_of(AmqpConnection()).basic_publish_confirm("taken")
    monkeypatch.setattr(pyamqp.Connection, "blocking_read", lambda each, timeout: each._on_unblocked())  # noqa: ARG005 - kombu names it
    channel_of(held).basic_publish_confirm("taken too")

    assert sent == ["taken", "taken too"]
    assert reported == ["broker.blocked", "broker.unblocked"]


def test_an_exchange_that_is_gone_is_declared_again_over_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kombu declared once it does not declare again before it connects again."""

    def gone(_: Any, text: str) -> None:
        raise NotFound(text)

    monkeypatch.setattr(pyamqp.Channel, "basic_publish_confirm", gone, raising=False)

    with pytest.raises(RecoverableConnectionError):
        channel_of(AmqpConnection()).basic_publish_confirm("x")


@pytest.mark.parametrize(
    ("headers", "body", "problem"),
    [
        ({"compression": "zlib"}, b"x", "it is compressed"),
        ({}, b"x" * 200_000, "it is too long"),
        ({"task": "x" * 70_000}, b"x", "it is too long"),
    ],
)
def test_what_rabbitmq_delivers_is_not_unpacked_before_it_is_checked(
    headers: dict[str, str], body: bytes, problem: str
) -> None:
    """A message that grows when it is unpacked would take the worker's memory."""
    raw = SimpleNamespace(body=body, properties={"application_headers": headers}, delivery_tag=1, delivery_info={})

    message = CheckedDelivery(raw)

    ((kind, error, _),) = message.errors
    assert kind is RefusedMessageError
    assert problem in str(error)
    assert message.body == ""
