"""What a real worker logs: by its level, at a signal, at a crash, and if debugging is asked for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from worker.celery import TaskCrashError, app

NewDaemon = Callable[..., Daemon]
LIMITS = "Max core file size"

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)]


def test_a_worker_is_as_quiet_as_it_is_asked_to_be(new_daemon: NewDaemon, wait_until: Callable[..., None]) -> None:
    """`--loglevel WARNING` holds; core dumps are off; SIGUSR1 shows stacks and no local variables."""
    daemon = new_daemon(LOG_LEVEL="DEBUG")
    worker = daemon.worker("quiet", "--loglevel", "WARNING")
    heartbeat = Path(daemon.environ["EVERTOKEN_RUN_DIR"], "worker-quiet@test")
    wait_until(heartbeat.exists, 30)
    os.kill(worker.pid, signal.SIGUSR1)
    wait_until(lambda: b"most recent call first" in worker.log.read_bytes())
    limits = Path(f"/proc/{worker.pid}/limits")
    if limits.exists():
        (core,) = [line for line in limits.read_text().splitlines() if line.startswith(LIMITS)]
        assert core.removeprefix(LIMITS).split()[:2] == ["0", "0"]
    daemon.stop(worker)
    logged = worker.log.read_text()
    levels = {json.loads(line)["level"] for line in logged.splitlines() if line.startswith("{")}

    assert levels <= {"warning", "error", "critical"}
    assert "LOCAL VARIABLES" not in logged
    assert "EVERTOKEN_" not in logged


def test_what_a_worker_reports_while_it_starts_goes_through_the_formatter(
    new_daemon: NewDaemon, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Journals are replayed before Celery sets logging up; their facts are log lines like any other."""
    daemon = new_daemon()
    journal = tmp_path / "journal"
    journal.mkdir(mode=0o700)
    (journal / "odd.segment").write_bytes(b"no journal" * 100)
    worker = daemon.worker("starting")
    daemon.wait_ready(wait_until, worker)
    daemon.stop(worker)
    logged = [line for line in worker.log.read_text().splitlines() if "odd.segment" in line]

    assert [json.loads(line)["event"] for line in logged] == ["journal.alarm"]


@pytest.mark.parametrize("switch", ["SSLKEYLOGFILE", "CELERY_RDBSIG"])
def test_a_worker_for_real_tokens_refuses_debug_switches(new_daemon: NewDaemon, tmp_path: Path, switch: str) -> None:
    """With TikTok's own address a switch ends the start, with status 2 and its name."""
    daemon = new_daemon(TIKTOK_BASE_URL="https://business-api.tiktok.com/open_api", QUOTA_PER_SECOND="10")
    daemon.environ |= {"EVERTOKEN_QUOTA_PER_MINUTE": "600", switch: str(tmp_path / "keys")}

    worker = daemon.run("worker", "-c", "1")
    command = daemon.run("grants", "refresh", "nobody", "--now")

    for ended in (worker, command):
        assert ended.returncode == 2, ended.stderr
        assert f"{switch} is set" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_task_that_crashes_shows_only_its_kind(caplog: pytest.LogCaptureFixture, database_kind: str) -> None:
    """What goes to events and Flower is a sentence of ours; the foreign text stays in the log, which is redacted."""

    @app.task(name="tests.crash")  # type: ignore[untyped-decorator]  # celery ships no types
    def crash() -> None:
        raise KeyError("refresh_token=CANARY")

    try:
        with pytest.raises(
            TaskCrashError, match=r"^tests\.crash ended in KeyError; the worker's log has its traceback$"
        ) as logged:
            crash()
    finally:
        app.tasks.unregister("tests.crash")

    assert logged.value.__context__ is None
    assert [record.getMessage() for record in caplog.records] == ["task.crashed"]
