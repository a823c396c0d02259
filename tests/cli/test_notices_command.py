"""`notices`: what was said to whom, and again; as people and scripts use it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_commands import cli, environment
from tests.store.conftest import Fleet
from tests.support.receiver import SECRET, Receiver, running_receiver
from worker.cli.doctor import doctor
from worker.cli.notices import notices
from worker.services import build_services
from worker.store import Store, open_store

if TYPE_CHECKING:
    from tests.cli.test_commands import Cli

__all__ = ["cli", "environment"]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run a receiver, and name it in the settings."""
    with running_receiver() as server:
        monkeypatch.setenv("EVERTOKEN_NOTICE_URL", server.url)
        monkeypatch.setenv("EVERTOKEN_NOTICE_SECRET", SECRET)
        yield server


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """The store of the commands."""
    with closing(open_store(store_url, app_id="sandbox-app")) as opened:
        yield opened


def deliver() -> int:
    """Run one round of the notifier with the settings of the commands."""
    services = build_services()
    try:
        return services.notifier.deliver()
    finally:
        services.close()


def address_of(cli: Cli) -> str:
    """Return the name of the one address."""
    (shown,) = cli.json(notices, "addresses")["addresses"]
    return str(shown["address"])


def test_notices_are_listed_newest_first_with_filters(cli: Cli, store: Store, receiver: Receiver) -> None:
    """By kind, by creator, by reference and by what waits; a page says how to get the next."""
    fleet = Fleet(store)
    ada = fleet.add("ada", reference="user-42").grant_id
    store.raise_alarm("1", "app_stopped", "the secret is refused")
    store.raise_alarm("2", "reauth_needed", "gone", grant_id=ada)
    store.raise_alarm("3", "misfit", "odd", grant_id=fleet.add("bob").grant_id)

    def listed(*options: str) -> list[str]:
        return [notice["type"] for notice in cli.json(notices, "list", *options)["notices"]]

    everything = ["grant.misfit", "grant.reauth_needed", "app.stopped"]
    assert listed() == everything
    assert listed("--kind", "grant.*") == everything[:2]
    assert listed("--kind", "app.stopped", "--kind", "grant.misfit") == [everything[0], everything[2]]
    assert listed("--creator", "ada") == listed("--reference", "user-42") == ["grant.reauth_needed"]
    page = cli.json(notices, "list", "--limit", "2")
    assert [row["type"] for row in cli.json(notices, "list", "--before", str(page["next_before"]))["notices"]] == [
        "app.stopped"
    ]
    assert listed("--waiting") == everything
    deliver()
    assert listed("--waiting") == []
    assert "user-42" in cli(notices, "list").stdout


def test_a_notice_is_shown_by_number_and_by_id(cli: Cli, store: Store, receiver: Receiver) -> None:
    """What is posted, and what each address answered."""
    store.raise_alarm("1", "app_stopped", "the secret is refused")
    receiver.answer = 500
    deliver()

    (listed,) = cli.json(notices, "list")["notices"]
    by_number = cli.json(notices, "show", str(listed["number"]))
    by_id = cli.json(notices, "show", listed["message_id"])

    assert by_number == by_id
    assert by_id["content"] == receiver.got[0].verified()
    assert [(row["address"], row["failures"], row["problem"]) for row in by_id["deliveries"]] == [
        (address_of(cli), 1, "HTTP 500")
    ]
    table = cli(notices, "show", listed["message_id"]).stdout
    assert "HTTP 500" in table
    assert "the secret is refused" in table


@pytest.mark.parametrize("name", ["7", "msg_unknown", "-1", "9" * 40, "\u00b2", ""])
def test_a_notice_that_is_not_there_is_said_in_a_sentence(cli: Cli, receiver: Receiver, name: str) -> None:
    """Whatever stands in the place of its id."""
    for command in ("show", "resend"):
        result = cli(notices, command, "--", name)

        assert result.exit_code == 1
        assert f"there is no notice {name}" in result.stderr


def test_a_notice_is_posted_again_once_however_often_it_is_asked_for(
    cli: Cli, store: Store, receiver: Receiver
) -> None:
    """It has its old id, so that the receiver recognizes it; running the command twice posts it once."""
    store.raise_alarm("1", "app_stopped", "x")
    deliver()
    message_id = receiver.got[0].message_id

    first = cli.json(notices, "resend", message_id)
    second = cli.json(notices, "resend", message_id)
    deliver()
    deliver()

    assert (first["new"], second["new"]) == (1, 0)
    assert [posted.message_id for posted in receiver.got] == [message_id] * 2


def test_a_notice_goes_again_to_the_address_that_is_named(
    cli: Cli, store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to one that does not get this kind by itself; to an address that is not there it is refused."""
    monkeypatch.setenv("EVERTOKEN_NOTICE_URL", f"{receiver.url} grant.* {receiver.url}/two refreshes.*")
    store.raise_alarm("1", "app_stopped", "x")
    deliver()
    assert receiver.got == []
    names = [row["address"] for row in cli.json(notices, "addresses")["addresses"]]

    refused = cli(notices, "resend", "1")
    unknown = cli(notices, "resend", "1", "--address", "ops.example")
    cli.json(notices, "resend", "1", "--address", names[1])
    deliver()

    assert (refused.exit_code, unknown.exit_code) == (2, 2)
    assert "name one with --address" in refused.stderr
    assert names[0] in unknown.stderr
    assert [posted.path for posted in receiver.got] == ["/hook/two"]


@pytest.mark.slow_suite
def test_a_disabled_address_is_a_failure_until_it_is_enabled(cli: Cli, store: Store, receiver: Receiver) -> None:
    """`doctor` names the command, and the command is safe to repeat."""
    store.raise_alarm("1", "app_stopped", "x")
    receiver.answer = 410
    deliver()
    name = address_of(cli)

    def line() -> dict[str, str]:
        report = cli(doctor, "--offline", "--json").stdout
        (found,) = [check for check in json.loads(report)["checks"] if check["check"] == "notices"]
        return dict(found)

    assert line()["state"] == "fail"
    assert f"evertoken notices enable {name}" in line()["detail"]
    assert cli.json(notices, "addresses")["addresses"][0]["state"] == "disabled"
    assert cli.json(notices, "enable", name)["enabled"] is True
    assert cli.json(notices, "enable", name)["enabled"] is False
    receiver.answer = 204
    deliver()
    assert line() == {"check": "notices", "state": "ok", "detail": "all delivered"}
    assert cli(notices, "enable", "ops.example").exit_code == 2


def test_no_command_shows_an_address(
    cli: Cli, store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path or query may be a secret; it goes by a name everywhere."""
    monkeypatch.setenv("EVERTOKEN_NOTICE_URL", f"{receiver.url}/CANARY?key=CANARY grant.* app.*")
    store.raise_alarm("1", "app_stopped", "x")
    receiver.answer = 410
    deliver()

    for arguments in (("list",), ("show", "1"), ("addresses",), ("resend", "1"), ("enable", address_of(cli))):
        for form in ((), ("--json",)):
            result = cli(notices, *arguments, *form)
            assert result.exit_code == 0, result.output
    cli(doctor, "--offline")
    assert "CANARY" not in "".join(cli.said)
    assert receiver.got[0].path == "/hook/CANARY?key=CANARY"


def test_without_an_address_the_commands_say_so(cli: Cli, store: Store) -> None:
    """What waits is listed; there is nobody to post it to."""
    store.raise_alarm("1", "app_stopped", "x")

    assert [row["type"] for row in cli.json(notices, "list", "--waiting")["notices"]] == ["app.stopped"]
    for arguments in (("addresses",), ("resend", "1"), ("enable", "x")):
        result = cli(notices, *arguments)
        assert result.exit_code == 2
        assert "EVERTOKEN_NOTICE_URL is not set" in result.stderr


def test_a_kind_that_is_none_is_refused_with_the_list(cli: Cli) -> None:
    """The names are those that receivers see."""
    result = cli(notices, "list", "--kind", "reauth_needed")

    assert result.exit_code == 2
    assert "grant.reauth_needed" in result.stderr


def test_a_new_secret_is_one_that_the_settings_take(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 random bytes behind the prefix; it needs no database and no settings."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", "nonsense")
    made = {cli(notices, "secret").stdout.strip() for _ in range(3)} | {cli.json(notices, "secret")["secret"]}

    assert len(made) == 4
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32 for secret in made)
