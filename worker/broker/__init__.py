"""The broker that carries Celery's messages: what it holds, and whether it serves. There are two kinds."""

from worker.broker.amqp import HEARTBEAT_SECONDS, AmqpBroker, base_name, queue_name
from worker.broker.contract import QUEUES, Broker, QueueLook
from worker.broker.redis import RedisBroker
from worker.settings import MessengerSettings

__all__ = ["HEARTBEAT_SECONDS", "QUEUES", "AmqpBroker", "Broker", "QueueLook", "base_name", "broker_of", "queue_name"]


def broker_of(settings: MessengerSettings) -> Broker:
    """Return a look into the broker of these settings; it connects at its first use."""
    if settings.broker_url is None:
        return RedisBroker(settings.redis_url, settings.key_prefix)
    return AmqpBroker(settings.broker_url, base_name(settings.namespace))
