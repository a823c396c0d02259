"""What Evertoken's user of Redis must be allowed, and what is missing: for the limiter, and for Celery's broker.

`docs/operations.md` has the line for an ACL file; a test compares it with NEEDED and runs a worker under it.
"""

from __future__ import annotations

from typing import Final

import redis

KEY: Final = "evertoken:doctor"
PIDBOX: Final = "evertoken:/{db}.celery.pidbox"
EVENTS: Final = "evertoken:/{db}.celeryev/*"
CHANNELS: Final = (PIDBOX, EVENTS, "evertoken:/{db}.celeryev/worker.*")
"""Channels of remote control, of events, and of workers that hear each other. A user may subscribe to a pattern only if
its own rights hold that very pattern."""
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "brpop": (KEY, "1"),
    "client|setinfo": ("lib-name", "a"),
    "client|setname": ("evertoken",),
    "decr": (KEY,),  # by the version before
    "decrby": (KEY, "1"),
    "del": (KEY,),
    "discard": (),
    "eval": ("return 1", "1", KEY),
    "evalsha": ("0" * 40, "1", KEY),
    "exec": (),
    "exists": (KEY,),
    "get": (KEY,),
    "hdel": (KEY, "a"),
    "hget": (KEY, "a"),
    "hmget": (KEY, "a"),
    "hset": (KEY, "a", "b"),
    "info": ("memory",),
    "lindex": (KEY, "0"),
    "llen": (KEY,),
    "lpush": (KEY, "a"),
    "ltrim": (KEY, "0", "1"),
    "multi": (),
    "pexpire": (KEY, "1"),
    "ping": (),
    "psubscribe": CHANNELS,
    "pttl": (KEY,),
    "publish": (PIDBOX, "a"),
    "punsubscribe": (),
    "rpop": (KEY,),
    "rpush": (KEY, "a"),
    "sadd": (KEY, "a"),
    "script|exists": ("0" * 40,),
    "script|load": ("return 1",),
    "select": ("0",),
    "set": (KEY, "a"),
    "smembers": (KEY,),
    "srem": (KEY, "a"),
    "subscribe": (PIDBOX,),
    "time": (),
    "unsubscribe": (),
    "unwatch": (),
    "watch": (KEY,),
    "zadd": (KEY, "1", "a"),
    "zcard": (KEY,),
    "zrange": (KEY, "0", "1"),
    "zrangebyscore": (KEY, "0", "1"),
    "zrem": (KEY, "a"),
    "zremrangebyrank": (KEY, "0", "1"),
    "zremrangebyscore": (KEY, "0", "1"),
    "zrevrange": (KEY, "0", "1"),
}
"""Each command, with arguments as we send them; Redis is asked whether it would run them, and runs none."""


def missing_rights(client: redis.Redis) -> tuple[str, ...] | None:
    """Return the rights that our user lacks, as an ACL writes them; None if Redis does not say.

    Redis before 7 and some that are rented do not tell a user of its own rights.

    Args:
        client: any client of that user.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    database, missing = client.connection_pool.connection_kwargs.get("db") or 0, dict[str, None]()
    try:
        user = _ask(client, "ACL WHOAMI")
        for command, arguments in NEEDED.items():
            filled = [argument.format(db=database) for argument in arguments]
            answer = _ask(client, "ACL DRYRUN", user, *command.split("|"), *filled)
            if "channel" in answer:
                missing |= dict.fromkeys(f"&{channel.format(db=database)}" for channel in CHANNELS)
            elif answer != "OK":
                missing["~evertoken:*" if " key" in answer else f"+{command}"] = None
    except redis.ResponseError:
        return None
    return tuple(missing)


def _ask(client: redis.Redis, *words: str) -> str:
    answer = client.execute_command(*words)  # type: ignore[no-untyped-call] # redis-py has no type for it
    return answer.decode() if isinstance(answer, bytes) else str(answer)


def memory_policy(client: redis.Redis) -> str | None:
    """Return what Redis does when its memory is full, such as `noeviction`; None if it may not be asked.

    Raises:
        redis.RedisError, OSError: Redis does not answer.
    """
    try:
        return str(client.info("memory").get("maxmemory_policy", "unknown"))
    except redis.exceptions.NoPermissionError:
        return None
