"""`grants export` and `grants import --key`: the way out of one installation and into another."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.cli.test_commands import Cli, Visit, cli, creator, environment
from tests.support.claims import claim_one
from worker.cli.db import db
from worker.cli.grants import grants
from worker.cli.keys import keys
from worker.store import Store
from worker.vault.exports import ExportSealer

__all__ = ["Visit", "cli", "creator", "environment"]

FIELDS = ("creator_id", "reference", "scope", "issued_at", "access_expires_at", "refresh_expires_at")


@pytest.fixture
def recipient(cli: Cli, tmp_path: Path) -> str:
    """Make a recipient; its private key is in the file `key`."""
    return str(cli.json(keys, "recipient", "--out", str(tmp_path / "key"))["recipient"])


@pytest.fixture
def of_acme(creator: str, store: Store) -> str:
    """Give the creator a reference."""
    store.transact(lambda connection: connection.exec_driver_sql("UPDATE grants SET reference = 'acme'"), writes=True)
    return creator


def move(monkeypatch: pytest.MonkeyPatch, cli: Cli, folder: Path) -> None:
    """From now on commands speak of another, empty installation with a keyring of its own."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", f"sqlite:///{folder / 'other.sqlite'}")
    monkeypatch.setenv("EVERTOKEN_KEYRING", cli(keys, "new").stdout)
    monkeypatch.setenv("EVERTOKEN_JOURNAL_DIR", str(folder / "other-journal"))
    assert cli(db, "upgrade").exit_code == 0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_pairs_go_out_sealed_and_into_another_installation(
    cli: Cli, of_acme: str, recipient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tokens, their ends, scope and reference arrive; no token is in the clear in a file or in what is printed."""
    before = cli.json(grants, "show", of_acme)
    token = cli(grants, "token", of_acme).stdout.strip()
    cli.said.clear()
    cli(grants, "pause", "--all")
    place = tmp_path / "out.sealed"

    done = cli(grants, "export", "--to", str(place), "--for", recipient)

    assert "1 grant, sealed for recipient" in done.stdout
    assert "not paused" not in done.stderr
    assert "grants.exported" in done.stdout + done.stderr
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.glob("*out*") if each != place) == []
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"CANARY" not in file.read_bytes()

    move(monkeypatch, cli, tmp_path)
    found = cli.json(grants, "import", str(place), "--key", str(tmp_path / "key"))

    assert (found["created"], found["bad"], found["unknown_age"]) == (1, 0, 0)
    after = cli.json(grants, "show", of_acme)
    assert [after[name] for name in FIELDS] == [before[name] for name in FIELDS]
    assert "CANARY" not in "".join(cli.said)
    assert cli(grants, "token", of_acme).stdout.strip() == token
    assert cli.json(grants, "import", str(place), "--key", str(tmp_path / "key"))["skipped"] == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_export_is_whole_or_not_there(cli: Cli, creator: str, store: Store, recipient: str, tmp_path: Path) -> None:
    """A grant that is being refreshed, or a pair that does not open, leaves no file; no file is overwritten."""
    place = tmp_path / "out.sealed"
    claim = claim_one(store, store.grant(creator).grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None

    refused = cli(grants, "export", "--to", str(place), "--for", recipient)

    assert refused.exit_code == 1
    assert f"creator {creator} is being refreshed right now, so nothing was written" in refused.stderr
    store.give_back([claim])
    store.transact(lambda connection: connection.exec_driver_sql("UPDATE pairs SET consent = 1, key_id = 1, "
        "sealed_refresh = sealed_access"), writes=True)  # fmt: skip
    assert cli(grants, "export", "--to", str(place), "--for", recipient).exit_code == 1
    assert list(tmp_path.glob("*out*")) == list(tmp_path.glob(".*out*")) == []

    place.write_text("mine")
    taken = cli(grants, "export", "--to", str(place), "--for", recipient)
    assert (taken.exit_code, place.read_text()) == (2, "mine")
    assert taken.stderr == f"error: {place} exists and is not overwritten: name a new file\n"


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_file_that_comes_while_the_export_is_written_stays(
    cli: Cli, creator: str, recipient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two exports to one name: the first one stays, and the second is told so."""
    place = tmp_path / "out.sealed"

    def seal_slowly(self: ExportSealer) -> bytes:
        place.write_text("the other's")
        return b""

    monkeypatch.setattr(ExportSealer, "end", seal_slowly)
    refused = cli(grants, "export", "--to", str(place), "--for", recipient)

    assert (refused.exit_code, place.read_text()) == (2, "the other's")
    assert list(tmp_path.glob(".*out*")) == []


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_export_to_standard_output_is_the_sealed_file_and_nothing_else(
    cli: Cli, creator: str, store: Store, recipient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said goes to standard error; if something is in the way nothing is printed, and no file is named `-`."""
    tmp_path = Path.cwd()
    printed = cli(grants, "export", "--to", "-", "--for", recipient)
    both = cli(grants, "export", "--to", "-", "--for", recipient, "--json")
    assert claim_one(store, store.grant(creator).grant_id, owner="a worker", lease_seconds=60, force=True) is not None
    refused = cli(grants, "export", "--to", "-", "--for", recipient)

    assert (printed.exit_code, refused.exit_code, both.exit_code) == (0, 1, 2)
    assert "1 grant, sealed for recipient" in printed.stderr
    assert (refused.stdout, both.stdout) == ("", "")
    assert "both need standard output" in both.stderr
    assert not (tmp_path / "-").exists()
    (tmp_path / "out").write_text(printed.stdout)
    move(monkeypatch, cli, tmp_path)
    assert cli.json(grants, "import", str(tmp_path / "out"), "--key", str(tmp_path / "key"))["created"] == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_who_does_not_pause_first_is_told(cli: Cli, creator: str, recipient: str, tmp_path: Path) -> None:
    """The file is written, and one sentence says that the next refresh makes its pairs worthless."""
    done = cli(grants, "export", "--to", str(tmp_path / "out"), "--for", recipient)

    assert done.exit_code == 0
    assert "the app is not paused" in done.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_file_that_does_not_open_imports_nothing(
    cli: Cli, creator: str, recipient: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key, another key, a changed line, a cut file and another app: one sentence each, and no grant."""
    place, key, cut = tmp_path / "out", str(tmp_path / "key"), tmp_path / "cut"
    cli(grants, "export", "--to", str(place), "--for", recipient)
    cli(keys, "recipient", "--out", str(tmp_path / "other"))
    lines = place.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:-1]))
    changed = tmp_path / "changed"
    changed.write_bytes(b"".join([lines[0], b"AAAA" + lines[1][4:], lines[2]]))
    move(monkeypatch, cli, tmp_path)

    for arguments, sentence in (
        ((str(place),), "name the recipient's key with --key"),
        ((str(place), "--key", str(tmp_path / "other")), "is sealed for recipient"),
        ((str(place), "--key", str(place)), "holds no recipient's key"),
        ((str(changed), "--key", key), "line 2 of the sealed file was changed or moved; nothing is imported"),
        ((str(cut), "--key", key), "the sealed file is cut off after line 2; nothing is imported"),
    ):
        refused = cli(grants, "import", *arguments)
        assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert sentence in refused.stderr
    monkeypatch.setenv("EVERTOKEN_TIKTOK_APP_ID", "another-app")
    refused = cli(grants, "import", str(place), "--key", key)
    assert "only its own app can refresh a pair" in refused.stderr
    assert cli.json(grants, "status")["total"] == 0


def test_a_recipients_key_is_written_once_and_for_its_owner(cli: Cli, tmp_path: Path) -> None:
    """Standard output has only the public part; a second call leaves the file as it is."""
    place = tmp_path / "key"
    made = cli(keys, "recipient", "--out", str(place))
    content = place.read_text()
    again = cli(keys, "recipient", "--out", str(place))

    assert made.stdout.startswith("evertoken-recipient-")
    assert content.strip() not in made.output
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert (again.exit_code, place.read_text()) == (2, content)
    assert "a recipient's key is never overwritten" in again.stderr
