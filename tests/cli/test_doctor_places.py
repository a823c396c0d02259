"""What the doctor says of the place: the way out, and who else could read our secrets or our traffic."""

from __future__ import annotations

from pathlib import Path

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


def test_the_way_out_is_told_without_the_proxys_password(tmp_path: Path) -> None:
    """A person sees which proxy and which authorities are in force."""
    authority = new_authority(tmp_path)

    assert look("egress").detail == "calls go out straight and trust the usual authorities"
    told = look("egress", EGRESS_PROXY="http://user:canary@proxy.example:3128", CA_FILE=str(authority.file))
    assert told.state == "ok"
    assert (
        told.detail
        == f"calls go out through the proxy proxy.example:3128 and trust the authorities in {authority.file}"
    )


@pytest.mark.parametrize("name", IGNORED)
def test_a_variable_that_changes_nothing_is_told(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever set HTTPS_PROXY for us learns that it is not read, and which setting is."""
    monkeypatch.setenv(name, "http://user:canary@proxy.example:3128")
    setting = "EGRESS_PROXY" if name in checks_places.IGNORED_PROXIES else "CA_FILE"

    told = look("egress")

    assert told.state == "warn"
    assert f"{name} is set and not read: set EVERTOKEN_{setting}" in told.detail
    given = "http://proxy.example:3128" if setting == "EGRESS_PROXY" else str(new_authority(tmp_path).file)
    assert look("egress", **{setting: given}).state == "ok"
