"""What the doctor says of the place: the way out, and who else could read our secrets or our traffic."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.certificates import new_authority
from worker.cli import checks_places
from worker.cli.checks import Finding
from worker.services import build_services
from worker.settings import load_settings
from worker.vault import Keyring

GOOD = {
    "EVERTOKEN_TIKTOK_APP_ID": "app",
    "EVERTOKEN_TIKTOK_APP_SECRET": "s3cret-canary",
    "EVERTOKEN_TIKTOK_REDIRECT_URI": "https://app.example/callback/",
    "EVERTOKEN_KEYRING": Keyring.new().to_json(),
}
IGNORED = (*checks_places.IGNORED_PROXIES, *checks_places.IGNORED_AUTHORITIES)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IGNORED:
        monkeypatch.delenv(name, raising=False)


def look(check: str, **settings: str) -> Finding:
    """Return one finding of the doctor under these settings, which are given without their prefix."""
    environ = GOOD | {f"EVERTOKEN_{name}": value for name, value in settings.items()}
    services = build_services(load_settings(environ, dotenv=None))
    try:
        found = dict(checks_places.place_checks(services))[check]()
    finally:
        services.close()
    assert "canary" not in found.detail
    return found


def test_the_way_out_is_shown_without_the_proxys_password(tmp_path: Path) -> None:
    """A person sees which proxy and which authorities are in force."""
    authority = new_authority(tmp_path)

    assert look("egress").detail == "calls go out directly and trust the usual authorities"
    looked = look("egress", EGRESS_PROXY="http://user:canary@proxy.example:3128", CA_FILE=str(authority.file))
    assert looked.state == "ok"
    assert (
        looked.detail
        == f"calls go out through the proxy proxy.example:3128 and trust the authorities in {authority.file}"
    )


@pytest.mark.parametrize(
    ("place", "state", "said"),
    [
        ("here", "ok", "takes heartbeat files"),
        ("new/deep", "ok", "is not there yet"),
        ("file", "fail", "file takes no files: Not a directory"),
        ("file/deep", "fail", "cannot be made; without its heartbeat file"),
        ("/proc/self", "fail", "takes no files: .*repair EVERTOKEN_RUN_DIR"),
    ],
)
def test_the_folder_of_heartbeats_is_tried_and_left_as_it_was(
    place: str, state: str, said: str, tmp_path: Path
) -> None:
    """A folder that takes no files fails with what to do; one that is not there yet is made by who needs it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    found = look("run", RUN_DIR=str(tmp_path / place))

    assert found.state == state
    assert re.search(said, found.detail)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "here"]


@pytest.mark.parametrize("name", IGNORED)
def test_a_variable_that_changes_nothing_is_reported(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever set HTTPS_PROXY for us learns that it is not read, and which setting is."""
    monkeypatch.setenv(name, "http://user:canary@proxy.example:3128")
    setting = "EGRESS_PROXY" if name in checks_places.IGNORED_PROXIES else "CA_FILE"

    looked = look("egress")

    assert looked.state == "warn"
    assert f"{name} is set, but Evertoken does not read it: set EVERTOKEN_{setting}" in looked.detail
    given = "http://proxy.example:3128" if setting == "EGRESS_PROXY" else str(new_authority(tmp_path).file)
    assert look("egress", **{setting: given}).state == "ok"


@pytest.mark.parametrize("name", ["TIKTOK_APP_SECRET", "NOTICE_SECRET", "EGRESS_PROXY", "REDIS_URL"])
def test_a_secret_file_that_others_may_read_is_reported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts as open if every folder above it lets others through as well."""
    monkeypatch.setattr(checks_places, "CONTAINER_MARKS", ())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv(f"EVERTOKEN_{name}", raising=False)
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = Path(folder, "secret")
        file.write_text("canary")
        monkeypatch.setenv(f"EVERTOKEN_{name}_FILE", str(file))
        for mode, above, state in ((0o644, 0o755, "warn"), (0o600, 0o755, "ok"), (0o644, 0o700, "ok")):
            file.chmod(mode)
            Path(folder).chmod(above)
            looked = look("secrets")
            assert (looked.state, f"EVERTOKEN_{name}_FILE is a file" in looked.detail) == (state, state == "warn")


def test_a_dotenv_with_secrets_that_others_may_read_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in `.env` are as open as `.env` is; without one in it nothing is said."""
    monkeypatch.setattr(checks_places, "CONTAINER_MARKS", ())
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir(folder)
        for content, state in (("EVERTOKEN_NOTICE_SECRET=canary", "warn"), ("EVERTOKEN_RENEW_AT=0.5", "ok")):
            Path(".env").write_text(content)
            Path(".env").chmod(0o644)
            assert look("secrets").state == state


@pytest.mark.parametrize(
    ("secret", "state"), [("c", "warn"), ("fifteen-canary!", "warn"), ("c" * 64, "warn"), ("0a1b2c3d4e5f6071", "ok")]
)
def test_a_notice_secret_that_can_be_guessed_is_reported(secret: str, state: str) -> None:
    """One letter, a short word or one letter many times sign nothing."""
    looked = look("secrets", NOTICE_SECRET=secret)

    assert looked.state == state
    assert ("EVERTOKEN_NOTICE_SECRET can be guessed" in looked.detail) == (state == "warn")


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("REDIS_URL", "redis://cache.example:6379/0", "holds no password"),
        ("REDIS_URL", "redis://redis:6379/0", "holds no password"),
        ("REDIS_URL", "redis://:canary@10.0.0.5:6379/0", "in the clear: use rediss://"),
        ("REDIS_URL", "sentinels://one.example,127.0.0.1/0?service=m", "holds no password"),
        ("REDIS_URL", "sentinel://:canary@127.0.0.1,10.0.0.5/0?service=m", "on 10.0.0.5 and to their master"),
        ("REDIS_URL", "sentinels://:canary@one.example/0?service=m&ssl_cert_reqs=none", "are not checked"),
        ("REDIS_URL", "rediss://:canary@cache.example/0?ssl_cert_reqs=none", "is not checked"),
        ("REDIS_URL", "rediss://:canary@cache.example/0", None),
        ("REDIS_URL", "redis://:canary@redis:6379/0", None),
        ("REDIS_URL", "redis://127.0.0.1:6379/0", None),
        ("REDIS_URL", "redis+socket:///run/redis.sock", None),
        ("DATABASE_URL", "postgresql://u:canary@db.example/x", "sslmode=prefer"),
        ("DATABASE_URL", "postgresql://u:canary@10.0.0.5:5432/x?sslmode=require", "sslmode=require"),
        ("DATABASE_URL", "postgresql://u:canary@127.0.0.1:1,db.example:2/x", "PostgreSQL on db.example may"),
        ("DATABASE_URL", "postgresql://u:canary@/x?host=db.example", "PostgreSQL on db.example may"),
        ("DATABASE_URL", "postgresql://u:canary@db.example/x?sslmode=verify-full", None),
        ("DATABASE_URL", "postgresql://u:canary@postgres:5432/x", None),
        ("DATABASE_URL", "postgresql://u:canary@localhost/x", None),
        ("DATABASE_URL", "postgresql://u:canary@/x?host=/run/postgresql", None),
        ("DATABASE_URL", "sqlite:///x.db", None),
    ],
)
def test_an_unprotected_server_across_hosts_is_reported(
    name: str, url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine, sockets and the names of a container network count as near; TLS with a check protects the rest."""
    monkeypatch.delenv("PGSSLMODE", raising=False)
    found = look("traffic", **{name: url})

    assert found.state == ("ok" if expected is None else "warn")
    assert expected is None or expected in found.detail
