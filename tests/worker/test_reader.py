"""Readers of access tokens: what they need, what they cannot do, and how they come by a token that lasts."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import make_url

from tests.conftest import DASHBOARD_ROLE, READER_ROLE, WORKER_ROLE
from tests.support.warm import server_for
from tests.support.world import World
from worker.cli import checks
from worker.errors import (
    ConfigurationError,
    ExpiredError,
    HeldError,
    KeyMissingError,
    LostError,
    PausedError,
    ReauthNeededError,
    RevokedError,
    SealError,
    StoreRefusedError,
    StoreUnavailableError,
    UnknownCreatorError,
    UsageError,
    ValidityError,
)
from worker.store import GrantView
from worker.tokens import open_reader
from worker.tokens.reader import TokenReader
from worker.upkeep.preflight import FOR_READERS
from worker.vault import Keyring, PairPlace, Sealer

README: Final = Path(__file__).parents[2] / "README.md"
NewWorld = Callable[..., World]
NewReader = Callable[..., TokenReader]
HOUR_MS: Final = 3_600_000
ASKERS: Final = """
from concurrent.futures import ThreadPoolExecutor
from worker.tokens import served_token
with ThreadPoolExecutor(THREADS) as pool:
    asked = [pool.submit(served_token, "CREATOR", min_validity=300, wait_seconds=60) for _ in range(THREADS)]
    print(*(each.result().generation for each in asked))
"""


def reader_environ(world: World, keyring: Keyring) -> dict[str, str]:
    """Return all that a reader needs."""
    return {
        "EVERTOKEN_DATABASE_URL": world.environ["EVERTOKEN_DATABASE_URL"],
        "EVERTOKEN_KEYRING": keyring.reader(world.services.app_id).to_json(),
    }


@pytest.fixture
def reader_of() -> Iterator[NewReader]:
    """Open readers as a neighbour does; settings are given without their prefix."""
    opened: list[TokenReader] = []

    def make(world: World, keyring: Keyring, **changes: str) -> TokenReader:
        changed = {f"EVERTOKEN_{name}": value for name, value in changes.items()}
        opened.append(open_reader(reader_environ(world, keyring) | changed))
        return opened[-1]

    yield make
    for reader in opened:
        reader.close()


def near_its_end(world: World, grant: GrantView, *, seconds: int = 120) -> None:
    """Let the grant's token end soon while its refresh is planned for later."""
    ends_at = int(world.services.store.ping().timestamp() * 1000) + seconds * 1000
    for table, key in (("pairs", "grant_id"), ("grants", "id")):
        world.sql(f"UPDATE {table} SET access_expires_at = {ends_at} WHERE {key} = {grant.grant_id}")  # noqa: S608 - numbers of our own
    plan_later(world, grant)


def plan_later(world: World, grant: GrantView) -> None:
    """Let the grant's next refresh be planned for much later."""
    world.sql(f"UPDATE grants SET next_refresh_at = {4 * 10**12} WHERE id = {grant.grant_id}")  # noqa: S608 - as above


@contextmanager
def at_work(world: World) -> Iterator[None]:
    """Let a worker of the fleet refresh what is due, until the end of the block."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.05):
            for due in world.services.store.due(10):
                world.services.refresher.refresh(due.grant_id)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield
        finally:
            stop.set()
            working.result()


def test_a_reader_needs_an_address_and_a_keyring(
    new_world: NewWorld, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It names no app, has no secret, and reads the application's own `.env` only if asked to."""
    world = new_world()
    grant = world.creator()
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("EVERTOKEN_TIKTOK_APP_ID=another\n")
    environ = reader_environ(world, keyring)

    with closing(open_reader(environ)) as reader:
        assert reader.access_token(grant.creator_id).reveal().startswith("act.")
    with pytest.raises(ConfigurationError, match="for another app than EVERTOKEN_TIKTOK_APP_ID names"):
        open_reader(environ, dotenv=Path(".env"))


def test_a_keyring_that_names_no_app_says_what_to_do(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """A reader's keyring from before it named the app goes on working with the setting."""
    world = new_world()
    grant = world.creator()
    older = keyring.reader().to_json()

    with pytest.raises(ConfigurationError, match="write it again with `celery -A worker keys reader`"):
        reader_of(world, keyring, KEYRING=older)
    reader = reader_of(world, keyring, KEYRING=older, TIKTOK_APP_ID=world.services.app_id)
    assert reader.access_token(grant.creator_id)


def test_doctor_refuses_a_readers_keyring_in_the_daemons_settings(new_world: NewWorld, keyring: Keyring) -> None:
    """It opens every stored access token, and no worker starts with it."""
    world = new_world()
    world.creator()
    finding = checks.keyring(world.another(KEYRING=keyring.reader(world.services.app_id).to_json()))

    assert (finding.state, finding.detail) == ("fail", FOR_READERS)


def test_importing_and_reading_load_little(new_world: NewWorld, keyring: Keyring, tmp_path: Path) -> None:
    """A neighbour gets neither Celery nor Alembic nor requests into its process, and the import itself is nothing."""
    world = new_world()
    grant = world.creator()
    script = (
        "import sys, time\nbegan = time.process_time()\nimport worker.tokens\nprint(time.process_time() - began)\n"
        "print(*sys.modules)\nworker.tokens.access_token(sys.argv[1])\nprint(*sys.modules)\n"
    )
    environ = reader_environ(world, keyring) | {"PATH": os.environ["PATH"]}
    said = subprocess.run(
        [sys.executable, "-c", script, grant.creator_id],
        env=environ, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    seconds, *lists = said.stdout.splitlines()
    imported, used = ({name.partition(".")[0] for name in line.split()} for line in lists)

    assert float(seconds) < 0.25
    assert not used & {"celery", "kombu", "alembic", "requests", "urllib3", "redis", "structlog", "prometheus_client"}
    assert not imported & {"sqlalchemy", "sqlmodel", "pydantic", "psycopg", "cryptography", "dotenv"}


def test_a_readers_keyring_opens_no_stored_refresh_token(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """Neither in its column, nor moved into one that readers open, of its own grant or of another."""
    world = new_world()
    one, other = world.creators(2)
    assert world.services.refresher.refresh(one.grant_id).kind == "refreshed"
    pairs = world.services.store.all_pairs(limit=10)
    assert len(pairs) == 3
    reader, app_id = reader_of(world, keyring), world.services.app_id
    stolen_keyring = Sealer(keyring.reader(app_id), app_id=app_id)
    moves = [(pair, "sealed_access", other) for pair in pairs if pair.grant_id == one.grant_id]
    moves += [(pair, "sealed_refresh", victim) for pair in pairs for victim in (one, other)]

    for pair, column, victim in moves:
        world.sql(
            f"UPDATE pairs SET sealed_access = (SELECT stolen.{column} FROM pairs stolen"  # noqa: S608 - words and numbers of our own
            f" WHERE stolen.grant_id = {pair.grant_id} AND stolen.generation = {pair.generation})"
            f" WHERE grant_id = {victim.grant_id}"
        )
        with pytest.raises(SealError, match="do not open"):
            reader.access_token(victim.creator_id)
    for pair in pairs:
        with pytest.raises(SealError, match="opens access tokens and nothing else"):
            stolen_keyring.open_refresh(pair.sealed, PairPlace(pair.creator_id, pair.consent, pair.generation))


@pytest.mark.as_owner
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_the_readers_role_reads_and_asks_and_does_nothing_else(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """`db roles` gives it what a reader needs: no refresh token, no other change; it may be kept from asking."""
    world = new_world()
    grant = world.creator()
    address = world.environ["EVERTOKEN_DATABASE_URL"]
    as_reader = make_url(address).set(username=READER_ROLE).render_as_string(hide_password=False)
    reader = reader_of(world, keyring, DATABASE_URL=as_reader)
    with psycopg.connect(address, autocommit=True) as owner:
        for kept in (
            "UPDATE (next_refresh_at) ON grants",
            "SELECT (app_id, reference, creator_id, paused_at) ON pauses",
        ):
            owner.execute(f"REVOKE {kept} FROM {READER_ROLE}".encode())
        assert reader.access_token(grant.creator_id)
        near_its_end(world, grant)
        with pytest.raises(ExpiredError, match=r"a refresh could not be asked for: .*lacks a right"):
            reader.access_token(grant.creator_id, min_validity=300)
        for statement in world.services.store.role_statements(
            worker=WORKER_ROLE, reader=READER_ROLE, dashboard=DASHBOARD_ROLE
        ):
            owner.execute(statement.encode())
    world.services.store.pause(creator_id=grant.creator_id)
    with pytest.raises(PausedError, match="is paused since"):
        reader.access_token(grant.creator_id, min_validity=300, wait_seconds=5)
    world.services.store.resume(creator_id=grant.creator_id)
    with at_work(world):
        assert reader.serve(grant.creator_id, min_validity=300).generation == 2
    with psycopg.connect(as_reader, autocommit=True) as thief:
        for forbidden in (
            "SELECT sealed_refresh FROM pairs", "SELECT * FROM snapshots", "SELECT * FROM sentinels",
            "UPDATE grants SET status = 'revoked'", "UPDATE pairs SET sealed_access = ''",
            "DELETE FROM grants", "INSERT INTO notices DEFAULT VALUES", "CREATE TABLE ours (id int)",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                thief.execute(forbidden.encode())


def test_the_readmes_lines_read_a_token(new_world: NewWorld, keyring: Keyring, tmp_path: Path) -> None:
    """What an application is told to write is run as it stands, with the settings that it is told to set."""
    world = new_world()
    grant = world.creator()
    lines = re.search(
        r"^    from worker\.tokens import .*?\n\n(?=\S)", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert lines is not None
    script = textwrap.dedent(lines[0]).replace("creator-id", grant.creator_id) + "print(token)\n"
    environ = reader_environ(world, keyring) | {"PATH": os.environ["PATH"]}

    done = server_for(environ).run(["-c", script], environ=environ, folder=tmp_path, text=None, seconds=60)

    pair = world.services.store.current_pair(grant.creator_id)
    place = PairPlace(grant.creator_id, pair.consent, pair.generation)
    assert done.stdout.strip() == world.services.sealer.open_access(pair.sealed, place).reveal()


@pytest.mark.slow_suite
@pytest.mark.timeout(240)
@pytest.mark.parametrize("processes", [5, pytest.param(50, marks=pytest.mark.night)])
def test_fifty_askers_in_several_processes_cause_one_refresh(
    new_world: NewWorld, keyring: Keyring, tmp_path: Path, processes: int
) -> None:
    """In the last minutes of a creator's token all of them get the new one, and TikTok is asked once."""
    world = new_world()
    grant = world.creator()
    near_its_end(world, grant)
    environ = reader_environ(world, keyring) | {"PATH": os.environ["PATH"]}
    with at_work(world):
        threads = 50 // processes
        script = ["-c", ASKERS.replace("CREATOR", grant.creator_id).replace("THREADS", str(threads))]
        with ThreadPoolExecutor(processes) as pool:
            run = functools.partial(server_for(environ).run, environ=environ, folder=tmp_path, text=None, seconds=90)
            askers = list(pool.map(run, [script] * processes))

    assert [asker.stdout.split() for asker in askers] == [["2"] * threads] * processes
    assert len(world.refreshes(grant)) == 1


def test_five_hundred_rejections_cause_one_refresh(new_world: NewWorld, reader_of: NewReader, keyring: Keyring) -> None:
    """While the refresh is under way and after it, reports of the old token change nothing."""
    world = new_world()
    grant = world.creator()
    plan_later(world, grant)
    reader = reader_of(world, keyring)
    refused = reader.serve(grant.creator_id)

    with at_work(world), ThreadPoolExecutor(20) as pool:
        reports = list(pool.map(lambda _: reader.report_rejected(grant.creator_id, refused.generation), range(500)))
        newer = reader.serve(grant.creator_id, newer_than=refused.generation, wait_seconds=30)
    assert reports.count(True) == 1
    assert not reader.report_rejected(grant.creator_id, refused.generation)
    assert newer.generation == refused.generation + 1
    assert len(world.refreshes(grant)) == 1
    near_its_end(world, grant, seconds=-5)
    assert not reader.report_rejected(grant.creator_id, refused.generation)
    assert world.services.store.due_count() == 0


def test_a_reader_that_is_never_content_does_not_spend_the_quota(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """A pair that a refresh has just brought is not replaced on a reader's word; an older one is."""
    world = new_world()
    grant = world.creator()
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"
    reader = reader_of(world, keyring)
    life = (world.look(grant).access_expires_at - world.look(grant).issued_at).total_seconds()

    assert not reader.report_rejected(grant.creator_id, 2)
    wish: dict[str, Any]
    for wish in ({"newer_than": 2}, {"min_validity": life * 0.9999}):
        aged(world, grant, life * 0.001)
        with pytest.raises(ExpiredError) as caught:
            reader.serve(grant.creator_id, **wish)
        assert caught.value.retry_after > 60
    assert world.services.store.due_count() == 0
    aged(world, grant, life / 40)
    assert reader.report_rejected(grant.creator_id, 2)


def aged(world: World, grant: GrantView, seconds: float) -> None:
    """Let the grant's pair be older by some seconds."""
    world.sql(
        f"UPDATE grants SET issued_at = issued_at - {seconds * 1000:.0f},"  # noqa: S608 - numbers of our own
        f" access_expires_at = access_expires_at - {seconds * 1000:.0f} WHERE id = {grant.grant_id}"
    )


def test_a_reader_waits_for_a_refresh_that_is_under_way(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """A lease is joined, whatever is planned; a failed refresh is waited for only if it is tried again in time."""
    world = new_world()
    grant = world.creator()
    near_its_end(world, grant)
    reader = reader_of(world, keyring)
    now = int(world.services.store.ping().timestamp() * 1000)
    world.sql(f"UPDATE grants SET lease_owner = 'w', lease_until = {now + 60_000} WHERE id = {grant.grant_id}")  # noqa: S608 - as above
    with pytest.raises(ExpiredError):
        reader.serve(grant.creator_id, min_validity=300, wait_seconds=0.2)
    assert world.look(grant).next_refresh_at.year > 2090

    world.sql(
        f"UPDATE grants SET lease_owner = NULL, lease_until = NULL, failures = 2, next_refresh_at = {now + HOUR_MS}"  # noqa: S608 - as above
        f" WHERE id = {grant.grant_id}"
    )
    began = time.monotonic()
    with pytest.raises(ExpiredError) as caught:
        reader.serve(grant.creator_id, min_validity=300, wait_seconds=60)
    assert time.monotonic() < began + 30, "nothing comes within the minute, and that is known at once"
    assert 3000 < caught.value.retry_after <= 3600
    assert world.look(grant).next_refresh_at.timestamp() * 1000 == now + HOUR_MS


def test_a_reader_goes_on_while_everything_else_is_away(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring
) -> None:
    """No worker, no Redis, no TikTok: the token is served until it ends, and then the wish waits in the database."""
    world = new_world()
    grant = world.creator()
    plan_later(world, grant)
    reader = reader_of(world, keyring)

    assert reader.access_token(grant.creator_id, min_validity=60)
    near_its_end(world, grant, seconds=-5)
    with pytest.raises(ExpiredError, match=r"ended [5-9] s ago"):
        reader.access_token(grant.creator_id, wait_seconds=0.3)
    assert world.services.store.due_count() == 1


@pytest.mark.as_owner
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("UPDATE grants SET status = 'revoked'", RevokedError),
        ("UPDATE grants SET status = 'needs_reauth', access_expires_at = issued_at", ReauthNeededError),
        ("UPDATE grants SET belongs_to = 'somebody-else'", HeldError),
        ("DELETE FROM pairs", LostError),
        ("UPDATE pairs SET wiped_at = stored_at, sealed_access = NULL, sealed_refresh = NULL", LostError),
        ("UPDATE grants SET creator_id = 'renamed'", UnknownCreatorError),
        ("UPDATE grants SET app_id = 'another'", UnknownCreatorError),
        ("UPDATE pairs SET sealed_access = sealed_refresh", SealError),
        ("DROP TABLE pairs", StoreRefusedError),
    ],
)
def test_each_reason_for_no_token_has_an_error_of_its_own(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring, spoil: str, error: type[Exception]
) -> None:
    """Reading and reporting say the same, at once, and neither asks for a refresh that helps no more."""
    world = new_world()
    grant = world.creator()
    plan_later(world, grant)
    reader = reader_of(world, keyring)
    world.sql(spoil)

    with pytest.raises(error) as caught:
        reader.access_token(grant.creator_id)
    assert type(caught.value) is error
    if error is not SealError:
        with pytest.raises(error):
            reader.report_rejected(grant.creator_id, 1)


def test_a_missing_key_and_a_missing_database_have_errors_of_their_own(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring, tmp_path: Path
) -> None:
    """The one names the key's id, the other the place."""
    world = new_world()
    grant = world.creator()
    other = Keyring(active=7, keys={7: os.urandom(32)}, fingerprint_key=os.urandom(32))

    with pytest.raises(KeyMissingError, match="lacks key 1"):
        reader_of(world, other).access_token(grant.creator_id)
    away = reader_of(world, keyring, DATABASE_URL=f"sqlite:///{tmp_path}/gone.db")
    with pytest.raises(StoreUnavailableError, match=r"no file .*gone\.db"):
        away.access_token(grant.creator_id)


@pytest.mark.parametrize("asked", [float("nan"), float("inf"), -1, 1e300, 2 * 86400])
def test_an_absurd_validity_is_refused(
    new_world: NewWorld, reader_of: NewReader, keyring: Keyring, asked: float
) -> None:
    """What no token ever has is the asker's mistake, and causes no refresh."""
    world = new_world()
    grant = world.creator()
    assert world.services.refresher.refresh(grant.grant_id).kind == "refreshed"

    with pytest.raises(ValidityError):
        reader_of(world, keyring).access_token(grant.creator_id, min_validity=asked)
    assert world.services.store.due_count() == 0


def test_a_generation_that_has_not_come_is_refused(new_world: NewWorld, reader_of: NewReader, keyring: Keyring) -> None:
    """A report of a token that was never handed out must not cause a refresh."""
    world = new_world()
    grant = world.creator()
    reader = reader_of(world, keyring)
    calls: list[Callable[[], Any]] = [
        lambda: reader.report_rejected(grant.creator_id, 2),
        lambda: reader.serve(grant.creator_id, newer_than=2),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="has generation 1, and 2 has not come yet"):
            call()
