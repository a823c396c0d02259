"""What `doctor` checks around us: Redis, RabbitMQ, TikTok, workers and beat; each check ends soon."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from worker.broker import QUEUES, AmqpBroker, Broker
from worker.cli import output
from worker.cli.checks import Finding, State
from worker.egress import NotConnectedError
from worker.errors import BrokerUnavailableError
from worker.redis_address import read_sentinels

if TYPE_CHECKING:
    from worker.services import Services
    from worker.settings import MessengerSettings, Settings

REDIS_SECONDS: Final = 2.0
WORKERS_SECONDS: Final = 1.5
"""How long `doctor` waits for answers of workers."""
SENTINEL_SECONDS: Final = 1.0
DESK_SECONDS: Final = 3.0
FULL: Final = "Service Unavailable"
"""What the desk's server says before the desk has read a request, while all connections are taken."""
TIKTOK_SECONDS: Final = 5.0
BEAT_SILENT_SCANS: Final = 6
"""Scans that beat may miss before it counts as gone; workers that still run find nothing new then."""
LONG_QUEUE: Final = 1_000
"""Messages; two scans at the highest quota leave fewer, and expired ones count until a worker takes them."""


def outer_checks(app: Any, services: Services, *, offline: bool) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield the name and function of each check; the caller runs them.

    Args:
        app: the Celery app.
        services: the services of the doctor itself.
        offline: True to send nothing to TikTok.
    """
    if read_sentinels(services.settings.redis_url) is not None:
        yield "sentinels", lambda: sentinels(services.settings)
    yield "redis", lambda: redis(services.settings)
    if isinstance(rabbit := services.broker, AmqpBroker):
        yield "rabbitmq", lambda: rabbitmq(rabbit)
    yield "quota", lambda: quota(services)
    yield "workers", lambda: workers(app)
    yield "queues", lambda: queues(app, services.broker)
    yield "beat", lambda: beat(services)
    yield "desk", lambda: desk(services)
    yield "tiktok", lambda: Finding("tiktok", "skip", "not asked") if offline else tiktok(services)


def desk(services: Services) -> Finding:
    """Check that the desk has its secrets and, where it would listen on this host, that it answers."""
    from worker.desk.lacking import refuse_lacking  # noqa: PLC0415 - Celery loads the doctor on every start

    settings = services.settings
    if not (settings.desk_secret or settings.desk_password or settings.desk_operator_header):
        links = f"; consent links lead to {settings.desk_url}" if settings.desk_url else ""
        return Finding("desk", "ok", f"not set up here{links}; docs/desk.md says what it is for")
    refuse_lacking(settings)
    place = f"{settings.desk_address} port {settings.desk_port}"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.desk_address, settings.desk_address)  # noqa: S104 - where to look, not where to listen
    connection = HTTPConnection(host, settings.desk_port, timeout=DESK_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = answer.read(100).decode("ascii", "replace").strip()
    except (OSError, HTTPException):
        return Finding(
            "desk", "warn", f"nothing answers at {place} of this host: start `evertoken desk`, if it is to run here"
        )
    finally:
        connection.close()
    if said == FULL:
        text = f"takes no more connections at {place}, and applications get no token from it: docs/runbook/desk-full.md"
        return Finding("desk", "fail", text)
    return Finding("desk", "ok" if answer.status == HTTPStatus.OK else "fail", f"answers at {place}: {said}")


def redis(settings: MessengerSettings) -> Finding:
    """Check that Redis answers, permits what we need and never evicts."""
    from worker.limiter.connecting import ERRORS, connect, why_of_no_use  # noqa: PLC0415 - Celery loads the doctor on every start
    from worker.limiter.rights import memory_policy, missing_rights, spoilt_keys  # noqa: PLC0415 - as above

    prefix, carries = settings.key_prefix, settings.broker_url is None
    with connect(settings.redis_url, REDIS_SECONDS) as client:
        try:
            missing, policy = missing_rights(client, prefix, carries_messages=carries), memory_policy(client)
            spoilt = spoilt_keys(client, QUEUES, prefix) if carries else []
        except ERRORS as error:
            hides = {"quota", "workers", "queues"} if carries else {"quota"}
            return Finding("redis", "fail", why_of_no_use(error, client), hides=frozenset(hides))
    if missing:
        return Finding(
            "redis", "fail", f"our user lacks rights (docs/operations.md, A user of Redis): {' '.join(missing)}"
        )
    if spoilt:
        keys = " ".join(spoilt)
        cure = f"delete them (`redis-cli DEL {keys}`), which costs no data, and find out who else writes to Redis"
        return Finding(
            "redis",
            "fail",
            f"keys of a type that Celery cannot use: {cure}",
            hides=frozenset({"workers", "queues", "beat"}),
        )
    kept = "queues" if carries else "counts of the quota"
    if policy is None:
        return Finding("redis", "warn", f"answers, but refuses INFO: it is not known whether it drops {kept} when full")
    if policy != "noeviction":
        return Finding("redis", "fail", f"may drop {kept} when full (maxmemory-policy {policy}); set noeviction")
    return Finding("redis", "ok", "answers, and never evicts")


def rabbitmq(broker: AmqpBroker) -> Finding:
    """Check that RabbitMQ lets us in, answers, takes messages, and has nothing else under our names."""
    hides = frozenset({"workers", "queues", "beat"})
    try:
        broker.look()
    except BrokerUnavailableError as error:
        return Finding("rabbitmq", "fail", f"{error}; docs/runbook/rabbitmq-away.md", hides=hides)
    spoilt = broker.spoilt()
    if spoilt:
        cure = "delete them, which costs no data, and find out who else declares them"
        return Finding("rabbitmq", "fail", f"{', '.join(spoilt)} of a kind that Celery cannot use: {cure}", hides=hides)
    return Finding("rabbitmq", "ok", f"{broker.version()} answers and takes messages")


def sentinels(settings: Settings) -> Finding:
    """Check that the Sentinels answer and agree on a master that is up and has a replica that we could connect to."""
    from worker.limiter.connecting import ask_sentinels, try_replicas  # noqa: PLC0415 - Celery loads the doctor

    views = ask_sentinels(settings.redis_url, SENTINEL_SECONDS)
    named = Counter(view.master for view in views if view.master is not None and not view.down)
    parts = [
        f"{master} is the master, as {count} of {output.counted(len(views), 'Sentinel')} say"
        for master, count in named.most_common()
    ] or ["no Sentinel names a master that is up, so each worker keeps to its own share of the quota"]
    for text, places in (
        ("no answer from", [view.place for view in views if not view.answers]),
        ("the name in ?service= is not known to", [view.place for view in views if view.answers and not view.master]),
        ("the master is down for", [view.place for view in views if view.down]),
        ("no replica is up for", [view.place for view in views if view.master and not view.replicas]),
    ):
        if places:
            parts.append(f"{text} {', '.join(places)}")
    parts += [
        f"the replica {place} could not be the next master: {why}; docs/operations.md, Redis under Sentinels"
        for place, why in try_replicas(settings.redis_url, views, SENTINEL_SECONDS).items()
    ]
    state: State = "fail" if not named else "ok" if len(parts) == 1 else "warn"
    hides = frozenset({"redis", "quota", "workers", "queues"}) if not named else frozenset[str]()
    return Finding("sentinels", state, "; ".join(parts), hides=hides)


def quota(services: Services) -> Finding:
    """Check whether all requests are paused, by an answer of TikTok or by what somebody wrote to Redis."""
    state = services.limiter.status()
    if not state.shared:
        return Finding("quota", "warn", "Redis does not answer: each worker keeps to its own share of the quota")
    if state.paused_seconds:
        why = (
            "TikTok said that a limit was broken; without refresh.backed_off in a worker's log, somebody else wrote "
            "the pause to Redis"
        )
        return Finding("quota", "warn", f"nothing is sent for another {state.paused_seconds:.0f} s: {why}")
    from worker.limiter.rights import others_of_app  # noqa: PLC0415 - Celery loads the doctor on every start

    settings = services.settings
    if others := others_of_app(settings.redis_url, settings.key_prefix, settings.tiktok_app_id):
        keys = " ".join(f"{each}*" for each in others)
        sends = f"another installation on this Redis sends for the same app (keys {keys})"
        cure = "each counts the whole quota: docs/operations.md, Several installations side by side"
        return Finding("quota", "warn", f"{sends}; {cure}")
    return Finding("quota", "ok", f"not paused; up to {state.usable_per_second:.1f} requests a second are sent")


def workers(app: Any) -> Finding:
    """Check which workers answer Celery's remote commands, and whether somebody set limits for one of them."""
    answers = app.control.inspect(timeout=WORKERS_SECONDS).registered("rate_limit", "time_limit", "soft_time_limit")
    if not answers:
        return Finding("workers", "fail", "none answered: start `celery -A worker worker`")
    slow = [f"{name} runs {task}" for name, tasks in sorted(answers.items()) for task in tasks if "[" in task]
    if slow:
        return Finding("workers", "fail", f"limits that Evertoken does not set: {slow[0]}; restart that worker")
    return Finding("workers", "ok", f"{len(answers)} answered: {', '.join(sorted(answers)[:5])}")


def queues(app: Any, broker: Broker) -> Finding:
    """Count the messages that wait in each queue and the workers that serve it."""
    looks = broker.look()
    waiting = {name: look.waiting for name, look in looks.items()}
    takers = Counter({name: look.takers for name, look in looks.items() if look.takers is not None})
    if not takers:  # Redis does not know who asks it for messages
        takes = app.control.inspect(timeout=WORKERS_SECONDS).active_queues() or {}
        takers = Counter(queue["name"] for taken in takes.values() for queue in taken)
    counts = ", ".join(
        f"{name} {count} ({output.counted(takers[name], 'worker')})" for name, count in sorted(waiting.items())
    )
    left = [name for name in sorted(waiting) if not takers[name]]
    if left:
        wanted = f"no worker serves {' and '.join(left)}: start one with `-Q {','.join(left)}`"
        return Finding("queues", "fail", f"{counts}; {wanted}")
    if max(waiting.values()) > LONG_QUEUE:
        return Finding("queues", "warn", f"{counts}; there are too few workers, or they hang")
    return Finding("queues", "ok", counts)


def beat(services: Services) -> Finding:
    """Check when a message from beat last reached a worker, on whatever hosts the two run."""
    age = services.store.tick_age()
    if age is None:
        return Finding("beat", "warn", "none of its messages has reached a worker yet: start `celery -A worker beat`")
    if math.isinf(age):
        text = "its last message lies ahead: the database's clock was set back, and no message has come since"
    else:
        text = f"its last message reached a worker {age:.0f} s ago"
    if age > services.settings.scan_seconds * BEAT_SILENT_SCANS:
        return Finding("beat", "fail", f"{text}: start `celery -A worker beat`, unless no worker serves the queues")
    return Finding("beat", "ok", text)


def tiktok(services: Services) -> Finding:
    """Check that TikTok's host answers, over the route that calls take; nothing secret is sent, any status will do."""
    settings = services.settings
    host = urlsplit(settings.tiktok_base_url).hostname or ""
    try:
        head = services.egress.ask(
            "HEAD",
            f"{settings.tiktok_base_url.rstrip('/')}/",
            seconds=TIKTOK_SECONDS,
            connect_seconds=min(TIKTOK_SECONDS, settings.connect_seconds),
        )
    except (NotConnectedError, ConnectionError) as error:
        return Finding("tiktok", "fail", f"{host} cannot be reached: {error}")
    sandbox = ", a stand-in on this machine" if settings.sandboxed else ""
    return Finding("tiktok", "ok", f"{host} answers (HTTP {head.status}){sandbox}")
