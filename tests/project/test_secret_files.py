"""The secret files of an installation: made once, private as a folder, and what the settings take."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.daemon import plain_environ
from worker.settings import load_settings
from worker.vault.keyring import Keyring


def run_script(
    folder: Path, evertoken: str = f"{sys.executable} -m celery -A worker"
) -> subprocess.CompletedProcess[str]:
    """Run the script in an installation, with a command of this project in place of the image's."""
    return subprocess.run(
        [folder / "deploy/new-secrets.sh"],
        env=plain_environ() | {"EVERTOKEN": evertoken}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def installation(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh installation in which the script ran."""
    folder = tmp_path_factory.mktemp("installation")
    (folder / "deploy").mkdir()
    shutil.copy(root / "deploy/new-secrets.sh", folder / "deploy")
    run_script(folder)
    return folder


@pytest.fixture
def made(installation: Path, tmp_path: Path) -> Path:
    """A folder of secrets as the script makes it in a fresh installation."""
    shutil.copytree(installation, tmp_path, dirs_exist_ok=True)
    return tmp_path / "var/secrets"


def test_the_folder_is_private_and_its_files_are_readable(made: Path) -> None:
    """Others on the host cannot enter the folder; a container's user can read a file mounted from it."""
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}


def test_passwords_are_long_and_all_different(made: Path) -> None:
    """Each password is of 24 random bytes, and the addresses bear the right ones."""
    postgres, redis = ((made / name).read_text() for name in ("postgres_password", "redis_password"))
    flower = (made / "flower_auth").read_text().removeprefix("operator:")

    assert {len(password) for password in (postgres, redis, flower)} == {48}
    assert len({postgres, redis, flower}) == 3
    assert f":{postgres}@postgres:5432/" in (made / "database_url").read_text()
    assert (made / "worker_database_url").read_text().startswith("postgresql://evertoken_worker:")
    assert postgres not in (made / "worker_database_url").read_text()
    assert f":{redis}@redis:6379/" in (made / "redis_url").read_text()
    rabbitmq = (made / "rabbitmq_password").read_text()
    assert len({rabbitmq, redis}) == 2
    assert (made / "broker_url").read_text() == f"amqp://evertoken:{rabbitmq}@rabbitmq:5672/evertoken"


def test_a_second_run_changes_nothing(made: Path) -> None:
    """A running installation keeps its passwords and what a person filled in."""
    (made / "keyring").write_text("mine")
    before = {path.name: path.read_text() for path in made.iterdir()}
    run_script(made.parents[1])

    assert {path.name: path.read_text() for path in made.iterdir()} == before


def test_workers_of_a_database_of_your_own_connect_as_before(made: Path) -> None:
    """An upgraded installation goes on with the one role that it has, until a person makes another."""
    (made / "database_url").write_text("postgresql://me:mine@db.example/evertoken?sslmode=verify-full\n")
    (made / "worker_database_url").unlink()
    run_script(made.parents[1])

    assert (made / "worker_database_url").read_text() == (made / "database_url").read_text().strip()


def test_grafana_gets_a_role_only_in_the_database_of_the_stack(made: Path) -> None:
    """Where the database is your own, no role is made until a person gives it a password."""
    assert len((made / "dashboard_password").read_text()) == 48
    (made / "database_url").write_text("postgresql://me:mine@db.example/evertoken?sslmode=verify-full\n")
    (made / "dashboard_password").unlink()
    run_script(made.parents[1])

    assert (made / "dashboard_password").read_text() == ""


def test_the_settings_take_the_stack_as_it_is(made: Path, root: Path) -> None:
    """With the files filled in, a worker's environment from compose and .env makes complete settings."""
    stack: Any = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    (made / "tiktok_app_secret").write_text("secret\n")
    more: Any = yaml.safe_load((root / "deploy/rabbitmq.compose.yml").read_text(encoding="utf-8"))
    environment = {
        name: value.replace("/run/secrets", str(made))
        for each in (stack, more)
        for name, value in each["services"]["worker-refresh"]["environment"].items()
    }
    example = (root / "deploy/env.example").read_text(encoding="utf-8")
    filled = example.replace("APP_ID=", "APP_ID=7").replace("REDIRECT_URI=", "REDIRECT_URI=https://example.com/")
    (made.parent / "env").write_text(filled)
    settings = load_settings(environment, dotenv=made.parent / "env")

    assert settings.tiktok_app_id == "7"
    assert settings.tiktok_app_secret.reveal() == "secret"
    assert settings.redis_url.endswith("@redis:6379/0")
    assert settings.broker_url == (made / "broker_url").read_text()


def test_a_keyring_is_made_once_and_opens(made: Path) -> None:
    """The script makes it, so that no shell's redirection empties the file of one that is in use."""
    text = (made / "keyring").read_text()
    run_script(made.parents[1])

    assert Keyring.from_json(text).active == 1
    assert (made / "keyring").read_text() == text


def test_a_keyring_that_cannot_be_made_is_said_and_made_at_the_next_run(root: Path, tmp_path: Path) -> None:
    """Without the image the other files are made, and the person learns what to do."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(root / "deploy/new-secrets.sh", tmp_path / "deploy")

    first = run_script(tmp_path, evertoken="no-such-command")
    again = run_script(tmp_path)

    assert (first.returncode, "docker compose build" in first.stderr) == (1, True)
    assert again.returncode == 0
    assert Keyring.from_json((tmp_path / "var/secrets/keyring").read_text()).active == 1


def test_the_app_secret_is_asked_for_once_and_never_shown(root: Path, tmp_path: Path) -> None:
    """It lands in its file without passing a shell's history or the screen."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(root / "deploy/new-secrets.sh", tmp_path / "deploy")
    ours, theirs = pty.openpty()
    script = subprocess.Popen(
        [tmp_path / "deploy/new-secrets.sh"],
        env=plain_environ() | {"EVERTOKEN": f"{sys.executable} -m celery -A worker"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    screen = b""
    while b"(it is not shown)" not in screen:
        screen += os.read(ours, 1024)
    os.write(ours, b"CANARY\n")
    try:
        while more := os.read(ours, 1024):
            screen += more
    except OSError:  # Linux's word for a terminal that nobody holds any more
        pass
    finally:
        os.close(ours)

    assert script.wait(60) == 0
    assert (tmp_path / "var/secrets/tiktok_app_secret").read_text() == "CANARY"
    assert b"CANARY" not in screen
