"""What Evertoken needs of Redis: rights of its user, for the limiter and for Celery's broker, and keys of their types.

`docs/operations.md` has a line for an ACL file, and another for a Redis that counts the quota alone. Tests compare them
with the commands here, and run workers under them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Final

import redis

from worker.limiter.connecting import connect
from worker.limiter.shared import LIMIT, WORKERS

KEY: Final = "{prefix}doctor"
PIDBOX: Final = "{prefix}/{db}.celery.pidbox"
EVENTS: Final = "{prefix}/{db}.celeryev/*"
CHANNELS: Final = (PIDBOX, EVENTS, "{prefix}/{db}.celeryev/worker.*")
"""Channels of remote control, of events, and of workers that listen to each other. A user may subscribe to a pattern
only if its rights contain exactly that pattern."""
OF_LIMITER: Final[dict[str, tuple[str, ...]]] = {
    "client|setinfo": ("lib-name", "a"),
    "decrby": (KEY, "1"),
    "del": (KEY,),
    "evalsha": ("0" * 40, "1", KEY),
    "get": (KEY,),
    "hget": (KEY, "a"),
    "hmget": (KEY, "a"),
    "hset": (KEY, "a", "b"),
    "info": ("memory",),
    "lindex": (KEY, "0"),
    "lpush": (KEY, "a"),
    "ltrim": (KEY, "0", "1"),
    "pexpire": (KEY, "1"),
    "ping": (),
    "script|load": ("return 1",),
    "select": ("0",),
    "set": (KEY, "a"),
    "time": (),
    "zadd": (KEY, "1", "a"),
    "zcard": (KEY,),
    "zrange": (KEY, "0", "1"),
    "zrem": (KEY, "a"),
    "zremrangebyrank": (KEY, "0", "1"),
    "zremrangebyscore": (KEY, "0", "1"),
    "zrevrange": (KEY, "0", "1"),
}
"""Each command that counting the quota takes, with arguments as we send them."""
OF_BROKER: Final[dict[str, tuple[str, ...]]] = {
    "brpop": (KEY, "1"),
    "client|setname": ("evertoken",),
    "decr": (KEY,),  # by the version before
    "discard": (),
    "eval": ("return 1", "1", KEY),
    "exec": (),
    "exists": (KEY,),
    "hdel": (KEY, "a"),
    "llen": (KEY,),
    "multi": (),
    "psubscribe": CHANNELS,
    "pttl": (KEY,),
    "publish": (PIDBOX, "a"),
    "punsubscribe": (),
    "rpop": (KEY,),
    "rpush": (KEY, "a"),
    "sadd": (KEY, "a"),
    "script|exists": ("0" * 40,),
    "smembers": (KEY,),
    "srem": (KEY, "a"),
    "subscribe": (PIDBOX,),
    "unsubscribe": (),
    "unwatch": (),
    "watch": (KEY,),
    "zrangebyscore": (KEY, "0", "1"),
}
"""The same for what Celery sends besides, if Redis carries the messages too."""


def needed_rights(*, carries_messages: bool) -> dict[str, tuple[str, ...]]:
    """Return each command that Redis must permit, with arguments as we send them.

    Args:
        carries_messages: False if RabbitMQ carries them, so that Redis counts the quota alone.
    """
    return OF_LIMITER | OF_BROKER if carries_messages else OF_LIMITER


def missing_rights(client: redis.Redis, prefix: str, *, carries_messages: bool) -> tuple[str, ...] | None:
    """Return the rights that our user lacks, as an ACL writes them; None if Redis does not say.

    Redis is asked whether it would run each command, and runs none. Redis before 7 and some managed services do not
    show a user its own rights.

    Args:
        client: any client of that user.
        prefix: what each of our keys begins with.
        carries_messages: as for `needed_rights`.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    names = {"db": client.connection_pool.connection_kwargs.get("db") or 0, "prefix": prefix}
    missing = dict[str, None]()
    try:
        user = _ask(client, "ACL WHOAMI")
        for command, arguments in needed_rights(carries_messages=carries_messages).items():
            filled = [argument.format_map(names) for argument in arguments]
            answer = _ask(client, "ACL DRYRUN", user, *command.split("|"), *filled)
            if "channel" in answer:
                missing |= dict.fromkeys(f"&{channel.format_map(names)}" for channel in CHANNELS)
            elif answer != "OK":
                missing[f"~{prefix}*" if " key" in answer else f"+{command}"] = None
    except redis.ResponseError:
        return None
    return tuple(missing)


def _ask(client: redis.Redis, *words: str) -> str:
    answer = client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no type for it
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def memory_policy(client: redis.Redis) -> str | None:
    """Return what Redis does when its memory is full, such as `noeviction`; None if our user may not ask.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    try:
        return str(client.info("memory").get("maxmemory_policy", "unknown"))
    except redis.exceptions.NoPermissionError:
        return None


PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")
"""What kombu appends to a queue's name; it asks for all of them, though we send without priorities."""
EXCHANGES: Final = ("evertoken", "celeryev", "celery.pidbox", "reply.celery.pidbox")
OF_KOMBU: Final[dict[str, tuple[str, ...]]] = {
    "hget": ("unacked",),
    "zcard": ("unacked_index", "_kombu.binding_deadlines"),
    "smembers": tuple(f"_kombu.{table}.{name}" for table in ("binding", "binding_permanent") for name in EXCHANGES),
}
"""Keys of Celery's broker besides the queues, by a command that Redis refuses if the key has another type."""


OF_DOCTOR: Final = frozenset({"scan"})
"""Commands with which `doctor` looks for other installations; without the right to them it looks for none."""
ANSWER_SECONDS: Final = 2.0
SEARCH_SECONDS: Final = 1.0
"""How long keys of other installations are searched for: a shared Redis may hold millions of keys."""


def others_of_app(url: str, prefix: str, app_id: str) -> list[str] | None:
    """Return what the keys begin with of other installations on this Redis that count the quota of our app.

    Args:
        url: the address, as Celery writes it.
        prefix: what each of our keys begins with.
        app_id: the app.

    Returns:
        None if our user may not search.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    tail = f":{LIMIT}{app_id}:{WORKERS}"
    pattern = "evertoken*" + re.sub(r"([\\*?\[\]])", r"\\\1", tail)
    found, end = set[str](), time.monotonic() + SEARCH_SECONDS
    try:
        with connect(url, ANSWER_SECONDS) as client:
            for key in client.scan_iter(pattern, count=1000):
                found.add(str(key).removesuffix(tail[1:]))
                if time.monotonic() > end:
                    break
    except redis.exceptions.NoPermissionError:
        return None
    return sorted(found - {prefix})


def spoilt_keys(client: redis.Redis, queues: Iterable[str], prefix: str) -> list[str]:
    """Return the keys of Celery's that have a type which Celery never gives them, so that it cannot use them.

    Args:
        client: any client of our user.
        queues: the names of the queues.
        prefix: what each of our keys begins with.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    commands = OF_KOMBU | {"llen": tuple(queue + priority for queue in queues for priority in PRIORITIES)}
    asked = [(command, prefix + name) for command, names in commands.items() for name in names]
    # Celery's own client adds the prefix to some commands and not to others.
    with redis.Redis(connection_pool=client.connection_pool).pipeline(transaction=False) as pipe:
        for command, key in asked:
            pipe.execute_command(command, key, *(("",) if command == "hget" else ()))  # type: ignore[no-untyped-call] # redis-py has no type for it
        answers = pipe.execute(raise_on_error=False)
    return [
        key
        for (_, key), answer in zip(asked, answers, strict=True)
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")
    ]
