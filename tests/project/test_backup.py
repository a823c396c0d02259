"""Backups: the script that keeps them, and the commands of docs/operations.md that make one and restore it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.conftest import FAST_POSTGRES, ServerProcess
from tests.support.servers import postgres_root
from worker.store import open_store

EXEC: Final = "docker compose exec -T postgres "
DAY: Final = 86_400


def kept(root: Path, folder: Path, *command: str, days: str = "14") -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [root / "deploy/backup.sh", folder, days, *command], capture_output=True, text=True, timeout=30, check=False
    )


def dumps(folder: Path) -> list[str]:
    """Return the names of what is in a folder, without the time."""
    return sorted(re.sub(r"\d{8}T\d{6}Z", "NOW", path.name) for path in folder.iterdir())


def test_a_backup_is_its_owners_alone_and_old_ones_go(root: Path, tmp_path: Path) -> None:
    """Folder and file are shut to others, also a folder that was open; foreign files stay."""
    folder = tmp_path / "a folder"
    folder.mkdir(mode=0o755)
    for name, age in (("evertoken-old.dump", 16), ("evertoken-young.dump", 13), ("mine.dump", 99)):
        (folder / name).write_text("x")
        os.utime(folder / name, (time.time() - age * DAY,) * 2)

    done = kept(root, folder, "printf", "%s", "the pairs")

    assert (done.returncode, done.stderr) == (0, "")
    assert dumps(folder) == ["evertoken-NOW.dump", "evertoken-young.dump", "mine.dump"]
    (new,) = folder.glob("evertoken-2*.dump")
    assert new.read_text() == "the pairs"
    assert (folder.stat().st_mode & 0o777, new.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("command", [["sh", "-c", "printf half; exit 3"], ["true"], ["no-such-program"]])
def test_a_backup_that_fails_leaves_the_others_as_they_were(root: Path, tmp_path: Path, command: list[str]) -> None:
    """Half a dump is none, an empty one is none, and the old ones are still the newest."""
    (tmp_path / "evertoken-old.dump").write_text("x")
    os.utime(tmp_path / "evertoken-old.dump", (0, 0))

    done = kept(root, tmp_path, *command)

    assert done.returncode not in {0, 64}
    assert done.stderr
    assert dumps(tmp_path) == ["evertoken-old.dump"]


@pytest.mark.parametrize(("days", "command"), [("", ["true"]), ("two", ["true"]), ("3", [])])
def test_a_call_that_makes_no_sense_is_explained(root: Path, tmp_path: Path, days: str, command: list[str]) -> None:
    """With an example, and before anything is made."""
    done = kept(root, tmp_path / "new", *command, days=days)

    assert done.returncode == 64
    assert "pg_dump" in done.stderr
    assert not (tmp_path / "new").exists()


def documented(root: Path, part: str) -> list[str]:
    """Return the commands that a part of the page runs in PostgreSQL's container, without the container."""
    page = (root / "docs/operations.md").read_text(encoding="utf-8")
    text = page.partition(f"## {part}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return [line.replace(EXEC, "") for line in re.findall(r"^ {4,}(.*)$", text, re.MULTILINE) if EXEC in line]


@pytest.mark.slow_suite
def test_the_commands_of_the_page_make_a_backup_and_restore_it(
    root: Path, tmp_path: Path, new_postgres: Callable[..., ServerProcess]
) -> None:
    """Each twice, and on another server, which lacks the workers' role: every row is there, the old database stays."""
    old, new = new_postgres(*FAST_POSTGRES), new_postgres(*FAST_POSTGRES)
    for server in (old, new):
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE evertoken SUPERUSER LOGIN")
            connection.execute("CREATE DATABASE evertoken OWNER evertoken")
    store = open_store(address(old), app_id="app")
    store.upgrade()
    store.add_link("handle", life_seconds=DAY, creator_id="c1", reference="shop")
    with psycopg.connect(address(old), autocommit=True) as connection:
        for statement in store.role_statements(worker="evertoken_worker", reader="r", dashboard="d"):
            connection.execute(statement.encode())
    store.close()

    def run(server: ServerProcess, line: str) -> int:
        programs = f"{postgres_root() / 'bin'}:{os.environ['PATH']}"
        environ = os.environ | {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PATH": programs}
        return subprocess.run(["sh", "-c", line], env=environ, cwd=root, capture_output=True, check=False).returncode

    (backup,) = documented(root, "Backups")
    made = [run(old, backup.replace("/backup/evertoken", shlex.quote(str(tmp_path / name)))) for name in "ab"]
    (dump,) = (tmp_path / "b").iterdir()
    restore = [line.replace("FILE", shlex.quote(str(dump))) for line in documented(root, "Restoring a backup")]
    once, again = [[run(new, line) for line in restore] for _ in range(2)]

    assert made == [0, 0]
    assert once == [0, 0, 0]
    assert len(again) == 3
    assert all(again)
    with psycopg.connect(address(new, "evertoken_before")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    restored = open_store(address(new), app_id="app")
    assert restored.schema_state().runs
    link = restored.link("handle")
    restored.close()
    assert link is not None
    assert (link.creator_id, link.reference) == ("c1", "shop")


def address(server: ServerProcess, name: str = "evertoken") -> str:
    """Return the address of a database for its owner."""
    return f"postgresql://evertoken@127.0.0.1:{server.port}/{name}"
