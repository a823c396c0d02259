"""Our commands as people and scripts use them: what they print, their JSON and their exit statuses."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import redis
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from sqlalchemy import text

from tests.conftest import APP_ID
from tests.support.claims import claim_one
from worker.cli.authorize import authorize
from worker.cli.checks_places import IGNORED_AUTHORITIES, IGNORED_PROXIES
from worker.cli.db import db
from worker.cli.doctor import PAGES, doctor
from worker.cli.grants import grants
from worker.cli.keys import keys
from worker.journal import JournalEntry
from worker.sandbox.process import RunningSandbox
from worker.services import build_services
from worker.store import GrantStatus, Store
from worker.tiktok import REFRESH_CALL
from worker.vault import Keyring

Visit = Callable[..., str]
STATUS_NAMES = {
    "total",
    "by_status",
    "by_verdict",
    "ends_by_week",
    "fresh",
    "due",
    "overdue",
    "expired",
    "retrying",
    "in_doubt",
    "needs_reauth",
    "unproven",
    "held",
    "aside",
    "paused",
    "least_seconds_left",
    "paused_seconds_left",
    "oldest_due_seconds",
}


class Cli:
    """Runs commands in this process, under an app of the right name."""

    def __init__(self, broker: str, *, main: str = "evertoken") -> None:
        self.app = Celery(main, broker=broker)
        self.app.conf.task_routes = {"tasks.refresh.*": {"queue": "refresh"}, "tasks.pull.*": {"queue": "pull"}}
        self.said: list[str] = []

    def __call__(self, group: click.Command, *arguments: str, stdin: str | None = None) -> Result:
        """Run a command; an exception that is not an exit fails the test."""
        context = CLIContext(app=self.app, no_color=True, workdir=None)
        result = CliRunner().invoke(group, arguments, obj=context, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.said.append(result.output)
        return result

    def json(self, group: click.Command, *arguments: str, exit_code: int = 0) -> Any:
        """Run a command with `--json` and return what it printed."""
        result = self(group, *arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox: RunningSandbox, keyring: Keyring, redis_url: str
) -> dict[str, str]:
    """Return the environment's settings, all but the database's; the current folder holds no `.env`."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "EVERTOKEN_TIKTOK_APP_ID": sandbox.options.app_id,
        "EVERTOKEN_TIKTOK_APP_SECRET": sandbox.options.app_secret,
        "EVERTOKEN_TIKTOK_REDIRECT_URI": sandbox.options.redirect_uri,
        "EVERTOKEN_TIKTOK_BASE_URL": sandbox.url,
        "EVERTOKEN_TIKTOK_AUTHORIZE_URL": sandbox.authorize_url,
        "EVERTOKEN_KEYRING": keyring.to_json(),
        "EVERTOKEN_REDIS_URL": redis_url,
        "EVERTOKEN_JOURNAL_DIR": str(tmp_path / "journal"),
        "EVERTOKEN_RUN_DIR": str(tmp_path / "run"),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture
def cli(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, store_url: str) -> Cli:
    """Return a runner of commands on a migrated database."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", store_url)
    return Cli(environment["EVERTOKEN_REDIS_URL"])


@pytest.fixture
def creator(cli: Cli, visit: Visit) -> str:
    """Authorize a creator by our own commands, and return its id."""
    link = cli.json(authorize, "url")["url"]
    result = cli(authorize, "exchange", "-", stdin=visit(link, "creator-1") + "\n")
    assert result.exit_code == 0, result.output
    return "creator-1"


def test_another_app_is_refused(environment: dict[str, str]) -> None:
    """Without `-A worker` Celery runs a default app; our commands say so and do nothing."""
    result = Cli(environment["EVERTOKEN_REDIS_URL"], main="default")(grants, "status")

    assert result.exit_code == 2
    assert "celery -A worker" in result.stderr


def test_a_missing_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is said in a line, with exit status 2 and no traceback."""
    monkeypatch.delenv("EVERTOKEN_TIKTOK_APP_ID")

    result = cli(grants, "status")

    assert result.exit_code == 2
    assert result.stderr.startswith("error: EVERTOKEN_TIKTOK_APP_ID is missing")
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_setting_outside_the_settings_folder_names_the_folder(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the current folder has no `.env`, the error says so beside what is missing, and only then."""
    monkeypatch.delenv("EVERTOKEN_TIKTOK_APP_ID")
    outside = cli(grants, "status")
    Path(".env").write_text("EVERTOKEN_SCAN_SECONDS=5\n", encoding="utf-8")
    inside = cli(grants, "status")

    assert f"there is no file .env in the current folder {Path.cwd()}" in outside.stderr
    assert (inside.exit_code, "no file" in inside.stderr) == (2, False)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_id_may_begin_with_a_dash(cli: Cli) -> None:
    """Such an id is taken for an id and not for an option, while a misspelt option is still wrong use."""
    line = {"open_id": "-000kx9", "access_token": "act.CANARY", "refresh_token": "rft.CANARY"}
    cli(grants, "import", "-", stdin=json.dumps(line))

    assert cli.json(grants, "show", "-000kx9")["creator_id"] == "-000kx9"
    assert cli(grants, "token", "--min-validity", "1", "-000kx9").stdout == "act.CANARY\n"
    for command in ("explain", "refresh", "pull"):
        assert cli(grants, command, "-000kx9").exit_code == 0
    assert "no grant of creator -1unknown" in cli(grants, "revoke", "-1unknown", "--yes").stderr
    for wrong in (("show", "-h"), ("show", "--jsn"), ("show", "--jsn", "-000kx9"), ("show", "-000kx9", "-000kx8")):
        assert cli(grants, *wrong).exit_code == 2


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("explain", "nobody"),
        ("refresh", "nobody"),
        ("refresh", "nobody", "--now"),
        ("pull", "nobody"),
        ("pull", "nobody", "--now"),
        ("revoke", "nobody", "--yes"),
        ("token", "nobody"),
    ],
)
def test_an_unknown_creator_is_an_error(cli: Cli, arguments: tuple[str, ...]) -> None:
    """Each command that takes a creator says in a sentence that it knows none of that id, and exits 1."""
    result = cli(grants, *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "nobody" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_database_that_is_away_is_reported(cli: Cli, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    """A database that does not answer is a finding in one line, without its password."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", f"postgresql://nobody:CANARY@127.0.0.1:{free_port}/x")

    result = cli(grants, "status")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "CANARY" not in result.output
    assert len(result.stderr.splitlines()) == 1


def test_a_database_is_checked_and_migrated(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    """`db check` finds an empty database wanting, `db upgrade` migrates it, and again does nothing."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", empty_database_url)
    cli = Cli(environment["EVERTOKEN_REDIS_URL"])

    before = cli.json(db, "check", exit_code=1)
    first = cli.json(db, "upgrade")
    again = cli.json(db, "upgrade")
    after = cli.json(db, "check")

    assert (before["at"], before["current"]) == (None, False)
    assert first["at"] == before["wanted"] == again["before"]
    assert after["current"] is True


@pytest.mark.as_owner
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_roles_are_printed_for_psql_and_admitted_from_an_address(
    cli: Cli, store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both ways end at a worker that runs and changes no table, and at dashboards that see no other people's words.

    All may be taken twice, and no password is shown.
    """
    workers = store_url.replace("//postgres@", "//evertoken_clis:CANARY@")
    printed = cli(db, "roles", "--worker", "evertoken_printed")
    with psycopg.connect(store_url, autocommit=True) as owner:
        try:
            owner.execute((printed.stdout * 2).encode())
            admitted = [cli(db, "roles", "--admit", "-", stdin=f"{workers}\n") for _ in range(2)]
            (tmp_path / "word").write_text("CANARY\n")
            (tmp_path / "none").write_text("\n")
            sight = ("roles", "--dashboard", "evertoken_sight", "--admit-dashboard")
            looks = [cli(db, *sight, str(tmp_path / name)) for name in ("none", "word", "word")]
            with psycopg.connect(store_url.replace("//postgres@", "//evertoken_sight@"), autocommit=True) as reader:
                reader.execute("SELECT * FROM account_overview")
                for hidden in ("comment_threads", "grants", "account_profiles"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        reader.execute(f"SELECT * FROM {hidden}".encode())  # noqa: S608 - our own names
            as_owner = cli.json(doctor, "--offline", exit_code=1)["checks"][3]
            monkeypatch.setenv("EVERTOKEN_DATABASE_URL", workers)
            as_worker = cli.json(doctor, "--offline", exit_code=1)["checks"][3]
        finally:
            for role in ("evertoken_printed", "evertoken_clis", "evertoken_sight"):
                owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())

    assert [result.exit_code for result in admitted] == [0, 0]
    assert "CANARY" not in admitted[0].output + looks[1].output
    assert [result.exit_code for result in looks] == [0, 0, 0]
    assert "evertoken_sight was not made" in looks[0].output
    assert "evertoken_sight reads the views" in looks[1].output
    assert (as_owner["check"], as_owner["state"]) == ("rights", "warn")
    assert (as_worker["check"], as_worker["state"]) == ("rights", "ok")


def test_a_new_keyring_is_written_once_for_its_owner(environment: dict[str, str], tmp_path: Path) -> None:
    """`keys new --out` makes a file that only its owner reads, and never overwrites one."""
    cli, out = Cli(environment["EVERTOKEN_REDIS_URL"]), tmp_path / "keyring.json"

    first = cli(keys, "new", "--out", str(out))
    text = out.read_text()
    again = cli(keys, "new", "--out", str(out))

    assert first.exit_code == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert Keyring.from_json(text).active == 1
    assert again.exit_code == 2
    assert out.read_text() == text
    assert text.strip() not in first.output + again.output


def test_a_new_keyring_needs_no_settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first command of a fresh installation works before there is any setting."""
    for name in environment:
        monkeypatch.delenv(name)

    result = Cli("memory://")(keys, "new")

    assert Keyring.from_json(result.stdout).active == 1


def test_keys_in_use_are_shown(cli: Cli, creator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`keys status` counts pairs by key, and finds out a keyring that does not open them."""
    used = {"key_id": 1, "state": "active", "pairs": 1, "journal": 0, "held_by": 0, "seals_in": 0}
    assert cli.json(keys, "status")["keys"] == [used | {"opens": True, "remark": ""}]

    monkeypatch.setenv("EVERTOKEN_KEYRING", Keyring.new().to_json())
    (other,) = cli.json(keys, "status", exit_code=1)["keys"]
    assert other["opens"] is False

    fresh = Keyring.new()
    renamed = Keyring(active=2, keys={2: fresh.keys[1]}, fingerprint_key=fresh.fingerprint_key)
    monkeypatch.setenv("EVERTOKEN_KEYRING", renamed.to_json())
    missing, unused = cli.json(keys, "status", exit_code=1)["keys"]
    assert (missing["state"], missing["opens"]) == ("missing", False)
    assert (unused["state"], unused["opens"]) == ("active", None)


def test_a_whole_life_by_commands(cli: Cli, creator: str, store: Store) -> None:
    """Authorize, pull, refresh, pull again, look, and revoke: every step by its command."""
    assert cli.json(grants, "pull", creator, "--now")["kind"] == "pulled"
    first = cli(grants, "token", creator).stdout
    assert cli.json(grants, "refresh", creator, "--now")["kind"] == "refreshed"
    assert cli(grants, "token", creator, "--min-validity", "86000").stdout != first
    assert cli.json(grants, "pull", creator, "--now")["kind"] == "pulled"

    shown = cli.json(grants, "show", creator)
    assert (shown["creator_id"], shown["status"], shown["pair_generation"]) == (creator, "active", 2)
    assert "display_name" in shown["snapshot"]["data"]
    found = cli.json(grants, "explain", creator)
    assert [event["kind"] for event in found["events"]] == ["consent", "pull", "attempt", "pull"]
    assert "renewal window" in found["next"]["refresh_why"]
    for command in ("show", "explain"):
        assert creator in cli(grants, command, creator).stdout

    assert cli.json(grants, "revoke", creator, "--yes")["status"] == "revoked"
    assert store.grant(creator).status is GrantStatus.REVOKED
    assert cli(grants, "token", creator).exit_code == 1
    ended = cli(grants, "explain", creator).stdout
    assert ("next refresh: the grant was revoked here" in ended, "access token ends in" in ended) == (True, False)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_second_consent_is_in_the_timeline(cli: Cli, creator: str, visit: Visit) -> None:
    """A creator who authorized again has two consents in the timeline, and the later one stays after refreshes."""
    again = visit(cli.json(authorize, "url")["url"], creator)
    assert cli(authorize, "exchange", "-", stdin=again).exit_code == 0
    cli(grants, "refresh", creator, "--now")

    events = cli.json(grants, "explain", creator)["events"]

    assert [event["kind"] for event in events] == ["consent", "consent", "attempt"]
    assert "consent 2 was current" in events[1]["text"]


def test_a_token_is_printed_alone(cli: Cli, creator: str) -> None:
    """Standard output holds the token and a line break, so that scripts can use it as it is."""
    result = cli(grants, "token", creator, "--min-validity", "3600")

    assert result.exit_code == 0
    assert result.stdout.startswith("act.")
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    served, shown = cli.json(grants, "token", creator), cli.json(grants, "show", creator)
    assert served == {
        "creator_id": creator,
        "access_token": result.stdout.strip(),
        "expires_at": shown["access_expires_at"],
        "consent": 1,
        "generation": shown["pair_generation"],
    }


def test_a_token_that_ends_too_soon_is_not_printed(cli: Cli, creator: str) -> None:
    """If no token is valid for as long as asked, only a sentence on standard error is printed."""
    result = cli(grants, "token", creator, "--min-validity", "90000", "--wait", "0")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "less than the 90000 s asked for" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("asked", "status"), [("nan", 2), ("inf", 2), ("1e400", 2), ("-5", 2), ("x", 2), ("1e300", 1)])
def test_a_validity_that_no_token_has_is_a_sentence(cli: Cli, creator: str, asked: str, status: int) -> None:
    """What is no number of seconds is wrong use; a large one is more than any token has left."""
    result = cli(grants, "token", creator, "--min-validity", asked, "--wait", "0")

    assert result.exit_code == status
    assert result.stdout == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_no_command_shows_a_secret(cli: Cli, creator: str, visit: Visit) -> None:
    """Every token, code and secret of the sandbox holds a canary, which only `grants token` may print."""
    cli(grants, "refresh", creator, "--now")
    cli(grants, "pull", creator, "--now")
    for arguments in (("status",), ("list",), ("show", creator), ("explain", creator)):
        cli(grants, *arguments)
        cli.json(grants, *arguments, exit_code=0)
    cli(keys, "status")
    cli(doctor, "--offline")
    used = visit(cli.json(authorize, "url")["url"], creator)
    assert "CANARY" in used
    for _ in range(2):
        cli(authorize, "exchange", used)
    cli(authorize, "exchange", used.replace("state=", "state=x"))
    cli(grants, "revoke", creator, "--yes")

    assert not [text for text in cli.said if "CANARY" in text]


def test_a_wrong_keyring_seals_nothing(cli: Cli, creator: str, monkeypatch: pytest.MonkeyPatch, visit: Visit) -> None:
    """With a keyring that does not open the stored pairs nothing new is sealed and nothing is sent."""
    redirect = visit(cli.json(authorize, "url")["url"], "creator-2")
    right = cli.json(keys, "status")
    assert cli(grants, "import", "-", stdin=lines(1)).exit_code == 0
    monkeypatch.setenv("EVERTOKEN_KEYRING", Keyring.new().to_json())

    for arguments in (("import", "-"), ("refresh", creator, "--now"), ("pull", creator, "--now")):
        result = cli(grants, *arguments, stdin=lines(3))
        assert result.exit_code == 1
        assert "keyring" in result.stderr
    assert cli(authorize, "exchange", redirect).exit_code == 1
    token = cli(grants, "token", creator)
    assert (token.exit_code, token.stdout, "EVERTOKEN_KEYRING" in token.stderr) == (1, "", True)

    assert right["keys"][0]["pairs"] == 1
    assert cli.json(keys, "status", exit_code=1)["keys"][0]["pairs"] == 2


def test_status_has_its_agreed_names(cli: Cli, creator: str) -> None:
    """Programs rely on these names."""
    found = cli.json(grants, "status")

    assert set(found) == STATUS_NAMES
    assert (found["total"], found["fresh"]) == (1, 1)
    assert found["by_status"] == {"active": 1, "suspect": 0, "needs_reauth": 0, "revoked": 0}
    assert 86_000 < found["least_seconds_left"] <= 86_400
    assert "fresh" in cli(grants, "status").stdout


def lines(count: int, **change: object) -> str:
    """Return JSON lines of this many creators."""
    return "".join(
        json.dumps({"open_id": f"i{n}", "access_token": f"act.CANARY{n}", "refresh_token": f"rft.{n}"} | change) + "\n"
        for n in range(count)
    )


def test_grants_are_listed_by_pages(cli: Cli, tmp_path: Path) -> None:
    """Each page names the beginning of the next, and the last page names none."""
    (tmp_path / "some.jsonl").write_text(lines(5, expires_in=86400))
    cli(grants, "import", "some.jsonl")

    first = cli.json(grants, "list", "--limit", "3")
    second = cli.json(grants, "list", "--limit", "3", "--after", str(first["next_after"]))

    assert [row["creator_id"] for row in first["grants"] + second["grants"]] == [f"i{n}" for n in range(5)]
    assert second["next_after"] is None
    assert cli.json(grants, "list", "--status", "revoked")["grants"] == []
    assert "i4" in cli(grants, "list").stdout


def test_an_import_reports_its_bad_lines(cli: Cli, tmp_path: Path, store: Store) -> None:
    """Bad lines are reported with number and reason, the rest is imported, and the exit status is 1."""
    (tmp_path / "some.jsonl").write_text(lines(3) + "CANARY\n" * 12)

    result = cli(grants, "import", "some.jsonl")

    assert result.exit_code == 1
    assert "15 lines: 3 new, 0 replaced, 0 skipped, 12 not imported" in result.stdout
    assert result.stdout.count("the line is not JSON") == 1
    assert "4, 5, 6, 7, 8, 9, 10, 11, ..." in result.stdout
    assert result.stderr == ""
    assert "CANARY" not in result.output
    assert store.fleet_status().total == 3
    again = cli.json(grants, "import", "some.jsonl", exit_code=1)
    assert [(each["what"], each["lines"], each["which"]) for each in again["reasons"]] == [
        ("bad", 12, list(range(4, 16))),
        ("skipped", 3, [1, 2, 3]),
    ]
    assert (again["created"], again["skipped"], again["bad"]) == (0, 3, 12)


def test_a_dry_run_says_what_an_import_would_do(cli: Cli, tmp_path: Path, store: Store) -> None:
    """Each line is counted by what would be done and why, and the columns that are read or not are named."""
    rows = ("a1,act.1,rft.1,7,2026-11-01", "a2,act.2,NULL,7,2026-11-01", "a1,act.3,rft.3,7,2026-11-02")
    (tmp_path / "dump.csv").write_text("\n".join(("account,at,rt,age,issued_at", *rows)))
    arguments = ("import", "dump.csv", "--map", "creator=account,access=at,refresh=rt")

    tried = cli(grants, *arguments, "--dry-run")
    found = cli.json(grants, *arguments, "--dry-run", exit_code=1)

    assert tried.exit_code == 1
    assert "nothing stored; this would be done: 3 lines: 1 new, 0 replaced, 1 skipped, 1 not imported" in tried.stdout
    for words in ("rt is missing", "has a newer pair", "creator from account", "not read: age", "an hour is assumed"):
        assert words in tried.stdout
    assert (found["created"], found["skipped"], found["bad"], found["columns_not_read"]) == (1, 1, 1, ["age"])
    assert store.fleet_status().total == 0
    assert cli.json(grants, *arguments, exit_code=1)["created"] == 1
    assert cli.json(grants, *arguments, "--dry-run", exit_code=1)["skipped"] == 2


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mapping", ["creator", "creator=", "=x", "shoe=size"])
def test_a_mapping_that_cannot_be_read_exits_2(cli: Cli, mapping: str) -> None:
    """The error for `--map` is one sentence."""
    result = cli(grants, "import", "-", "--map", mapping, stdin=lines(1))

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def put_aside(body: dict[str, Any], *, grant_id: int = 1, consent: int = 1, generation: int = 2) -> str:
    """Put an answer to a refresh of creator `somebody-else` aside, as a worker does, and return its record's name."""
    now = datetime.now(UTC)
    services = build_services()
    services.journal.ready()
    entry = JournalEntry(
        kind="refresh", grant_id=grant_id, creator_id="somebody-else", consent=consent, generation=generation,
        call=REFRESH_CALL,
        http_status=200, body=json.dumps(body).encode(), complete=True, fault=None, retry_after=None,
        sent_at=now, received_at=now,
    )  # fmt: skip
    services.journal.set_aside(services.journal.append(entry))
    (name,) = [pair.name for pair in services.placing.pairs()]
    services.close()
    return name


def test_a_pair_that_was_set_aside_is_placed_after_asking(cli: Cli, sandbox: RunningSandbox, store: Store) -> None:
    """The list names the owner, `no` changes nothing, `yes` stores the pair and removes the record."""
    token = sandbox.grants(1, prefix="aside-")[0]
    name = put_aside({"code": 0, "data": token})

    listed = cli.json(grants, "aside")["aside"]
    refused = cli(grants, "place", name, stdin="n\n")
    assert store.fleet_status().total == 0
    agreed = cli(grants, "place", name, stdin="y\n")

    assert [(each["name"], each["asked_for"], each["creator_id"], each["fault"]) for each in listed] == [
        (name, "somebody-else", token["open_id"], None)
    ]
    assert refused.exit_code == 1
    assert f"under creator {token['open_id']} (it was asked for creator somebody-else)?" in agreed.stderr
    assert (agreed.exit_code, store.grant(token["open_id"]).status) == (0, GrantStatus.ACTIVE)
    assert cli.json(grants, "aside")["aside"] == []
    assert cli(grants, "place", name, "--yes").exit_code == 1
    assert "CANARY" not in "".join(cli.said)


def test_an_answer_without_a_pair_cannot_be_placed(cli: Cli, store: Store) -> None:
    """It is listed with what is wrong with it, and placing it is refused in a sentence."""
    name = put_aside({"code": 0, "data": {"access_token": 5, "refresh_token": "rft.CANARY", "open_id": "c1"}})

    (listed,) = cli.json(grants, "aside")["aside"]
    result = cli(grants, "place", name, "--yes")

    assert "no access token" in listed["fault"]
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {name} cannot be placed")
    assert [each["name"] for each in cli.json(grants, "aside")["aside"]] == [name]
    assert store.fleet_status().total == 0


def test_a_record_is_discarded_after_asking(cli: Cli, store: Store, creator: str) -> None:
    """`no` changes nothing; `yes` removes the record, and the grant that waited for it waits no more."""
    grant = store.grant(creator)
    claim = claim_one(store, grant.grant_id, owner="host-7:12:ab", lease_seconds=60, force=True)
    assert claim is not None
    store.note_aside(grant.grant_id, claim.consent, claim.generation)
    name = put_aside({"code": 0}, grant_id=grant.grant_id, consent=claim.consent, generation=claim.generation)
    assert [row["creator_id"] for row in cli.json(grants, "list", "--status", "aside")["grants"]] == [creator]
    explained = cli.json(grants, "explain", creator)["next"]["refresh_why"]

    refused = cli(grants, "discard", name, stdin="n\n")
    kept = cli.json(grants, "status")["aside"]
    agreed = cli(grants, "discard", name, stdin="y\n")

    assert (refused.exit_code, kept) == (1, 1)
    assert "host-7:12:ab" in explained
    assert "grants discard RECORD" in explained
    assert agreed.exit_code == 0
    assert cli.json(grants, "aside")["aside"] == []
    assert cli.json(grants, "status")["aside"] == 0
    assert cli(grants, "discard", name, "--yes").exit_code == 1


def test_a_creator_waits_no_more_for_a_record_that_is_lost(cli: Cli, store: Store, creator: str) -> None:
    """Its host is gone, so the creator is named; the doctor stops speaking of it."""
    grant = store.grant(creator)
    claim = claim_one(store, grant.grant_id, owner="gone", lease_seconds=60, force=True)
    assert claim is not None
    store.note_aside(grant.grant_id, claim.consent, claim.generation)
    before = {check["check"]: check for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}

    assert cli.json(grants, "discard", "--creator", creator, "--yes") == {"creator_id": creator, "records": 1}

    after = {check["check"]: check for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}
    assert "for 1 grant an answer" in before["grants"]["detail"]
    assert "grants explain CREATOR" in before["grants"]["detail"]
    assert "kept aside" not in after["grants"]["detail"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["x", "--creator", "y"], 2), (["nosuch"], 1), (["../keyring"], 1), (["--creator", "nobody"], 1)],
)
def test_a_discard_of_nothing_is_refused(cli: Cli, arguments: list[str], code: int) -> None:
    """What is named must be there, and be one thing."""
    result = cli(grants, "discard", *arguments, "--yes")

    assert result.exit_code == code
    assert "Traceback" not in result.stderr


def test_an_import_reads_standard_input(cli: Cli, store: Store) -> None:
    """`-` is standard input; a good file exits 0, and a dry run stores nothing."""
    assert cli(grants, "import", "-", "--dry-run", stdin=lines(2)).exit_code == 0
    assert store.fleet_status().total == 0
    assert cli(grants, "import", "-", stdin=lines(2)).exit_code == 0
    assert store.fleet_status().total == 2


def test_a_file_of_another_kind_is_refused_in_one_sentence(cli: Cli) -> None:
    """If nothing can be read at all, the error does not say to run the same command again."""
    result = cli(grants, "import", "-", stdin="name,age\nx,1\n")

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "arguments",
    [("import", "missing.jsonl"), ("import",), ("list", "--status", "odd"), ("list", "--limit", "0"), ("token",)],
)
def test_wrong_use_exits_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    """What click refuses has exit status 2 like our own refusals."""
    assert cli(grants, *arguments).exit_code == 2


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("pasted", ["", "https://app.example/callback/?error=access_denied", "?code=CANARY&state=x"])
def test_a_wrong_redirect_exits_2(cli: Cli, pasted: str) -> None:
    """A redirect that cannot be taken is wrong use; the error is a sentence without its code."""
    result = cli(authorize, "exchange", "-", stdin=pasted)

    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "CANARY" not in result.output


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("command", "published"),
    [
        ("refresh", ("tasks.refresh.refresh_grants", "refresh", lambda grant_id: [[grant_id]])),
        ("pull", ("tasks.pull.pull_account", "pull", lambda grant_id: [grant_id])),
    ],
)
def test_work_is_marked_and_published(
    cli: Cli, creator: str, store: Store, command: str, published: tuple[str, str, Callable[[int], object]]
) -> None:
    """Without `--now` the row is marked due and one message with the id alone goes to the right queue."""
    task, queue, arguments = published
    found = cli.json(grants, command, creator)

    with cli.app.connection_for_read() as connection:
        message = connection.SimpleQueue(queue).get(timeout=5)
        message.ack()
    grant = store.grant(creator)
    assert (found["task"], found["grant_id"]) == (task, grant.grant_id)
    assert message.headers["task"] == task
    assert message.payload[0] == arguments(grant.grant_id)
    assert grant.grant_id in ([due.grant_id for due in store.due(10)] if command == "refresh" else store.due_pulls(10))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_link_asks_for_an_address_only_if_no_desk_takes_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The desk has used the address when the creator sees its page."""
    assert "paste the address" in cli(authorize, "url").stderr
    monkeypatch.setenv("EVERTOKEN_DESK_URL", "https://desk.example")

    said = cli(authorize, "url").stderr

    assert "nothing is to be pasted" in said
    assert "paste the address" not in said


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_work_is_marked_while_redis_is_away(cli: Cli, creator: str, store: Store, free_port: int) -> None:
    """Redis is disposable: the row is marked, and the next scan will hand it out."""
    away = Cli(f"redis://127.0.0.1:{free_port}/0")

    result = away(grants, "refresh", creator)

    assert result.exit_code == 0
    assert "the next scan" in result.stdout
    assert store.due_count() == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_revocation_asks_first(cli: Cli, creator: str, store: Store) -> None:
    """Without `--yes` and without a yes nothing is revoked."""
    result = cli(grants, "revoke", creator, stdin="n\n")

    assert result.exit_code == 1
    assert store.grant(creator).status is GrantStatus.ACTIVE
    assert cli(grants, "revoke", creator, stdin="y\n").exit_code == 0


def test_the_doctor_looks_at_everything(cli: Cli, creator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check is one line; without workers the doctor finds just that."""
    for name in (*IGNORED_PROXIES, *IGNORED_AUTHORITIES):
        monkeypatch.delenv(name, raising=False)
    found = cli.json(doctor, exit_code=1)

    states = {check["check"]: check["state"] for check in found["checks"]}
    assert states == {
        "version": "ok",
        "settings": "ok",
        "database": "ok",
        "rights": "ok",
        "clock": "ok",
        "keyring": "ok",
        "journal": states["journal"],  # a warning if tests run on a file system in memory
        "brake": "ok",
        "shortage": "ok",
        "grants": "ok",
        "pauses": "ok",
        "endings": "ok",
        "contract": "ok",
        "capacity": "ok",
        "notices": "warn",  # no address is set
        "accounts": "ok",
        "desk": "ok",
        "egress": "ok",
        "secrets": "ok",
        "traffic": "ok",
        "run": "ok",
        "telemetry": "ok",
        "redis": "ok",
        "quota": "ok",
        "workers": "fail",
        "queues": "fail",
        "beat": "warn",
        "tiktok": "ok",
    }
    assert states["journal"] in {"ok", "warn"}
    assert found["healthy"] is False
    details = {check["check"]: check["detail"] for check in found["checks"]}
    assert "EVERTOKEN_NOTICE_URL is not set, so nobody is told" in details["notices"]
    assert "videos only of creators who granted video.list, which EVERTOKEN_TIKTOK_SCOPES" in details["accounts"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_names_what_is_wrong(
    cli: Cli, creator: str, store: Store, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Each thing that is broken is found, and what needs Redis is skipped."""
    folder = Path("not-a-folder")
    folder.touch()
    store.pull_brake("TikTok refuses the app", probe_seconds=60)
    monkeypatch.setenv("EVERTOKEN_KEYRING", Keyring.new().to_json())
    monkeypatch.setenv("EVERTOKEN_TIKTOK_BASE_URL", f"http://127.0.0.1:{free_port}/open_api")
    monkeypatch.setenv("EVERTOKEN_JOURNAL_DIR", str(folder))
    monkeypatch.setenv("EVERTOKEN_REDIS_URL", f"redis://127.0.0.1:{free_port}/0")

    found = Cli(f"redis://127.0.0.1:{free_port}/0").json(doctor, exit_code=1)

    failed = {check["check"] for check in found["checks"] if check["state"] == "fail"}
    assert failed == {"keyring", "journal", "brake", "redis", "tiktok"}
    pages = {
        check["check"]: check["detail"].rpartition("; ")[2] for check in found["checks"] if check["check"] in PAGES
    }
    assert pages["redis"] == "docs/runbook/redis-away.md"
    skipped = {check["check"]: check["detail"] for check in found["checks"] if check["state"] == "skip"}
    assert skipped == dict.fromkeys(("quota", "workers", "queues"), "can say nothing before redis is repaired")
    assert all((Path(__file__).parents[2] / f"docs/runbook/{page}.md").is_file() for page in PAGES.values())


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_asks_a_database_that_is_away_once(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Each look at an unreachable host takes its timeout, so what needs the database is skipped after the first."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", f"postgresql://u:p@127.0.0.1:{free_port}/name")

    states = {check["check"]: check["state"] for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}

    assert states["database"] == "fail"
    skipped = {check for check, state in states.items() if state == "skip"}
    assert skipped == {
        "rights", "clock", "keyring", "brake", "shortage", "grants", "pauses", "endings", "contract", "capacity",
        "notices", "accounts", "beat", "tiktok",
    }  # fmt: skip


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_says_how_a_stop_ends(cli: Cli, creator: str, store: Store) -> None:
    """While refreshing is stopped the doctor says why, where to read what to do, and that it ends by itself."""
    assert store.pull_brake("TikTok refuses the app", probe_seconds=30)

    found = {check["check"]: check for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}

    assert found["brake"]["state"] == "fail"
    assert "TikTok refuses the app" in found["brake"]["detail"]
    assert "app.stopped" in found["brake"]["detail"]
    assert "first good answer ends the stop" in found["brake"]["detail"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("pause", "state"), [("9" * 15, "ok"), (str(2**53 - 1), "warn"), ("inf", "ok"), ("x", "ok")])
def test_the_doctor_shows_a_pause(cli: Cli, creator: str, redis_url: str, pause: str, state: str) -> None:
    """A pause in Redis is shown with its length, an hour at most; what has passed or is no number is none."""
    with redis.Redis.from_url(redis_url) as client:
        client.hset(f"evertoken:limit:{APP_ID}:app", "pause", pause)

    found = {check["check"]: check for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}

    assert found["quota"]["state"] == state
    assert ("nothing is sent for another 3600 s" in found["quota"]["detail"]) == (state == "warn")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_reports_missing_settings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings there is one finding, it names the setting, and the exit status is that of wrong use."""
    monkeypatch.delenv("EVERTOKEN_KEYRING")

    found = cli.json(doctor, exit_code=2)

    assert [(check["check"], check["state"]) for check in found["checks"]] == [("version", "ok"), ("settings", "fail")]
    assert "EVERTOKEN_KEYRING is missing" in found["checks"][1]["detail"]


def age(store: Store, changes: str) -> None:
    """Change every grant by SQL, as time or TikTok would."""
    run(store, f"UPDATE grants SET {changes}")  # noqa: S608 - changes of our own


def run(store: Store, statement: str) -> None:
    """Run a statement beside the store's own methods."""
    store.transact(lambda connection: connection.execute(text(statement)), writes=True)


def revoke(cli: Cli, creator: str, store: Store) -> None:
    """End the grant here."""
    assert cli(grants, "revoke", creator, "--yes").exit_code == 0


def end_consent(cli: Cli, creator: str, store: Store) -> None:
    """Let TikTok have refused the refresh token for good, and the access token have ended."""
    age(store, "status = 'needs_reauth', access_expires_at = issued_at + 1")
    run(store, "UPDATE pairs SET access_expires_at = issued_at + 1")


def end_token(cli: Cli, creator: str, store: Store) -> None:
    """Let the access token have ended before its refresh."""
    age(store, "access_expires_at = issued_at + 1")
    run(store, "UPDATE pairs SET access_expires_at = issued_at + 1")


def forget(cli: Cli, creator: str, store: Store) -> None:
    """Take the grant away altogether."""
    for table in ("snapshots", "attempts", "pairs", "notices", "grants"):
        run(store, f"DELETE FROM {table}")  # noqa: S608 - names of our own


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("happen", "kind", "says"),
    [
        (forget, "unknown", "there is no grant of creator"),
        (revoke, "revoked", "is revoked and its tokens are wiped"),
        (end_consent, "reauth_needed", "the creator must authorize again"),
        (end_token, "expired", "ended"),
    ],
)
def test_why_there_is_no_token_is_a_word_and_a_sentence(  # noqa: PLR0917 - fixtures
    cli: Cli, creator: str, store: Store, happen: Callable[[Cli, str, Store], None], kind: str, says: str
) -> None:
    """Unknown, revoked, refused for good and expired ask for four different things of whoever wanted the token."""
    happen(cli, creator, store)

    asked = ("token", creator, "--wait", "0")
    result, found = cli(grants, *asked), cli.json(grants, *asked, exit_code=1)

    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr
    assert (found["creator_id"], found["error"], found["detail"]) == (creator, kind, found["detail"])
    assert says in found["detail"]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("happen", [revoke, end_consent])
@pytest.mark.parametrize("command", [("refresh",), ("refresh", "--now"), ("pull",), ("pull", "--now")], ids=" ".join)
def test_nothing_is_handed_out_for_a_grant_that_has_ended(
    cli: Cli, creator: str, store: Store, happen: Callable[[Cli, str, Store], None], command: tuple[str, ...]
) -> None:
    """No worker can do what is asked, so the answer is what can be done."""
    happen(cli, creator, store)

    result = cli(grants, command[0], creator, *command[1:])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "authoriz" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_second_revocation_says_that_it_was_revoked(cli: Cli, creator: str, store: Store) -> None:
    """The person learns that nothing is left to do."""
    revoke(cli, creator, store)

    result = cli(grants, "revoke", creator, "--yes")

    assert (result.exit_code, "was revoked before" in result.stdout) == (0, True)
    assert cli.json(grants, "revoke", creator, "--yes")["at_tiktok"] is None


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_creator_is_forgotten_by_a_command_and_the_second_time_too(
    cli: Cli, creator: str, running_sandbox: RunningSandbox, store: Store
) -> None:
    """It asks first; the creator is unknown afterwards; a name that never was is an error."""
    asked = cli(grants, "forget", creator, stdin="n\n")
    assert (asked.exit_code, store.grant(creator).status) == (1, GrantStatus.ACTIVE)

    done = cli(grants, "forget", creator, stdin="y\n")

    assert (done.exit_code, "is forgotten" in done.stdout) == (0, True)
    assert running_sandbox.creator(creator)["revoked"]
    assert cli(grants, "show", creator).exit_code == 1
    assert cli.json(grants, "forget", creator, "--yes") == {
        "creator_id": creator, "status": "forgotten", "at_tiktok": None,
    }  # fmt: skip
    assert cli(grants, "forget", "nobody", "--yes").exit_code == 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", ["revoke", "forget"])
def test_an_ending_that_tiktok_does_not_confirm_is_told_and_goes_on(
    cli: Cli, creator: str, running_sandbox: RunningSandbox, store: Store, command: str
) -> None:
    """The grant is out of use at once; status, doctor and the second call say what is left; --here-only ends it."""
    running_sandbox.fault("code", creator=creator, call="revoke", code=50000, message="system error", times=1)

    first = cli(grants, command, creator, "--yes")

    assert (first.exit_code, "TikTok has not confirmed" in first.stderr) == (1, True)
    assert store.grant(creator).status is GrantStatus.REVOKED
    checks = {each["check"]: each for each in json.loads(cli(doctor, "--offline", "--json").stdout)["checks"]}
    assert (checks["endings"]["state"], "1 creator revoked here" in checks["endings"]["detail"]) == ("warn", True)
    assert "TikTok has not confirmed" in cli(grants, "explain", creator).stdout
    again = cli.json(grants, command, creator, "--yes", "--here-only")
    assert (again["at_tiktok"], running_sandbox.creator(creator)["revoked"]) == (False, False)
    assert store.all_pairs() == []
    assert store.endings_waiting().oldest_at is None


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_link_is_made_with_a_keyring_of_others(cli: Cli, creator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to such a link would be refused after the creator had agreed."""
    monkeypatch.setenv("EVERTOKEN_KEYRING", Keyring.new().to_json())

    result = cli(authorize, "url")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "keyring" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_no_database_is_made_if_its_folder_is_mistyped(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped path ends in a sentence that names the folder and the setting, and not in an empty database."""
    monkeypatch.setenv("EVERTOKEN_DATABASE_URL", f"sqlite:///{Path.cwd()}/vra/evertoken.db")

    result = cli(db, "upgrade")

    assert result.exit_code == 2
    assert f"there is no folder {Path.cwd()}/vra" in result.stderr
    assert "EVERTOKEN_DATABASE_URL" in result.stderr
    assert not Path("vra").exists()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("url", ["sqlite:///new.db", None], ids=["own file", "default"])
def test_a_new_database_is_called_new_with_its_place(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    """Who meant another file sees it at once; a second upgrade has nothing to do."""
    if url is None:
        monkeypatch.delenv("EVERTOKEN_DATABASE_URL")
    else:
        monkeypatch.setenv("EVERTOKEN_DATABASE_URL", url)

    first, again = cli(db, "upgrade"), cli(db, "upgrade")

    place = Path.cwd() / ("var/evertoken.db" if url is None else "new.db")
    assert first.stdout.startswith("made a new, empty database")
    assert str(place) in first.stdout.replace("\n", "")
    assert again.stdout.startswith("nothing to do")


@pytest.mark.parametrize("arguments", [("list", "--after", "9223372036854775808"), ("show", "\udcff\udcfe")], ids=str)
def test_an_argument_that_fits_no_database_is_a_sentence(cli: Cli, arguments: tuple[str, ...]) -> None:
    """A number that is too large and bytes that are no text end in one sentence on both databases."""
    result = cli(grants, *arguments)

    assert result.exit_code in {1, 2}
    assert "not available" not in result.stderr


CONDITIONS = {
    "fresh": "next_refresh_at = access_expires_at",
    "due": "next_refresh_at = issued_at",
    "overdue": "next_refresh_at = issued_at, issued_at = issued_at - 20 * (access_expires_at - issued_at)",
    "expired": "access_expires_at = issued_at + 1",
    "retrying": "failures = 1",
    "in_doubt": "status = 'suspect', failures = 1",
    "needs_reauth": "status = 'needs_reauth'",
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_the_status_counts_can_be_listed(cli: Cli, creator: str, store: Store, condition: str) -> None:
    """The count and the list have one definition, on both databases."""
    counted, listed = cli.json(grants, "status"), cli.json(grants, "list", "--status", condition)["grants"]
    assert counted[condition] == len(listed)

    age(store, CONDITIONS[condition])

    counted = json.loads(cli(grants, "status", "--json").stdout)
    listed = cli.json(grants, "list", "--status", condition)["grants"]
    assert (counted[condition], [row["creator_id"] for row in listed]) == (1, [creator])


ENDED = (
    "issued_at = issued_at - (access_expires_at - issued_at) * 25 / 24, "
    "access_expires_at = issued_at - (access_expires_at - issued_at) / 24"
)
DUE = "next_refresh_at = issued_at - 1"
STATES = {
    "overdue": (f"{ENDED}, {DUE}", "ended 1 h", "due for"),
    "needs_reauth": (f"{ENDED}, {DUE}, status = 'needs_reauth'", "ended 1 h", None),
    "revoked": (f"{ENDED}, {DUE}, status = 'revoked'", None, None),
    "held": (f"{DUE}, belongs_to = 'another'", "in ", None),
    "fresh": ("failures = 0", "in ", "in "),
}
"""What a grant is made into, and how its access token's end and its next refresh are shown; None is a dash."""


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("state", STATES)
def test_times_that_have_gone_by_are_shown_in_words(cli: Cli, creator: str, store: Store, state: str) -> None:
    """No duration has a minus, a refresh that will not come has none, and the JSON has the instants all the same."""
    change, end, following = STATES[state]
    planned = cli.json(grants, "show", creator)["next_refresh_at"] if state == "fresh" else None
    age(store, change)

    listed, shown = cli(grants, "list").stdout, cli(grants, "show", creator).stdout
    texts = [listed, shown, cli(grants, "status").stdout, cli(grants, "explain", creator).stdout]

    assert not [text for text in texts if re.search(r"(?<![\w-])-\d+ (s|min|h|d)\b", text)]
    cells = [cell.strip() for cell in next(row for row in listed.splitlines() if creator in row).split("│")[1:-1]]
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in shown.splitlines() if row.startswith("│")]
    fields = {row[0]: row[1] for row in rows if len(row) == 2}
    for found, at in (
        (cells[4], end),
        (fields["access token ends"], end),
        (cells[5], following),
        (fields["next refresh"], following),
    ):
        assert found == "-" if at is None else found.startswith(at)
    assert (fields["next_refresh_at"] == "-") == (following is None)
    as_json = cli.json(grants, "show", creator)
    assert as_json["next_refresh_at"] is not None
    assert planned in {None, as_json["next_refresh_at"]}


def test_a_grant_whose_answer_never_came_is_listed_as_in_doubt(cli: Cli, creator: str, store: Store) -> None:
    """An attempt that was sent and has no outcome is what the status calls in doubt."""
    grant = store.grant(creator)
    assert claim_one(store, grant.grant_id, owner="gone", lease_seconds=60, force=True)
    age(store, "lease_until = NULL, lease_owner = NULL")

    assert cli.json(grants, "status")["in_doubt"] == 1
    assert [row["creator_id"] for row in cli.json(grants, "list", "--status", "in_doubt")["grants"]] == [creator]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("content", ["", "\n", "creator_id,access_token,refresh_token\n", "[]"])
def test_an_import_of_nothing_is_no_success(cli: Cli, content: str, database_kind: str) -> None:
    """An export that failed leaves an empty file, and a script must notice."""
    result = cli(grants, "import", "-", stdin=content)

    assert result.exit_code == 1
    assert "did the export fail?" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_field_is_mapped_once(cli: Cli, database_kind: str) -> None:
    """Of two columns for one field the last would be read without a word."""
    result = cli(grants, "import", "-", "--map", "creator=a,Creator=b", stdin="a,b\n")

    assert result.exit_code == 2
    assert "names a field twice" in result.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_doctor_sees_that_due_grants_wait_for_long(cli: Cli, creator: str, store: Store) -> None:
    """Before a token ends there is time to find out why nobody refreshes it."""
    store.transact(
        lambda connection: connection.execute(
            text("UPDATE grants SET next_refresh_at = updated_at - 1200000")  # twenty minutes
        ),
        writes=True,
    )

    found = {check["check"]: check for check in cli.json(doctor, "--offline", exit_code=1)["checks"]}

    assert found["grants"]["state"] == "warn"
    assert "has been due for 20 minutes" in found["grants"]["detail"]


def test_the_doctor_marks_no_folder(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mistyped namespace it looks, and a worker of the real installation still starts afterwards."""
    monkeypatch.setenv("EVERTOKEN_NAMESPACE", "mistyped")
    found = cli.json(doctor, "--offline", exit_code=1)

    journal = next(check for check in found["checks"] if check["check"] == "journal")
    assert journal["state"] == "ok"
    assert not (tmp_path / "journal").exists()
