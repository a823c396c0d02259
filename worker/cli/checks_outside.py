"""What `doctor` looks at around us: Redis, TikTok, workers and beat; each look has a short end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from worker.cli.checks import Finding
from worker.egress import NotConnectedError

if TYPE_CHECKING:
    from worker.services import Services
    from worker.settings import Settings

WORKERS_SECONDS: Final = 1.5
"""How long workers have to answer."""
TIKTOK_SECONDS: Final = 5.0
BEAT_SILENT_SCANS: Final = 6
"""Scans that beat may miss before it counts as gone; workers that still run find nothing new then."""
BEAT_FILE: Final = "beat"


def outer_checks(app: Any, services: Services, *, offline: bool) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield name and function of each check; nothing has run yet.

    Args:
        app: the Celery app.
        services: the services of the doctor itself.
        offline: True to leave TikTok alone.
    """
    yield "redis", lambda: redis(app)
    yield "quota", lambda: quota(services)
    yield "workers", lambda: workers(app)
    yield "beat", lambda: beat(services.settings)
    yield "tiktok", lambda: Finding("tiktok", "skip", "not asked") if offline else tiktok(services)


def redis(app: Any) -> Finding:
    """Look whether Redis answers and never evicts, by the connection that Celery uses anyway."""
    with app.connection_for_read(connect_timeout=2) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        memory = connection.default_channel.client.info("memory")
    policy = memory.get("maxmemory_policy", "unknown")
    if policy != "noeviction":
        return Finding("redis", "fail", f"may drop queues when full (maxmemory-policy {policy}); set noeviction")
    return Finding("redis", "ok", "answers, and never evicts")


def quota(services: Services) -> Finding:
    """Look whether all requests are held back, by TikTok's word or by what somebody wrote to Redis."""
    state = services.limiter.status()
    if not state.shared:
        return Finding("quota", "warn", "Redis does not answer: each worker keeps to its own share of the quota")
    if state.paused_seconds:
        told = (
            "TikTok said that a limit was broken; without refresh.backed_off in a worker's log, somebody else wrote it"
        )
        return Finding("quota", "warn", f"nothing is sent for {state.paused_seconds:.0f} s more: {told}")
    return Finding("quota", "ok", f"not paused; up to {state.usable_per_second:.1f} requests a second are sent")


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


def tiktok(services: Services) -> Finding:
    """Look whether TikTok's host answers, on the way that calls take; nothing secret is sent and any status will do."""
    settings = services.settings
    host = urlsplit(settings.tiktok_base_url).hostname or ""
    try:
        status = services.egress.ask(
            "HEAD",
            f"{settings.tiktok_base_url.rstrip('/')}/",
            seconds=TIKTOK_SECONDS,
            connect_seconds=min(TIKTOK_SECONDS, settings.connect_seconds),
        )
    except (NotConnectedError, ConnectionError) as error:
        return Finding("tiktok", "fail", f"{host} cannot be reached: {error}")
    sandbox = ", a stand-in on this machine" if settings.sandboxed else ""
    return Finding("tiktok", "ok", f"{host} answers (HTTP {status}){sandbox}")


def _age(path: Path) -> float | None:
    try:
        return max(time.time() - path.lstat().st_mtime, 0.0)
    except OSError:
        return None
