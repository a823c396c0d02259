"""Going back a version, and forward: real workers of two versions take turns on one database.

The version before is the code of the last release's tag. As long as there is none, it is the last commit before
versions could be distinguished.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection

from tests.conftest import APP_ID
from tests.support.daemon import PROJECT, READY_SECONDS, Daemon, daemon_settings
from tests.support.world import SCOPE, World
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store import open_store
from worker.store.schema import chain

pytestmark = [pytest.mark.slow_suite, pytest.mark.timeout(300)]

BEFORE_RELEASES: Final = "1d7bf4f0799adac4c506ee7ec356402fad12b5d2"
CREATORS: Final = 3
HELLO_SECONDS: Final = 60.0
"""Time in which a worker notices what has become of the tables; it looks every 20 s."""
NEXT_MIGRATION: Final = '''"""A column that the next version needs."""

import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"
compatible_from = "{compatible_from}"


def upgrade() -> None:
    """Add it."""
    op.add_column("grants", sa.Column("of_the_next_version", sa.Text()))
'''


def git(*arguments: str) -> bytes:
    """Run git; the test is skipped, with the reason, if the project's history is not here."""
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        pytest.skip(f"the version before is not here, since the project's history is not: git says {said!r}")
    return done.stdout


def last_version() -> str:
    """Return the newest release's tag before this commit, or the commit that stands in for one."""
    tags = git("tag", "--merged", "HEAD~1", "--sort=-v:refname", "--list", "v[0-9]*").decode().split()
    return tags[0] if tags else BEFORE_RELEASES


class Versions:
    """Daemons of several versions over one database, Redis and TikTok."""

    def __init__(self, stack: ExitStack, folder: Path, sandbox: RunningSandbox, store_url: str, redis_url: str) -> None:
        self.folder = folder
        self.sandbox = sandbox
        self.store = stack.enter_context(closing(open_store(store_url, app_id=APP_ID)))
        self._stack = stack
        self._settings = {"DATABASE_URL": store_url, "REDIS_URL": redis_url}

    def daemon(self, name: str, code: Path = PROJECT, **settings: str) -> Daemon:
        """Return the daemon of the code in a folder; the keyring is that of the first one with a keyring."""
        folder = self.folder / name
        folder.mkdir()
        environ = daemon_settings(self.sandbox, folder, **(self._settings | settings))
        return self._stack.enter_context(Daemon(folder, environ | {"PYTHONPATH": str(code)}))

    def make_keyring(self, daemon: Daemon) -> None:
        """Let a version make the keyring of all that follow."""
        made = daemon.run_python("from worker.vault import Keyring; print(Keyring.new().to_json())")
        assert made.returncode == 0, made.stderr
        self._settings["KEYRING"] = daemon.environ["EVERTOKEN_KEYRING"] = made.stdout.strip()

    def import_creators(self, daemon: Daemon) -> None:
        """Let a version import creators."""
        names = ("access_token", "refresh_token", "expires_in", "refresh_token_expires_in", "scope")
        given = self.sandbox.grants(CREATORS, prefix="c", scope=SCOPE)
        lines = [json.dumps({"creator_id": one["open_id"], **{name: one[name] for name in names}}) for one in given]
        done = daemon.run("grants", "import", "-", text="\n".join(lines))
        assert done.returncode == 0, done.stdout + done.stderr

    def refresh_all(self, daemon: Daemon, wait_until: Callable[..., None]) -> None:
        """Let a worker of a version refresh every creator, from the scan to the stored pair."""
        before = self._generations()
        self._run("UPDATE grants SET next_refresh_at = 0")
        worker = daemon.worker()
        daemon.wait_ready(wait_until, worker)
        called = daemon.run("call", "tasks.refresh.scan_due")
        assert called.returncode == 0, called.stderr

        def refreshed() -> bool:
            now = self._generations()
            return len(now) == CREATORS and all(now[creator] > generation for creator, generation in before.items())

        wait_until(lambda: refreshed() or worker.status is not None, READY_SECONDS)
        assert refreshed(), worker.tail()
        daemon.stop(worker)
        assert b"Traceback" not in worker.log.read_bytes()

    def verdict(self, daemon: Daemon) -> None:
        """Hold the ledger against what is stored: every pair that TikTok gave out is there, and none was sent twice."""
        with closing(World(self.sandbox, daemon.environ)) as world:
            judged = world.verdict(*world.services.store.grants())
        assert judged.sound, judged
        assert judged.creators == CREATORS

    def _generations(self) -> dict[str, int]:
        def read(connection: Connection) -> dict[str, int]:
            rows = connection.exec_driver_sql("SELECT creator_id, pair_generation FROM grants")
            return {str(creator): int(generation) for creator, generation in rows}

        return self.store.transact(read, writes=False)

    def _run(self, statement: str) -> None:
        self.store.transact(lambda connection: connection.exec_driver_sql(statement), writes=True)


@pytest.fixture
def versions(empty_database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Versions]:
    """An empty database, and a TikTok that takes each refresh token once."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(start_sandbox(SandboxOptions(rotation="strict")))
        yield Versions(stack, tmp_path, sandbox, empty_database_url, redis_url)


@pytest.fixture
def code_before(tmp_path: Path) -> Path:
    """The code of the version before, with its commands."""
    folder = tmp_path / "code-before"
    with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", last_version()))) as archive:
        archive.extractall(folder, filter="data")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = folder / "evertoken-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: evertoken\nVersion: {project['version']}\n")
    commands = [f"{name} = {where}" for name, where in project["entry-points"]["celery.commands"].items()]
    (installed / "entry_points.txt").write_text("\n".join(["[celery.commands]", *commands]) + "\n")
    return folder


def code_after(folder: Path, compatible_from: str) -> Path:
    """Make the code of a version to come: this one's, with one more migration."""
    for part in ("worker", "tasks"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "celeryconfig.py", folder)
    migration = NEXT_MIGRATION.format(newest=list(chain())[-1], compatible_from=compatible_from)
    (folder / "worker/store/migrations/versions/v9999_next.py").write_text(migration)
    return folder


def test_the_version_before_and_this_one_take_turns_on_one_database(
    versions: Versions, code_before: Path, wait_until: Callable[..., None]
) -> None:
    """An upgrade, a step back without touching the tables, and forward again: every refresh token is used once."""
    before = versions.daemon("before", code_before, KEYRING="none")
    versions.make_keyring(before)
    now = versions.daemon("now")
    assert before.run("db", "upgrade").returncode == 0
    versions.import_creators(before)
    versions.refresh_all(before, wait_until)

    refused = now.run("db", "check")
    upgraded = now.run("db", "upgrade")
    versions.refresh_all(now, wait_until)
    back = before.run("db", "upgrade")
    versions.refresh_all(before, wait_until)
    versions.refresh_all(now, wait_until)

    assert refused.returncode == 1 or "nothing to do" in upgraded.stdout
    assert upgraded.returncode == 0, upgraded.stderr
    assert (back.returncode, back.stderr) == (0, "")
    assert "nothing to do" in back.stdout
    versions.verdict(now)


def test_this_version_runs_on_tables_of_the_next_one_that_say_so(
    versions: Versions, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """Whoever goes back from a version to come finds nothing to do, and every check is good."""
    now = versions.daemon("now", KEYRING="none")
    versions.make_keyring(now)
    after = versions.daemon("after", code_after(tmp_path / "code-after", list(chain())[-1]))
    assert after.run("db", "upgrade").returncode == 0
    versions.import_creators(now)

    versions.refresh_all(after, wait_until)
    upgraded, checked = now.run("db", "upgrade"), now.run("db", "check", "--json")
    versions.refresh_all(now, wait_until)

    assert (upgraded.returncode, upgraded.stderr) == (0, "")
    assert "nothing to do" in upgraded.stdout
    assert json.loads(checked.stdout) == {"at": "9999", "wanted": list(chain())[-1], "current": False, "runs": True}
    assert "schema.newer" in (now.folder / "logs" / "worker.log").read_text()
    versions.verdict(now)


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_this_version_leaves_tables_alone_that_it_does_not_run_on(
    versions: Versions, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """A worker that runs ends, one that starts refuses, and an upgrade says what to do; nothing is sent to TikTok."""
    now = versions.daemon("now", KEYRING="none")
    versions.make_keyring(now)
    after = versions.daemon("after", code_after(tmp_path / "code-after", "9999"))
    assert now.run("db", "upgrade").returncode == 0
    running = now.worker("running")
    now.wait_ready(wait_until, running)
    assert after.run("db", "upgrade").returncode == 0
    versions.import_creators(after)

    upgraded, checked, starting = now.run("db", "upgrade"), now.run("db", "check"), now.worker("starting")
    wait_until(lambda: starting.status is not None, READY_SECONDS)
    wait_until(lambda: running.status is not None, HELLO_SECONDS)

    for said in (upgraded.stderr, checked.stdout, log_of(starting), log_of(running)):
        assert "install the newer version again, or restore the backup" in said
        assert "Traceback" not in said
    assert (upgraded.returncode, checked.returncode) == (1, 1)
    assert starting.status != 0
    assert "schema.unfit" in log_of(running)
    assert [entry for entry in versions.sandbox.entries() if entry.call.endswith("refresh_token/")] == []


def log_of(child: Child) -> str:
    """Return all that a process wrote."""
    return child.log.read_text(encoding="utf-8")
