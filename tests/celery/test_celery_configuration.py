"""Celery's configuration: names, queues, serialization, schedule, and what a dead connection may cost."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from kombu.transport.redis import SentinelChannel

from tests.support.daemon import plain_environ
from worker import celeryconfig
from worker.celery import app
from worker.channels import CheckedChannel
from worker.consumer import LastingConsumer

TASKS = {
    "tasks.refresh.scan_due": "refresh",
    "tasks.refresh.refresh_grants": "refresh",
    "tasks.pull.scan_due": "pull",
    "tasks.pull.pull_account": "pull",
    "tasks.pull.pull_accounts": "pull",
    "tasks.upkeep.keep_house": "default",
    "tasks.notify.deliver": "default",
}


@pytest.fixture(autouse=True)
def _tasks_loaded() -> None:
    app.loader.import_default_modules()


def test_tasks_have_the_names_that_people_call() -> None:
    """The tasks of the app are these and no others; a name is never changed in place."""
    assert {name for name in app.tasks if not name.startswith("celery.")} == set(TASKS)


@pytest.mark.parametrize(("task", "queue"), TASKS.items())
def test_each_task_goes_to_its_queue(task: str, queue: str) -> None:
    """Refreshes, pulls and the rest have queues of their own, so that none holds up another."""
    assert app.amqp.router.route({}, task)["queue"].name == queue


def test_no_task_makes_a_queue_of_its_own() -> None:
    """Only the declared queues exist, so a mistyped route fails at the sender and no messages pile up unread."""
    assert {queue.name for queue in celeryconfig.task_queues} == set(TASKS.values())
    assert app.conf.task_create_missing_queues is False


def test_each_queue_is_bound_to_a_key_of_its_own() -> None:
    """What is published to the exchange under a queue's key reaches that queue alone."""
    bound = [(queue.exchange.name, queue.routing_key) for queue in app.amqp.queues.values()]

    assert bound == [("evertoken", name) for name in ("refresh", "pull", "default")]


def test_messages_are_json_and_results_are_off() -> None:
    """Nothing is pickled, and no result is kept anywhere."""
    assert (app.conf.task_serializer, app.conf.accept_content) == ("json", ["json"])
    assert app.conf.result_backend is None
    assert all(task.ignore_result for name, task in app.tasks.items() if name in TASKS)


def test_a_message_is_a_hint_that_is_taken_once() -> None:
    """A message is acknowledged before it runs and never given twice; what is lost is found by the next scan."""
    assert not app.conf.task_acks_late
    assert not app.conf.task_reject_on_worker_lost
    assert not app.conf.worker_cancel_long_running_tasks_on_connection_loss
    assert all(not task.acks_late for name, task in app.tasks.items() if name in TASKS)


def test_a_dead_connection_is_noticed() -> None:
    """Reads from Redis end after a while, and reconnecting never gives up."""
    options = app.conf.broker_transport_options

    assert 0 < options["socket_timeout"] <= 10
    assert 0 < options["socket_connect_timeout"] <= 10
    assert 0 < options["health_check_interval"] <= options["socket_timeout"]
    assert app.conf.broker_connection_retry_on_startup is True
    assert app.conf.broker_connection_max_retries is None


def test_the_keys_in_redis_have_our_prefix() -> None:
    """A Redis that others use too does not mix our queues with theirs."""
    assert app.conf.broker_transport_options["global_keyprefix"] == "evertoken:"


def test_every_tick_of_beat_expires_when_the_next_one_comes() -> None:
    """An outage of the workers leaves no pile of stale scans behind it."""
    schedule = app.conf.beat_schedule

    assert {entry["task"] for entry in schedule.values()} == {
        "tasks.refresh.scan_due",
        "tasks.pull.scan_due",
        "tasks.upkeep.keep_house",
        "tasks.notify.deliver",
    }
    assert all(0 < entry["options"]["expires"] <= entry["schedule"] for entry in schedule.values())
    assert all("args" not in entry and "kwargs" not in entry for entry in schedule.values())


def test_a_pool_thread_per_connection_of_the_database() -> None:
    """The threads pool is the default, and each of its threads finds a database connection."""
    from worker.reading import POOL_SIZE  # noqa: PLC0415 - what it imports is not needed by the other tests

    assert app.conf.worker_pool == "threads"
    assert app.conf.worker_concurrency <= POOL_SIZE


@pytest.mark.parametrize("schemes", ["sentinel", "redis"])
def test_a_connection_that_goes_on_to_its_next_address_still_checks_messages(
    schemes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failed try of a failover does so; a worker with channels of kombu's own checks nothing and seems to hang."""
    address = f"{schemes}://127.0.0.1:1/0;{schemes}://127.0.0.1:2/0"
    connection = app.connection_for_write(address)
    consumer = LastingConsumer.__new__(LastingConsumer)
    consumer.app = app
    monkeypatch.setattr(app, "connection_for_read", lambda **_: connection)
    monkeypatch.setattr(consumer, "wait_for_keys", lambda: None)
    monkeypatch.setattr(consumer, "ensure_connected", lambda each: each)
    checked = consumer.connection_for_read()

    assert issubclass(checked.transport.Channel, CheckedChannel)
    checked.maybe_switch_next()
    assert ":2/" in checked.as_uri()
    assert issubclass(checked.transport.Channel, CheckedChannel)
    assert issubclass(checked.transport.Channel, SentinelChannel) is (schemes == "sentinel")


OVER_AMQP = """
import json
from worker import celeryconfig
from worker.celery import app
app.loader.import_default_modules()
connection = app.connection_for_write()
print(json.dumps({
    "routes": {name: app.amqp.router.route({}, name)["queue"].name for name in app.tasks if name.startswith("tasks.")},
    "keys": [[queue.exchange.name, queue.routing_key, queue.durable, queue.auto_delete, queue.queue_arguments]
        for queue in app.amqp.queues.values()],
    "names": [app.control.mailbox.namespace, app.conf.event_exchange, app.conf.event_queue_prefix],
    "shown": [connection.as_uri(), connection.transport_cls],
    "transport": type(connection.transport).__name__,
    "confirms": connection.transport_options["confirm_publish"],
    "heartbeat": app.conf.broker_heartbeat,
    "unprefetched": app.conf.worker_disable_prefetch,
    "early": not app.conf.task_acks_late,
}))
app.amqp.queues.select(["refresh"])
print(json.dumps(list(app.amqp.queues.consume_from)))
"""


@pytest.mark.parametrize(("namespace", "base"), [("", "evertoken"), ("shop", "evertoken-shop")])
def test_over_rabbitmq_every_name_is_ours_and_every_message_confirmed(namespace: str, base: str) -> None:
    """A virtual host may serve other programs and namespaces; for `-Q` the queues have the same names as over Redis."""
    environ = plain_environ() | {"EVERTOKEN_BROKER_URL": "amqp://u:p-CANARY@rabbit.example/x"}
    environ |= {"EVERTOKEN_NAMESPACE": namespace} if namespace else {}
    done = subprocess.run(
        [sys.executable, "-c", OVER_AMQP], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    said, taken = map(json.loads, done.stdout.splitlines())

    assert said["routes"] == {task: f"{base}.{queue}" for task, queue in TASKS.items()}
    assert said["keys"] == [[base, name, True, False, None] for name in ("refresh", "pull", "default")]
    assert said["names"] == [base, f"{base}.events", f"{base}.events"]
    assert said["shown"] == ["amqp://u:**@rabbit.example:5672/x", "amqp"]
    assert said["transport"] == "AmqpTransport"
    assert (said["confirms"], said["unprefetched"], said["early"]) == (True, False, True)
    assert 0 < said["heartbeat"] <= 10
    assert taken == [f"{base}.refresh"]
