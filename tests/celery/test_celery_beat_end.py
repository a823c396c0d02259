"""Beat ends when it is asked to, whatever it is doing then."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.support.black_hole import BlackHole
from tests.support.daemon import Daemon
from worker.telemetry import Fact

STALE_SECONDS = 3.0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_beat_ends_while_redis_does_not_answer(
    new_daemon: Callable[..., Daemon],
    redis_url: str,
    tmp_path: Path,
    wait_until: Callable[..., None],
    database_kind: str,
) -> None:
    """A signal in the middle of a send ends beat at once, and does not look like a message that was lost."""
    redis_port = int(redis_url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])
    with BlackHole(redis_port) as hole:
        daemon = new_daemon(REDIS_URL=f"redis://127.0.0.1:{hole.port}/0")
        beat = daemon.beat()
        daemon.wait_ready(wait_until, beat)
        ticked = Path(daemon.environ["EVERTOKEN_RUN_DIR"], "beat")

        def waits_for_redis() -> bool:
            hole.swallow()
            return time.time() - ticked.stat().st_mtime > STALE_SECONDS

        wait_until(waits_for_redis, 30)
        daemon.stop(beat)

    log = beat.log.read_bytes()
    assert b"Traceback" not in log
    assert b"message.unpublished" not in log


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A scheduler with one entry that is due at once."""
    from worker import beat, celery  # noqa: PLC0415 - only tests of the app pay for importing Celery

    monkeypatch.setattr(beat, "touch", lambda *_: None)
    celery.app.loader.import_default_modules()
    made: Any = beat.TickingScheduler(celery.app, lazy=True)
    made.add(name="due", task="tasks.refresh.scan_due", schedule=0.0)
    made.__dict__["producer"] = None
    return made


def test_a_swallowed_signal_still_ends_beat(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a library turns SystemExit into an error of its own, the next tick ends beat and nothing is reported lost."""
    from worker import celery  # noqa: PLC0415 - only tests of the app pay for importing Celery

    logged: list[Fact] = []
    monkeypatch.setattr(celery, "log_fact", logged.append)

    def send(*_: Any, **__: Any) -> None:
        try:
            scheduler.stop(signal.SIGTERM, None)
        finally:
            raise ValueError("a connection that was closed")

    monkeypatch.setattr(celery.app.tasks["tasks.refresh.scan_due"], "apply_async", send)
    scheduler.tick()

    with pytest.raises(SystemExit):
        scheduler.tick()
    assert logged == []


def test_only_celerys_own_handlers_are_replaced(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beat that runs inside a worker, or under somebody's own handlers, keeps what it has."""
    from celery.apps.beat import Beat  # noqa: PLC0415 - only tests of the app pay for importing Celery

    from worker import beat, celery  # noqa: PLC0415 - only tests of the app pay for importing Celery

    def own(number: int, frame: FrameType | None) -> None:
        del number, frame

    class Service:
        pass

    service: Any = Service()
    service.scheduler = scheduler
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        signal.signal(signal.SIGTERM, own)
        beat.answer_signals(sender=service)
        assert signal.getsignal(signal.SIGTERM) is own

        Beat(app=celery.app).install_sync_handler(service)
        beat.answer_signals(sender=service)
        assert [signal.getsignal(number) for number in before] == [scheduler.stop] * 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
