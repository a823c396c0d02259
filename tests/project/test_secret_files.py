"""The secret files of an installation: made once, private as a folder, and what the settings take."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import load_settings
from worker.vault.keyring import Keyring


@pytest.fixture
def made(root: Path, tmp_path: Path) -> Path:
    """A folder of secrets as the script makes it in a fresh installation."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(root / "deploy/new-secrets.sh", tmp_path / "deploy")
    subprocess.run([tmp_path / "deploy/new-secrets.sh"], check=True, capture_output=True)
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
    assert f":{redis}@redis:6379/" in (made / "redis_url").read_text()


def test_a_second_run_changes_nothing(made: Path) -> None:
    """A running installation keeps its passwords and what a person filled in."""
    (made / "keyring").write_text("mine")
    before = {path.name: path.read_text() for path in made.iterdir()}
    subprocess.run([made.parents[1] / "deploy/new-secrets.sh"], check=True, capture_output=True)

    assert {path.name: path.read_text() for path in made.iterdir()} == before


def test_the_settings_take_the_stack_as_it_is(made: Path, root: Path) -> None:
    """With the files filled in, a worker's environment from compose and .env makes complete settings."""
    stack: Any = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))
    (made / "keyring").write_text(Keyring.new().to_json())
    (made / "tiktok_app_secret").write_text("secret\n")
    environment = {
        name: value.replace("/run/secrets", str(made))
        for name, value in stack["services"]["worker-refresh"]["environment"].items()
    }
    example = (root / "deploy/env.example").read_text(encoding="utf-8")
    filled = example.replace("APP_ID=", "APP_ID=7").replace("REDIRECT_URI=", "REDIRECT_URI=https://example.com/")
    (made.parent / "env").write_text(filled)
    settings = load_settings(environment, dotenv=made.parent / "env")

    assert settings.tiktok_app_id == "7"
    assert settings.tiktok_app_secret.reveal() == "secret"
    assert settings.redis_url.endswith("@redis:6379/0")
