"""The look into the broker: what each kind answers, from a real Redis and from a RabbitMQ of paper."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed

from worker.broker import QUEUES, AmqpBroker, QueueLook, broker_of
from worker.broker.redis import RedisBroker
from worker.cli.checks_outside import queues, rabbitmq
from worker.errors import BrokerUnavailableError
from worker.settings import MessengerSettings, load

PREFIX = "evertoken:"


class Paper:
    """Connections to a RabbitMQ that is not there, and what it was asked.

    Attributes:
        waiting: messages by the name of a queue that exists.
        others: names that somebody declared otherwise than we do.
        alarm: True while it takes no messages.
        fault: raised at the next connection; None if it takes it.
        connections: how many were opened.
        published: routing keys of messages that were sent to it.
    """

    def __init__(self) -> None:
        """Be empty."""
        self.waiting: dict[str, int] = {}
        self.others: set[str] = set()
        self.alarm = False
        self.fault: Exception | None = None
        self.connections = 0
        self.published: list[str] = []
        self.declared: list[str] = []

    def connect(self) -> Any:
        """Return a connection."""
        if self.fault is not None:
            raise self.fault
        self.connections += 1
        return PaperConnection(self)


class PaperConnection:
    """One connection, with its channels in one."""

    held = False
    server_properties = {"product": "RabbitMQ", "version": "3.10.8"}  # noqa: RUF012 - as py-amqp has it

    def __init__(self, server: Paper) -> None:
        self.server = server
        self.gone = False

    def channel(self) -> PaperConnection:
        """Return a channel."""
        if self.gone:
            raise ConnectionResetError(104, "Connection reset by peer")
        return self

    def exchange_declare(self, name: str, kind: str, *, passive: bool = False, **_: Any) -> None:
        """Declare an exchange, which exists once a queue does."""
        del name, kind, passive
        if not self.server.waiting:
            raise NotFound("no exchange")

    def basic_publish(self, message: Any, *, exchange: str, routing_key: str) -> None:
        """Take a message."""
        del message, exchange
        self.server.published.append(routing_key)
        self.held = self.server.alarm

    def queue_declare(self, name: str, *, passive: bool = False, **_: Any) -> Any:
        """Declare a queue; nobody answers over a connection that is held."""
        if self.held:
            raise TimeoutError
        if passive and name not in self.server.waiting:
            raise NotFound("no queue")
        if not passive:
            self.server.declared.append(name)
            if name in self.server.others:
                raise PreconditionFailed("inequivalent arg 'durable'")
        return SimpleNamespace(message_count=self.server.waiting[name], consumer_count=2)

    def close(self) -> None:
        """Close a channel."""

    def collect(self) -> None:
        """Close the connection."""
        self.gone = True


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    """A RabbitMQ in which our queues exist and are empty."""
    server = Paper()
    server.waiting = {f"evertoken.{queue}": 0 for queue in QUEUES}
    monkeypatch.setattr(AmqpBroker, "_connect", lambda _: server.connect())
    monkeypatch.setattr("amqp.Channel.queue_declare", PaperConnection.queue_declare)
    monkeypatch.setattr("amqp.Channel.exchange_declare", PaperConnection.exchange_declare)
    return server


@pytest.fixture
def broker() -> AmqpBroker:
    """A look into it."""
    return AmqpBroker("amqp://u:p-CANARY@rabbit/x", "evertoken")


def test_settings_choose_the_broker() -> None:
    """Redis, unless an address of RabbitMQ is given; its names have the namespace."""
    over_redis = broker_of(load(MessengerSettings, {}, dotenv=None))
    over_amqp = broker_of(load(MessengerSettings, {"EVERTOKEN_BROKER_URL": "amqp://rabbit"}, dotenv=None))

    assert (over_redis.name, over_redis.setting) == ("Redis", "EVERTOKEN_REDIS_URL")
    assert (over_amqp.name, over_amqp.setting) == ("RabbitMQ", "EVERTOKEN_BROKER_URL")


def test_redis_counts_waiting_messages_and_finds_spoilt_keys(redis_url: str, free_port: int) -> None:
    """Messages of every priority are counted, and a Redis that is away says nothing."""
    broker = RedisBroker(redis_url, PREFIX)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("evertoken:refresh", "a", "b")
        client.lpush("evertoken:refresh\x06\x163", "c")
        assert broker.look() == {"refresh": QueueLook(3), "pull": QueueLook(0), "default": QueueLook(0)}
        assert broker.serves()
        assert broker.could_work([], math.nan)
        client.set("evertoken:pull", "x")

    assert broker.spoilt() == ["evertoken:pull"]
    assert not broker.serves()
    assert not broker.could_work(QUEUES, 0)
    away = RedisBroker(f"redis://:p-CANARY@127.0.0.1:{free_port}/0", PREFIX)
    for ask in (away.look, away.spoilt):
        with pytest.raises(BrokerUnavailableError) as caught:
            ask()
        assert "CANARY" not in str(caught.value)
    assert not away.serves()


def test_rabbitmq_says_what_waits_and_who_takes_it(paper: Paper, broker: AmqpBroker) -> None:
    """One connection does for many looks; a queue that nobody declared yet is empty and has no taker."""
    paper.waiting["evertoken.refresh"] = 7
    del paper.waiting["evertoken.pull"]

    looks = [broker.look(), broker.look()]

    assert looks == [{"refresh": QueueLook(7, 2), "pull": QueueLook(0, 0), "default": QueueLook(0, 2)}] * 2
    assert paper.connections == 1
    assert paper.declared == []
    assert set(paper.published) == {"nowhere"}


def test_a_rabbitmq_without_our_exchange_serves(paper: Paper, broker: AmqpBroker) -> None:
    """Nothing is made by a look, so a fresh server has nothing of ours."""
    paper.waiting = {}

    assert broker.serves()
    assert broker.look() == {queue: QueueLook(0, 0) for queue in QUEUES}
    assert (paper.published, paper.declared) == ([], [])


def test_a_lost_connection_is_replaced_once(paper: Paper, broker: AmqpBroker) -> None:
    """RabbitMQ was restarted between two looks: that is no reason to call it away."""
    broker.look()
    broker._kept.gone = True

    assert broker.serves()
    assert paper.connections == 2


def test_an_alarm_is_seen_and_its_end_too(paper: Paper, broker: AmqpBroker) -> None:
    """RabbitMQ reads nothing more from a connection that it holds, so the next look takes another."""
    paper.alarm = True
    with pytest.raises(BrokerUnavailableError, match=r"takes no messages: an alarm for memory or disk"):
        broker.look()
    assert not broker.serves()

    paper.alarm = False
    assert broker.serves()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError(), "TimeoutError"),
        (AccessRefused("Login was refused"), "Login was refused"),
        (AttributeError("'NoneType' object has no attribute 'sock'"), "AttributeError"),
    ],
)
def test_why_rabbitmq_does_not_serve_is_said_without_a_password(
    fault: Exception, said: str, paper: Paper, broker: AmqpBroker
) -> None:
    """In its own words or the system's; doctor says it too, and skips what would blame something else."""
    paper.fault = fault

    with pytest.raises(BrokerUnavailableError) as caught:
        broker.look()
    finding = rabbitmq(broker)

    assert str(caught.value) == f"RabbitMQ does not serve: {said}"
    assert not broker.serves()
    assert (finding.state, set(finding.hides)) == ("fail", {"workers", "queues", "beat"})
    assert said in finding.detail


@pytest.mark.parametrize(
    ("waiting", "silent", "able"),
    [
        pytest.param({}, 1.0, False, id="idle, and hears heartbeats"),
        pytest.param({}, 11.0, True, id="idle, and hears nothing"),
        pytest.param({}, math.nan, True, id="never heard anything"),
        pytest.param({"refresh": 1}, 1.0, True, id="messages wait for it"),
        pytest.param({"pull": 1}, 1.0, False, id="messages wait for others"),
    ],
)
def test_a_worker_of_rabbitmq_hangs_if_messages_wait_or_nothing_is_heard(
    waiting: dict[str, int], silent: float, able: bool, paper: Paper, broker: AmqpBroker
) -> None:
    """Messages come by themselves, so a worker that has none to take is not to blame."""
    paper.waiting |= {f"evertoken.{queue}": count for queue, count in waiting.items()}

    assert broker.could_work(["refresh", "default"], silent) is able

    paper.fault, broker._kept = ConnectionRefusedError(111, "Connection refused"), None
    assert not broker.could_work(["refresh", "default"], silent)


def test_a_worker_of_a_queue_that_nobody_takes_hangs(paper: Paper, broker: AmqpBroker) -> None:
    """Somebody deleted it at a moment when Celery did not notice; nothing will ever wait there."""
    del paper.waiting["evertoken.refresh"]

    assert broker.could_work(["refresh"], 1.0)
    assert not broker.could_work(["pull", "default"], 1.0)


def test_queues_of_another_kind_are_named(paper: Paper, broker: AmqpBroker) -> None:
    """Celery could not declare them; nothing that is missing is made."""
    del paper.waiting["evertoken.pull"]
    paper.others = {"evertoken.refresh"}

    finding = rabbitmq(broker)

    assert broker.spoilt() == ["evertoken.refresh"]
    assert "evertoken.pull" not in paper.declared
    assert finding.state == "fail"
    assert finding.detail.startswith("evertoken.refresh of a kind that Celery cannot use: delete them")


def test_doctor_asks_rabbitmq_itself_who_takes_messages(paper: Paper, broker: AmqpBroker) -> None:
    """Its counts of consumers do not depend on how fast workers answer; the names are those of `-Q`."""

    def nobody() -> Any:
        pytest.fail("no worker has to be asked")

    paper.waiting |= {"evertoken.pull": 1_001}
    app = SimpleNamespace(control=SimpleNamespace(inspect=lambda **_: nobody()))

    found = queues(app, broker)

    assert found.state == "warn"
    assert found.detail.startswith("default 0 (2 workers), pull 1001 (2 workers), refresh 0 (2 workers); ")
    assert rabbitmq(broker).detail == "RabbitMQ 3.10.8 answers and takes messages"


def test_a_worker_full_of_delayed_messages_is_not_taken_for_a_hung_one() -> None:
    """With a fixed window RabbitMQ sends nothing more to a worker whose messages are all for later."""
    from worker import consumer  # noqa: PLC0415 - only this test pays for importing Celery's worker

    def full(over_amqp: bool, held: int, growing: bool) -> bool:
        window = SimpleNamespace(qos=SimpleNamespace(value=16 + held), initial_prefetch_count=16, qos_global=growing)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(consumer, "over_amqp", over_amqp)
            return consumer.is_full_of_delayed(window)

    assert full(True, 16, False)
    assert not full(True, 15, False)
    assert not full(True, 16, True)
    assert not full(False, 16, False)
    assert not consumer.is_full_of_delayed(None)
