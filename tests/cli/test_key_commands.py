"""The `keys` commands over a whole rotation: what an operator types, what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from tests.support.daemon import plain_environ
from tests.support.warm import server_for
from worker.cli.keys import keys
from worker.errors import NotReadyError
from worker.store import Store
from worker.vault import Keyring

Keys = Callable[..., Result]


@pytest.fixture
def keyring_file(tmp_path: Path, keyring: Keyring) -> Path:
    """Return a keyring's file as deployments have it: readable by a group."""
    path = tmp_path / "keyring.json"
    path.write_text(keyring.to_json())
    path.chmod(0o640)
    return path


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keyring_file: Path, store_url: str) -> Keys:
    """Return a runner of `keys` commands with that file as the keyring."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "TIKTOK_APP_ID": "app",
        "TIKTOK_APP_SECRET": "secret",
        "TIKTOK_REDIRECT_URI": "https://localhost/",
        "KEYRING_FILE": str(keyring_file),
        "DATABASE_URL": store_url,
        "JOURNAL_DIR": str(tmp_path / "journal"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"EVERTOKEN_{name}", value)
    context = CLIContext(app=Celery("evertoken"), no_color=True, workdir=None)

    def run(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(keys, arguments, obj=context)
        assert result.exit_code == status, (result.output, result.exception)
        return result

    return run


def said(result: Result) -> Any:
    """Return what a command printed as JSON."""
    return json.loads(result.stdout)


def imported(count: int, path: Path, *, prefix: str = "") -> None:
    """Import pairs in a process of the keyring in a file."""
    import io  # noqa: PLC0415 - only here

    from worker.consent.import_lines import Source  # noqa: PLC0415 - only tests of the database pay for it
    from worker.consent.importer import Importer, ImportReport  # noqa: PLC0415 - as above
    from worker.services import build_services  # noqa: PLC0415 - as above

    lines = "".join(
        json.dumps({"open_id": f"c{n}", "access_token": f"act.{n}", "refresh_token": f"rft.{n}", "expires_in": 9999})
        + "\n"
        for n in (f"{prefix}{number}" for number in range(count))
    )
    services = build_services()
    try:
        services.preflight.enter()
        importer = Importer(store=services.store, sealer=services.sealer, renew_at=2 / 3)
        importer.run(Source(io.BytesIO(lines.encode())), report=ImportReport())
        services.preflight.goodbye()
    finally:
        services.close()
    assert path.exists()


def test_a_rotation_from_the_new_key_to_the_old_ones_end(cli: Keys, keyring_file: Path, keyring: Keyring) -> None:
    """Add, activate, rotate, retire: each step says what it did, and every key is kept somewhere."""
    imported(3, keyring_file)

    assert said(cli("new", "--add-to", str(keyring_file), "--json"))["added"] == 2
    assert Keyring.from_json(keyring_file.read_text()).active == 1
    assert said(cli("activate", "2", "--in", str(keyring_file), "--json"))["active"] == 2
    rotated = said(cli("rotate", "--json"))
    assert (rotated["resealed"], rotated["left"], rotated["not_retired"]) == (3, 0, [])
    old, new = said(cli("status", "--json"))["keys"]
    assert (old["pairs"], new["pairs"], new["state"]) == (0, 3, "active")
    retired = said(cli("retire", "1", "--in", str(keyring_file), "--json"))

    assert list(Keyring.from_json(keyring_file.read_text()).keys) == [2]
    kept = Path(retired["kept_in"])
    assert json.loads(kept.read_text())["keys"]["1"] in keyring.to_json()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(keyring_file.stat().st_mode) == 0o640
    (only,) = said(cli("status", "--json"))["keys"]
    assert (only["key_id"], only["pairs"], only["opens"]) == (2, 3, True)


def test_each_command_says_what_comes_next(cli: Keys, keyring_file: Path) -> None:
    """Each step ends with the one after it."""
    imported(1, keyring_file)

    assert "keys activate 2 --in" in cli("new", "--add-to", str(keyring_file)).stderr
    assert "keys rotate" in cli("activate", "2", "--in", str(keyring_file)).stderr
    assert cli("rotate", "--retire").stdout == "key 2: 1 pairs sealed again; 0 are sealed with another key\n"
    result = cli("retire", "1")
    assert "key 1 is retired" in result.stdout
    assert "for as long as you keep those" in result.stderr
    assert "of 0 processes" in cli("status").stdout


def test_a_key_in_use_is_not_retired_and_the_file_stays(cli: Keys, keyring_file: Path) -> None:
    """What needs the key is named, with exit status 1, and the keyring's file is as it was."""
    imported(2, keyring_file)
    cli("new", "--add-to", str(keyring_file))
    cli("activate", "2", "--in", str(keyring_file))
    before = keyring_file.read_text()

    result = cli("retire", "1", "--in", str(keyring_file), status=1)

    assert "key 1 is still needed: 2 stored pairs are sealed with key 1; run `celery -A worker keys rotate`" in (
        result.stderr
    )
    assert keyring_file.read_text() == before


def test_a_rotation_that_leaves_something_says_so(cli: Keys, keyring_file: Path, store: Store) -> None:
    """A pair that does not open is counted with its grant, and keeps the old key."""
    imported(2, keyring_file)
    store.transact(
        lambda connection: connection.exec_driver_sql(
            "UPDATE pairs SET sealed_access = sealed_refresh WHERE grant_id = 1"
        ),
        writes=True,
    )
    cli("new", "--add-to", str(keyring_file))
    cli("activate", "2", "--in", str(keyring_file))

    result = cli("rotate", "--retire", status=1)

    assert result.stdout == (
        "key 2: 1 pairs sealed again, 1 do not open and were left as they are (grants 1); "
        "1 are sealed with another key\n"
    )
    assert "key 1 is still needed" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("new", "--out", "a", "--add-to", "b"), "name one of the two"),
        (("new", "--add-to", "missing.json"), "missing.json cannot be read"),
        (("activate", "7", "--in", "keyring.json"), "the keyring holds no key 7"),
        (("retire", "1", "--in", "keyring.json"), "key 1 is active in this keyring"),
        (("retire", "5"), "there is no key 5 to retire"),
    ],
)
def test_wrong_use_is_refused_in_a_sentence(cli: Keys, arguments: tuple[str, ...], says: str) -> None:
    """A mistake has one sentence and exit status 2."""
    result = cli(*arguments, status=2)

    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_keyring_of_a_key_service_is_used_by_its_setting(
    cli: Keys, keyring_file: Path, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the function of a key service in the settings, wrapped keys seal and open like others."""
    raw = json.loads(keyring.to_json())
    raw["keys"]["1"], hidden = "root:wrapped:blob", raw["keys"]["1"].removeprefix("root:")
    keyring_file.write_text(json.dumps(raw))
    (tmp_path / "key_service_of_test.py").write_text(
        f"import base64\ndef unwrap(key_id, blob):\n    return base64.b64decode({hidden!r})\n"
    )
    assert "EVERTOKEN_KEYRING_UNWRAP is not set" in cli("status", status=2).stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EVERTOKEN_KEYRING_UNWRAP", "key_service_of_test:unwrap")
    imported(1, keyring_file)

    (row,) = said(cli("status", "--json"))["keys"]
    assert (row["pairs"], row["opens"]) == (1, True)


def test_a_readers_keyring_is_made_and_made_again(
    cli: Keys, keyring_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opens the access tokens of a neighbour without the app secret, and a second run brings a newer key."""
    imported(1, keyring_file)
    out = tmp_path / "reader.json"

    assert said(cli("reader", "--out", str(out), "--json")) == {"file": str(out), "keys": [1], "left_out": []}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    cli("new", "--add-to", str(keyring_file))
    assert f"EVERTOKEN_KEYRING_FILE={out}" in cli("reader", "--out", str(out)).stderr
    reader = Keyring.from_json(out.read_text())
    assert (sorted(reader.keys), reader.for_readers, reader.app_id) == ([1, 2], True, "app")
    before = out.stat()
    cli("reader", "--out", str(out))
    assert out.stat() == before

    monkeypatch.setenv("EVERTOKEN_KEYRING_FILE", str(out))
    (row, _) = said(cli("status", "--json"))["keys"]
    assert (row["pairs"], row["opens"]) == (1, True)
    assert "use the keyring of the workers" in cli("rotate", status=1).stderr
    for name in ("TIKTOK_APP_ID", "TIKTOK_APP_SECRET", "TIKTOK_REDIRECT_URI"):
        monkeypatch.delenv(f"EVERTOKEN_{name}")
    environ = dict(os.environ) | plain_environ()
    script = "from worker.tokens import access_token; print(access_token('c0'))"
    found = server_for(environ).run(["-c", script], environ=environ, folder=tmp_path, text=None, seconds=60)
    assert (found.stdout, found.stderr) == ("act.0\n", "")


def test_a_readers_keyring_of_other_keys_is_left_as_it_is(cli: Keys, tmp_path: Path) -> None:
    """Two installations on one host must not take each other's tokens away from their applications."""
    out = tmp_path / "reader.json"
    out.write_text(before := Keyring.new().reader("app").to_json())

    assert "was made from another keyring; it was left as it is" in cli("reader", "--out", str(out), status=2).stderr
    assert out.read_text() == before


@pytest.mark.parametrize("held", ["keyring", "text"])
def test_what_is_no_readers_keyring_is_never_overwritten(cli: Keys, keyring_file: Path, held: str) -> None:
    """A slip of the hand must not put a reader's keyring into the place of the one that opens everything."""
    if held == "text":
        keyring_file.with_name("notes").write_text("notes")
        keyring_file = keyring_file.with_name("notes")
    before = keyring_file.read_bytes()

    assert (
        "is not a reader's keyring; it was left as it is" in cli("reader", "--out", str(keyring_file), status=2).stderr
    )
    assert keyring_file.read_bytes() == before


def test_an_older_key_is_named_with_its_limits(cli: Keys, keyring_file: Path, keyring: Keyring, tmp_path: Path) -> None:
    """A key that seals records itself says so until a root has taken its place; readers get the root alone."""
    keyring_file.write_text(replace(keyring, direct=frozenset({1})).to_json())
    imported(2, keyring_file)
    out = str(tmp_path / "reader.json")

    assert "at most 2^32 of them" in said(cli("status", "--json"))["keys"][0]["remark"]
    assert "`keys new --add-to`" in cli("reader", "--out", out, status=2).stderr
    cli("new", "--add-to", str(keyring_file))
    cli("activate", "2", "--in", str(keyring_file))
    assert said(cli("reader", "--out", out, "--json"))["left_out"] == [1]
    assert said(cli("rotate", "--json"))["resealed"] == 2
    assert [row["remark"] for row in said(cli("status", "--json"))["keys"]] == ["", ""]


def test_a_lost_key_that_sealed_nothing_is_abandoned_without_a_question(cli: Keys, keyring_file: Path) -> None:
    """There is nothing to wipe and nobody to ask; workers start without it afterwards."""
    from worker.services import build_services  # noqa: PLC0415 - only tests of the database pay for it

    imported(1, keyring_file)
    one = keyring_file.read_text()
    cli("new", "--add-to", str(keyring_file))
    cli("activate", "2", "--in", str(keyring_file))
    with closing(build_services()) as services:
        services.preflight.enter()  # such as a worker that has ended since
        services.preflight.goodbye()
    keyring_file.write_text(one)
    with closing(build_services()) as services, pytest.raises(NotReadyError, match="lacks key 2, which"):
        services.preflight.enter()

    done = cli("abandon", "2")

    assert done.stdout == (
        "key 2 is abandoned: no stored pair was sealed with it, so nothing was wiped, nobody is asked\n"
    )
    assert "wipe the" not in done.stderr
    with closing(build_services()) as services:
        services.preflight.enter()
        services.preflight.goodbye()


def test_the_daemon_goes_on_without_a_lost_key_once_that_is_said(cli: Keys, keyring_file: Path, store: Store) -> None:
    """Until then no worker starts, and `keys status` counts what does not open; the pairs of the other key stay."""
    from worker.services import build_services  # noqa: PLC0415 - only tests of the database pay for it

    imported(2, keyring_file)
    cli("new", "--add-to", str(keyring_file))
    cli("activate", "2", "--in", str(keyring_file))
    imported(1, keyring_file, prefix="later")
    whole = keyring_file.read_text()
    for key_id, says in (("1", "so it is not lost"), ("7", "there is no key 7")):
        refused = cli("abandon", key_id, status=2)  # and nobody is asked first
        assert says in refused.stderr
        assert "wipe" not in refused.stderr
    held = json.loads(whole)
    del held["keys"]["1"]
    keyring_file.write_text(json.dumps(held))

    with closing(build_services()) as services, pytest.raises(NotReadyError, match="lacks key 1, which"):
        services.preflight.enter()
    rows = {row["key_id"]: row for row in said(cli("status", "--json", status=1))["keys"]}
    assert (rows[1]["state"], rows[1]["pairs"]) == ("missing", 2)
    cli("abandon", "1", status=1)
    assert store.key_usage() == {1: 2, 2: 1}

    assert said(cli("abandon", "1", "--yes", "--json")) == {"abandoned": 1, "pairs": 2, "asked": 2}

    with closing(build_services()) as services:
        services.preflight.enter()
        services.preflight.goodbye()
    assert [notice.kind for notice in store.undelivered_notices()] == ["reauth_needed"] * 2
    assert store.key_usage() == {2: 1}
