"""Going back a version, and forward: real workers of two versions take turns on one database.

The version before is the code of the last release's tag. As long as there is none, it is the last commit before
versions could be distinguished.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemon import PROJECT, READY_SECONDS
from tests.support.versions import NoHistoryError, Versions, last_version, unpack
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.store.schema import chain

pytestmark = [pytest.mark.slow_suite, pytest.mark.timeout(300)]

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


@pytest.fixture
def versions(empty_database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Versions]:
    """An empty database, and a TikTok that takes each refresh token once."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(start_sandbox(SandboxOptions(rotation="strict")))
        yield Versions(stack, tmp_path, sandbox, empty_database_url, redis_url, creators=CREATORS)


@pytest.fixture
def code_before(tmp_path: Path) -> Path:
    """The code of the version before, with its commands."""
    try:
        return unpack(last_version(), tmp_path / "code-before")
    except NoHistoryError as error:
        pytest.skip(str(error))


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
