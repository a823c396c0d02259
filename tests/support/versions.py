"""Several versions of the code over one database: the project's history, unpacked, and daemons that run it."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tomllib
from collections.abc import Callable
from contextlib import ExitStack, closing
from io import BytesIO
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from tests.conftest import APP_ID
from tests.support.daemon import PROJECT, READY_SECONDS, Daemon, daemon_settings
from tests.support.world import SCOPE, World
from worker.sandbox.process import RunningSandbox
from worker.store import open_store
from worker.store.schema import MIGRATIONS

BEFORE_RELEASES: Final = "1d7bf4f0799adac4c506ee7ec356402fad12b5d2"


class NoHistoryError(Exception):
    """The project's history is not here, so there is no older version to run."""


def git(*arguments: str) -> bytes:
    """Run git and return what it prints.

    Raises:
        NoHistoryError: git does not know what was asked for.
    """
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise NoHistoryError(f"the version before is not here, since the project's history is not: git says {said!r}")
    return done.stdout


def last_version() -> str:
    """Return the newest release's tag before this commit, or the commit that stands in for one.

    Raises:
        NoHistoryError: there is no history.
    """
    tags = git("tag", "--merged", "HEAD~1", "--sort=-v:refname", "--list", "v[0-9]*").decode().split()
    return tags[0] if tags else BEFORE_RELEASES


def before_migrations(number: int = 1) -> str:
    """Return the last commit that lacks the newest migrations.

    Args:
        number: how many of them it lacks.

    Raises:
        NoHistoryError: there is no history.
    """
    newest = sorted((MIGRATIONS / "versions").glob("v*.py"))[-number]
    added = git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest.relative_to(PROJECT))).decode().strip()
    if not added:
        raise NoHistoryError(f"the project's history does not say when {newest.name} was added")
    return git("rev-parse", f"{added}~1").decode().strip()


def unpack(commit: str, folder: Path) -> Path:
    """Write the code of a commit into a new folder, with its commands, and return the folder.

    Raises:
        NoHistoryError: the commit is not here.
    """
    with tarfile.open(fileobj=BytesIO(git("archive", "--format=tar", commit))) as archive:
        archive.extractall(folder, filter="data")
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = folder / "evertoken-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: evertoken\nVersion: {project['version']}\n")
    commands = [f"{name} = {where}" for name, where in project["entry-points"]["celery.commands"].items()]
    (installed / "entry_points.txt").write_text("\n".join(["[celery.commands]", *commands]) + "\n")
    return folder


class Versions:
    """Daemons of several versions over one database, Redis and TikTok."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        sandbox: RunningSandbox,
        store_url: str,
        redis_url: str,
        *,
        creators: int,
        **settings: str,
    ) -> None:
        """Open the database; settings are given without their prefix."""
        self.folder = folder
        self.sandbox = sandbox
        self.store = stack.enter_context(closing(open_store(store_url, app_id=APP_ID)))
        self._stack = stack
        self._creators = creators
        self._settings = {"DATABASE_URL": store_url, "REDIS_URL": redis_url} | settings

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
        given = self.sandbox.grants(self._creators, prefix="c", scope=SCOPE)
        lines = [json.dumps({"creator_id": one["open_id"], **{name: one[name] for name in names}}) for one in given]
        done = daemon.run("grants", "import", "-", text="\n".join(lines))
        assert done.returncode == 0, done.stdout + done.stderr

    def refresh_all(self, daemon: Daemon, wait_until: Callable[..., None]) -> None:
        """Let a worker of a version refresh every creator, from the scan to the stored pair."""
        before = self.generations()
        self._run("UPDATE grants SET next_refresh_at = 0")
        worker = daemon.worker()
        daemon.wait_ready(wait_until, worker)
        called = daemon.run("call", "tasks.refresh.scan_due")
        assert called.returncode == 0, called.stderr

        wait_until(lambda: self.refreshed_since(before) or worker.status is not None, READY_SECONDS)
        assert self.refreshed_since(before), worker.tail()
        daemon.stop(worker)
        assert b"Traceback" not in worker.log.read_bytes()

    def verdict(self, daemon: Daemon) -> None:
        """Hold the ledger against what is stored: every pair that TikTok gave out is there, and none was sent twice."""
        with closing(World(self.sandbox, daemon.environ)) as world:
            judged = world.verdict(*world.services.store.grants())
        assert judged.sound, judged
        assert judged.creators == self._creators

    def generations(self) -> dict[str, int]:
        """Return the generation of each creator's stored pair."""

        def read(connection: Connection) -> dict[str, int]:
            rows = connection.exec_driver_sql("SELECT creator_id, pair_generation FROM grants")
            return {str(creator): int(generation) for creator, generation in rows}

        return self.store.transact(read, writes=False)

    def refreshed_since(self, before: dict[str, int]) -> bool:
        """Return True if every creator has a newer pair."""
        now = self.generations()
        return len(now) == self._creators and all(now[each] > generation for each, generation in before.items())

    def _run(self, statement: str) -> None:
        self.store.transact(lambda connection: connection.exec_driver_sql(statement), writes=True)
