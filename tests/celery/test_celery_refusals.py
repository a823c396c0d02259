"""A worker or beat that does not start: one line that says why, an exit status, and nothing sent to TikTok."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.daemon import Daemon
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring

NewDaemon = Callable[..., Daemon]
WORKER = ("worker", "-c", "1", "--without-mingle", "--without-gossip")

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)]


def refused(daemon: Daemon, sandbox: RunningSandbox, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run a command that is refused; return its status and the one line that it said beside log lines in JSON."""
    before = sandbox.stats()["requests"]
    result = daemon.run(*arguments, **settings)
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("{")]

    assert "Traceback" not in result.stdout + result.stderr
    assert len(lines) == 1, result.stderr
    assert sandbox.stats()["requests"] <= before + 1  # the one look at the counters itself
    return result.returncode, lines[0]


def test_a_worker_without_settings_names_what_is_missing(new_daemon: NewDaemon, sandbox: RunningSandbox) -> None:
    """A worker without its settings ends with status 2 and names all that are missing."""
    status, said = refused(
        new_daemon(), sandbox, *WORKER, TIKTOK_APP_ID="", TIKTOK_APP_SECRET="", TIKTOK_REDIRECT_URI="", KEYRING=""
    )

    assert status == 2
    assert said.startswith("evertoken: ")
    for name in ("TIKTOK_APP_ID", "TIKTOK_APP_SECRET", "TIKTOK_REDIRECT_URI", "KEYRING"):
        assert f"EVERTOKEN_{name} is missing" in said


def test_beat_refuses_a_wrong_setting_of_its_own(new_daemon: NewDaemon, sandbox: RunningSandbox) -> None:
    """Beat needs few settings, and refuses to start if one of them is wrong."""
    status, said = refused(new_daemon(), sandbox, "beat", SCAN_SECONDS="often")

    assert (status, "EVERTOKEN_SCAN_SECONDS" in said) == (2, True)


@pytest.mark.parametrize(
    "command", [("flower",), ("inspect", "ping"), ("call", "tasks.refresh.scan_due")], ids=" ".join
)
def test_stock_commands_do_not_turn_to_another_broker(
    command: tuple[str, ...], new_daemon: NewDaemon, sandbox: RunningSandbox
) -> None:
    """If the broker's address cannot be read, Celery's default in its place would show an empty, quiet system."""
    status, said = refused(new_daemon(), sandbox, *command, REDIS_URL="redis://127.0.0.1:port/0")

    assert (status, "EVERTOKEN_REDIS_URL cannot be read" in said) == (2, True)


def test_a_worker_does_not_start_on_a_database_that_is_not_migrated(
    new_daemon: NewDaemon, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """An empty database is named, with the command that migrates it."""
    (tmp_path / "new.db").touch()
    status, said = refused(new_daemon(), sandbox, *WORKER, DATABASE_URL=f"sqlite:///{tmp_path / 'new.db'}")

    assert (status, "run `celery -A worker db upgrade`" in said) == (1, True)


def test_a_worker_does_not_start_with_a_keyring_that_opens_nothing(
    new_daemon: NewDaemon, sandbox: RunningSandbox
) -> None:
    """A keyring that is not the one that sealed the rows is found out before anything is claimed."""
    daemon = new_daemon()
    line = '{"creator_id": "c1", "access_token": "act.a1", "refresh_token": "rft.r1", "expires_in": 86400}\n'
    imported = daemon.run("grants", "import", "-", text=line)
    assert imported.returncode == 0, imported.stderr
    status, said = refused(daemon, sandbox, *WORKER, KEYRING=Keyring.new().to_json())

    assert (status, "set EVERTOKEN_KEYRING to the right keyring" in said) == (1, True)


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_pools_that_patch_the_libraries_are_refused(
    pool: str, capsys: pytest.CaptureFixture[str], database_kind: str
) -> None:
    """A worker with a pool of green threads ends at once with status 2; it never reaches the database."""
    from worker.celery import check_before_work  # noqa: PLC0415 - what it imports is not needed by the other tests

    sender = SimpleNamespace(pool_cls=SimpleNamespace(__module__=f"celery.concurrency.{pool}"))
    with pytest.raises(SystemExit) as ended:
        check_before_work(sender=sender)

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"evertoken: the worker pool {pool} is not offered; use `-P threads`\n"
