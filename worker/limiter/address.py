"""From the setting's address to a Redis client that answers soon or fails soon."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.addresses import TLS_SCHEME, redis_tls

ANSWER_SECONDS: Final = 0.25
"""Longest wait for Redis; after it the worker is on its own."""
SOCKET_SCHEME: Final = "redis+socket://"


def connect(url: str) -> redis.Redis:
    """Return a client; it connects at its first use.

    A connection that was dropped while idle is replaced once, at once; nothing else is tried again, so that a call
    takes a fraction of a second at most.

    Args:
        url: `redis://`, `rediss://` or, as Celery writes it, `redis+socket:///path?virtual_host=0`.
    """
    return redis.Redis.from_url(
        _client_url(url),
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        decode_responses=True,
        **redis_tls(url),
    )


def _client_url(url: str) -> str:
    """Turn Celery's form of a Unix socket's address into the client's, and leave TLS to what is said beside it."""
    parts = urlsplit(url)
    if parts.scheme == TLS_SCHEME:
        others = [(name, value) for name, value in parse_qsl(parts.query) if not name.startswith("ssl_")]
        return urlunsplit(parts._replace(query=urlencode(others)))
    if not url.startswith(SOCKET_SCHEME):
        return url
    number = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/") or "0"
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"unix://{login}{unquote(parts.path)}?db={number}"
