"""Celery's configuration: a disposable broker, Redis or RabbitMQ, messages as hints, the database as the truth.

Each value that is not Celery's default says why. Only what beat, Flower and senders of messages need is read here, so
those need no secret; the worker reads all settings and refuses to start with bad ones (see `worker.celery`).
"""

from __future__ import annotations

from typing import Any, Final

from kombu.entity import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES

from worker.amqp_address import AMQP_SCHEME, AMQPS_SCHEME, amqp_url, read_amqp
from worker.broker import HEARTBEAT_SECONDS, QUEUES, base_name, queue_name
from worker.errors import ConfigurationError
from worker.redis_address import broker_address, broker_options, redis_tls
from worker.settings import MessengerSettings, load

settings_problem: str | None = None
try:
    settings = load(MessengerSettings)
except ConfigurationError as error:
    settings, settings_problem = MessengerSettings(), str(error)

SCAN_SECONDS: Final = settings.scan_seconds
UPKEEP_SECONDS: Final = settings.upkeep_seconds
SENTINEL_SECONDS: Final = 2.0
"""Longest wait for one Sentinel; then the next one is asked."""

over_amqp = settings.broker_url is not None
broker_connection_retry_on_startup = True  # a worker that comes up before its broker waits for it
broker_connection_max_retries = None  # and goes on waiting; the default gives up after 100 tries
broker_channel_error_retry = True  # a Redis that answers with errors, full or in a failover, is no end of the worker
broker_transport_options: dict[str, Any]
if settings.broker_url is None:
    broker_url = broker_address(settings.redis_url)
    broker_use_ssl: dict[str, Any] | None = redis_tls(settings.redis_url) or None  # `rediss://` would check nothing
    broker_transport_options = {
        # Without a socket timeout a half-open connection stops worker and beat for ever. Nobody may remove this line.
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "visibility_timeout": 600,
        "global_keyprefix": settings.key_prefix,
        "client_name": "evertoken",
        **broker_options(settings.redis_url, seconds=SENTINEL_SECONDS),
    }
else:
    # Its connections check messages and bound every wait, as the options above do for Redis.
    TRANSPORT_ALIASES[AMQP_SCHEME] = "worker.channels:AmqpTransport"
    TRANSPORT_ALIASES[AMQPS_SCHEME] = "worker.channels:AmqpsTransport"
    broker_url = amqp_url(settings.broker_url)
    broker_use_ssl = dict(read_amqp(settings.broker_url).tls) or None
    broker_heartbeat = HEARTBEAT_SECONDS  # a half-open connection is given up after twice that; Celery's own is 120
    broker_transport_options = {
        # RabbitMQ says nothing about a message that it did not take, unless it is asked to confirm each.
        "confirm_publish": True,
        "write_timeout": 10,
        "client_properties": {"connection_name": "evertoken"},
    }
    # Every name in a virtual host is ours or another program's; Redis has a prefix for that.
    control_exchange = base_name(settings.namespace)
    event_exchange = event_queue_prefix = f"{base_name(settings.namespace)}.events"

task_serializer = "json"
accept_content = ["json"]
result_backend = None  # results would be one more place for what a task knows
task_ignore_result = True
task_store_errors_even_if_ignored = False

# Early acknowledgement: a late one runs a task twice after a mere connection blip. A message that is lost costs one
# scan, because the scan finds the row again.
task_acks_late = False
task_reject_on_worker_lost = False
worker_cancel_long_running_tasks_on_connection_loss = False
worker_prefetch_multiplier = 1
worker_disable_rate_limits = True  # the quota is kept elsewhere; nothing else may slow a task down
# A worker fetches when a thread is free, so other workers find the rest. RabbitMQ sends one ahead for each thread.
worker_disable_prefetch = not over_amqp

worker_consumer = "worker.consumer:LastingConsumer"  # the stock one ends when its broker goes away at the wrong moment
worker_pool = "threads"  # bounded calls over the network; nothing kills a thread between answer and commit
worker_concurrency = 16
worker_send_task_events = True  # Flower
task_send_sent_event = True
worker_hijack_root_logger = False
worker_redirect_stdouts = False
enable_utc = True
timezone = "UTC"

task_default_queue = "default"
# Each queue is bound to a key of its own. Celery binds queues without a key to one and the same, and each would get
# every message that somebody publishes to the exchange instead of to a queue.
task_default_exchange = base_name(settings.namespace) if over_amqp else "evertoken"
_exchange = Exchange(task_default_exchange)
# Durable classic queues. Quorum queues would copy messages that are only hints, and have no window for a whole channel,
# which Celery widens while it holds delayed messages.
task_queues = [
    Queue(queue_name(task_default_exchange, name), _exchange, routing_key=name, alias=name)
    if over_amqp
    else Queue(name, _exchange, routing_key=name)
    for name in QUEUES
]
task_create_missing_queues = False
task_routes = {
    "tasks.refresh.*": {"queue": "refresh"},
    "tasks.pull.*": {"queue": "pull"},
    "tasks.upkeep.*": {"queue": "default"},
    "tasks.notify.*": {"queue": "default"},
}
include = ["tasks.refresh", "tasks.pull", "tasks.upkeep", "tasks.notify"]

beat_scheduler = "worker.beat:TickingScheduler"
beat_max_loop_interval = 5
FROM_BEAT: Final = "from_beat"
"""Header of beat's messages: a worker that takes one writes into the database that beat runs."""


def _every(seconds: float, task: str) -> dict[str, object]:
    """Return an entry; it expires when the next one comes, so an outage leaves no pile of stale ticks."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds, "headers": {FROM_BEAT: True}}}


beat_schedule = {
    "find grants to refresh": _every(SCAN_SECONDS, "tasks.refresh.scan_due"),
    "find pulls": _every(SCAN_SECONDS, "tasks.pull.scan_due"),
    "keep house": _every(UPKEEP_SECONDS, "tasks.upkeep.keep_house"),
    "deliver notices": _every(UPKEEP_SECONDS, "tasks.notify.deliver"),
}
