"""Clients of Redis, for whatever form of address: a server, or the master that Sentinels name."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from worker.redis_address import Sentinels, read_sentinels, redis_client_url, redis_tls
from worker.vault.redaction import redact

ERRORS: Final = (redis.RedisError, OSError)
"""What a call of Redis raises."""
ANSWER_SECONDS: Final = 0.25
"""Longest wait for Redis; after it the worker uses its own share."""


class OfMaster(redis.Redis):
    """A client of the master that Sentinels name; it closes its connections to them too."""

    def close(self) -> None:
        """Close all connections."""
        super().close()
        pool = self.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            pool.sentinel_manager.close()


def connect(url: str, seconds: float = ANSWER_SECONDS) -> redis.Redis:
    """Return a client; it connects at its first use.

    A connection that was dropped while idle is replaced once, at once; nothing else is retried, so that a call takes at
    most a fraction of a second. With Sentinels the new connection is to the server that is the master then.

    Args:
        url: as in the setting, such as `rediss://` or, as Celery writes it, `redis+socket:///path?virtual_host=0`.
        seconds: longest wait to connect, and for each answer.
    """
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        "decode_responses": True,
    }
    sentinels = read_sentinels(url)
    if sentinels is None:
        return redis.Redis.from_url(redis_client_url(url), **options, **redis_tls(url))
    manager = Sentinel(
        sentinels.hosts,
        sentinel_kwargs=_of_sentinels(sentinels, seconds),
        db=sentinels.database,
        **options,
        **sentinels.login,
        **sentinels.tls,
    )  # type: ignore[no-untyped-call] # redis-py has no type for it
    return manager.master_for(sentinels.service, OfMaster)  # type: ignore[no-any-return, no-untyped-call] # as above


def why_of_no_use(error: Exception, client: redis.Redis) -> str:
    """Say why Redis is of no use to us, in its own words if it answered.

    Our password is left out: a server that knows no AUTH says back to us what we said.

    Args:
        error: one of `ERRORS`.
        client: the client that met it.
    """
    if isinstance(error, redis.InvalidResponse):
        return "what answers there does not speak Redis' protocol: are scheme and port right?"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {cause.verify_message.rstrip('.')}"
        cause = cause.__cause__ or cause.__context__
    said = (str(error).partition(", with args")[0] or type(error).__name__).rstrip(".")
    password = client.connection_pool.connection_kwargs.get("password")
    if password:
        said = said.replace(password, "(our password)")
    refused = isinstance(error, redis.AuthenticationError | redis.ResponseError)
    return redact(f"answers, and refuses us: {said}" if refused else f"does not answer: {said}")


def place_of(client: redis.Redis) -> str:
    """Return where a client looks for Redis: host and port, the path of a socket, or what it asks Sentinels for."""
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return f"the master {pool.service_name} of the Sentinels (last known: {master_of(client) or 'none'})"
    options = pool.connection_kwargs
    host = str(options.get("host", "localhost"))
    return str(options.get("path") or f"{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}")


def master_of(client: redis.Redis) -> str | None:
    """Return host and port of the master that Sentinels last named to a client; None without Sentinels, or before."""
    pool = client.connection_pool
    address = pool.master_address if isinstance(pool, SentinelConnectionPool) else None
    return None if address is None else f"{address[0]}:{address[1]}"


@dataclass(frozen=True)
class SentinelView:
    """What one Sentinel says.

    Attributes:
        place: its host and port.
        master: host and port of the master that it names; None if it does not answer or knows none.
        down: True if it sees that master down.
        replicas: host and port of each replica of the master that it sees up.
        answers: False if it does not answer.
    """

    place: str
    master: str | None = None
    down: bool = False
    replicas: frozenset[tuple[str, int]] = frozenset()
    answers: bool = True


def ask_sentinels(url: str, seconds: float) -> list[SentinelView]:
    """Return what each Sentinel of an address says of the master; none if the address names a server.

    Args:
        url: as in the setting.
        seconds: longest wait for each.
    """
    sentinels = read_sentinels(url)
    if sentinels is None:
        return []
    return [_ask(sentinels, host, port, seconds) for host, port in sentinels.hosts]


def _ask(sentinels: Sentinels, host: str, port: int, seconds: float) -> SentinelView:
    place = f"{host}:{port}"
    try:
        with redis.Redis(host, port, **_of_sentinels(sentinels, seconds)) as client:
            state = client.sentinel_masters().get(sentinels.service)
            replicas = client.sentinel_slaves(sentinels.service) if state else []
    except ERRORS:
        return SentinelView(place, answers=False)
    if state is None:
        return SentinelView(place)
    down = not state["is_master"] or state["is_sdown"] or state["is_odown"]
    up = [replica for replica in replicas if not (replica["is_sdown"] or replica["is_odown"])]
    named = frozenset((str(replica["ip"]), int(replica["port"])) for replica in up)
    return SentinelView(place, f"{state['ip']}:{state['port']}", bool(down), named)


def try_replicas(url: str, views: Iterable[SentinelView], seconds: float) -> dict[str, str]:
    """Connect to each replica as if it were the master, under the name or address that the Sentinels have for it.

    Args:
        url: as in the setting.
        views: what the Sentinels say.
        seconds: longest wait for each replica.

    Returns:
        Why it did not work, by host and port of the replica; empty if each would do as the next master.
    """
    sentinels = read_sentinels(url)
    if sentinels is None:
        return {}
    bounds = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": Retry(NoBackoff(), 0)}
    options: dict[str, Any] = {**bounds, **sentinels.login, **sentinels.tls}
    troubles = dict[str, str]()
    for host, port in sorted({replica for view in views for replica in view.replicas}):
        with redis.Redis(host, port, **options) as client:
            try:
                client.ping()
            except ERRORS as error:
                troubles[f"{host}:{port}"] = why_of_no_use(error, client)
    return troubles


def _of_sentinels(sentinels: Sentinels, seconds: float) -> dict[str, Any]:
    """Return the options of a client of the Sentinels themselves."""
    return {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "retry": Retry(NoBackoff(), 0),
        **sentinels.sentinel_login,
        **sentinels.tls,
    }
