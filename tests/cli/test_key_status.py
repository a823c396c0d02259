"""`keys status` over a mixed fleet, and the bar of `keys rotate` on a terminal."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner

from worker.cli.keys import keys
from worker.journal import JournalEntry
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.vault import Keyring, PairPlace, Token

NewProcess = Callable[[str], Services]

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


def with_keys(keyring: Keyring, *key_ids: int, active: int) -> str:
    """Return a keyring's JSON that holds these ids; the bytes of an id are always the same."""
    keys = {key_id: keyring.keys.get(key_id, bytes([key_id]) * 32) for key_id in key_ids}
    return Keyring(active=active, keys=keys, fingerprint_key=keyring.fingerprint_key).to_json()


def entry() -> JournalEntry:
    """Return an answer as the journal keeps it."""
    now = datetime.now(UTC)
    return JournalEntry(
        kind="exchange", grant_id=None, creator_id=None, consent=None, generation=None, call="c", http_status=200,
        body=b"{}", complete=True, fault=None, retry_after=None, sent_at=now, received_at=now,
    )  # fmt: skip


@pytest.fixture
def new_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_url: str, redis_url: str
) -> Iterator[NewProcess]:
    """Return the services of another process with a keyring of its own; the last one's keyring is the commands'."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "TIKTOK_APP_ID": "app",
        "TIKTOK_APP_SECRET": "secret",
        "TIKTOK_REDIRECT_URI": "https://localhost/",
        "DATABASE_URL": store_url,
        "REDIS_URL": redis_url,
        "JOURNAL_DIR": str(tmp_path / "journal"),
    }
    opened: list[Services] = []

    def make(keyring: str) -> Services:
        for name, value in (settings | {"KEYRING": keyring}).items():
            monkeypatch.setenv(f"EVERTOKEN_{name}", value)
        opened.append(build_services(load_settings()))
        return opened[-1]

    yield make
    for services in opened:
        services.close()


@pytest.fixture
def context() -> CLIContext:
    """What Celery hands to each command."""
    return CLIContext(app=Celery("evertoken"), no_color=True, workdir=None)


def test_a_mixed_fleet_is_shown_key_by_key(new_process: NewProcess, keyring: Keyring, context: CLIContext) -> None:
    """How many processes hold a key and how many seal with it, and how many records wait for it."""
    old, new = new_process(keyring.to_json()), new_process(with_keys(keyring, 1, 2, active=2))
    old.preflight.enter()
    new.preflight.enter()
    old.journal.append(entry())

    def status() -> tuple[list[tuple[Any, ...]], int]:
        report = json.loads(CliRunner().invoke(keys, ["status", "--json"], obj=context).stdout)
        wanted = ("key_id", "journal", "held_by", "seals_in", "remark")
        return [tuple(row[name] for name in wanted) for row in report["keys"]], report["processes"]

    waiting = "no process seals with it yet: all processes must hold it first"
    assert status() == ([(1, 1, 2, 2, ""), (2, 0, 1, 0, waiting)], 2)

    old.preflight.goodbye()
    new.preflight.hello()
    assert status() == ([(1, 1, 1, 0, ""), (2, 0, 1, 1, "")], 1)


def test_a_rotation_shows_how_far_it_is(
    new_process: NewProcess, keyring: Keyring, context: CLIContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal a bar counts the pairs that were looked at; what is piped away gets none."""
    from worker.store import NewConsent  # noqa: PLC0415 - only tests of the database pay for it

    process, now = new_process(keyring.to_json()), datetime.now(UTC)
    items = [
        NewConsent(
            creator_id=f"c{number}", scope="", issued_at=now, access_expires_at=now, refresh_expires_at=None,
            next_refresh_at=now, jitter=0.5,
        )
        for number in range(7)
    ]  # fmt: skip
    process.store.save_consents(
        items,
        lambda item, consent, generation: process.sealer.seal_pair(
            Token("act.x"), Token("rft.x"), PairPlace(item.creator_id, consent, generation)
        ),
        replace=False,
    )
    new_process(with_keys(keyring, 1, 2, active=2))
    monkeypatch.setenv("TERM", "xterm")
    seen, terminal = pty.openpty()

    with os.fdopen(terminal, "w") as errors, redirect_stderr(errors):
        keys.main(["rotate"], obj=context, standalone_mode=False)
        errors.flush()
        shown = os.read(seen, 65536).decode()
    os.close(seen)

    assert "sealing again" in shown
    assert "7/7" in shown
    assert "sealing again" not in CliRunner().invoke(keys, ["rotate"], obj=context).stderr
