"""What `doctor` looks at around us: Redis, TikTok, workers and beat; each look has a short end."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from worker.cli.checks import Finding

if TYPE_CHECKING:
    from worker.settings import Settings

WORKERS_SECONDS: Final = 1.5
"""How long workers have to answer."""
TIKTOK_SECONDS: Final = 5.0
BEAT_SILENT_SCANS: Final = 6
"""Scans that beat may miss before it counts as gone; workers that still run find nothing new then."""
BEAT_FILE: Final = "beat"


def outer_checks(app: Any, settings: Settings, *, offline: bool) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and function of each check; nothing has run yet.

    Args:
        app: the Celery app.
        settings: the settings.
        offline: True to leave TikTok alone.
    """
    yield "redis", lambda: redis(app)
    yield "workers", lambda: workers(app)
    yield "beat", lambda: beat(settings)
    yield "tiktok", lambda: Finding("tiktok", "skip", "not asked") if offline else tiktok(settings)


def redis(app: Any) -> Finding:
    """Look whether Redis answers and never evicts, by the connection that Celery uses anyway."""
    with app.connection_for_read(connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        memory = connection.default_channel.client.info("memory")
    policy = memory.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        return Finding("redis", "fail", f"may drop queues when full (maxmemory-policy {policy}); set noeviction")
    return Finding("redis", "ok", "answers, and never evicts")


def workers(app: Any) -> Finding:
    """Look which workers answer on the queue's side channel."""
    names = sorted(name for answer in app.control.ping(timeout=WORKERS_SECONDS) for name in answer)
    if not names:
        return Finding("workers", "fail", "none answered: start `celery -A worker worker`")
    return Finding("workers", "ok", f"{len(names)} answered: {', '.join(names[:5])}")


def beat(settings: Settings) -> Finding:
    """Look when beat last said that it runs."""
    ticked = settings.run_dir / BEAT_FILE
    longest = settings.scan_seconds * BEAT_SILENT_SCANS
    age = _age(ticked)
    if age is None:
        return Finding("beat", "warn", f"no sign of it in {settings.run_dir}; is it on another host?")
    text = f"was there {age:.0f} s ago"
    if age > longest:
        return Finding("beat", "fail", f"{text}: start `celery -A worker beat`")
    return Finding("beat", "ok", text)


def tiktok(settings: Settings) -> Finding:
    """Look whether TikTok's host answers; nothing secret is sent and any HTTP status will do."""
    import certifi  # noqa: PLC0415 - Celery loads the doctor on every start

    parts = urlsplit(settings.tiktok_base_url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # The same certificate authorities as the client's own library trusts.
        trust = ssl.create_default_context(cafile=certifi.where())
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIKTOK_SECONDS, context=trust)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIKTOK_SECONDS)
    try:
        connection.request("HEAD", f"{parts.path.rstrip('/')}/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return Finding("tiktok", "fail", f"{host} cannot be reached ({type(error).__name__})")
    finally:
        connection.close()
    sandbox = ", a stand-in on this machine" if settings.sandboxed else ""
    return Finding("tiktok", "ok", f"{host} answers (HTTP {status}){sandbox}")


def _age(path: Path) -> float | None:
    try:
        return max(time.time() - path.stat().st_mtime, 0.0)
    except OSError:
        return None
