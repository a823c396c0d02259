"""A rehearsal with canaries: the real stack at DEBUG, every secret a canary, every fault on, and all that it leaves."""

from __future__ import annotations

import http.server
import json
import os
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import redis

from tests.faults.databases import refuse_pairs, take_pairs, writes_held
from tests.security import canary_faults
from tests.security.canary import Canary
from tests.security.canary_places import Events, Monitor, Place, database, files, processes, redis_files
from tests.support.daemon import PROJECT, Daemon, daemon_settings
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.store import open_store
from worker.vault import Journal, Keyring, PairPlace, Sealer

LIFE_SECONDS: Final = 15
DEADLINE_SECONDS: Final = 1.5
HEALTHY: Final = 12
STRIKE_SECONDS: Final = 120.0
FLOWER_USER: Final = "operator"
SECRET_SETTINGS: Final = (
    "DATABASE_URL", "REDIS_URL", "KEYRING", "TIKTOK_APP_SECRET", "TIKTOK_APP_SECRET_NEXT", "NOTICE_SECRET",
)  # fmt: skip
TAIL_OF_TOKENS: Final = "!4821.va"
"""How every token and code of the sandbox ends, so that half a token is found as well."""


def _bad_lines(secret: str) -> str:
    """Return lines for an import that cannot be taken, each with a secret in another place."""
    pair = {"creator_id": "someone", "access_token": f"act.{secret}", "refresh_token": f"rft.{secret}"}
    changes: list[dict[str, Any]] = [
        {"creator_id": secret + " x"}, {"creator_id": f"act.{secret}"}, {"access_token": [secret]},
        {"refresh_token": {"a": secret}}, {"refresh_token": f"{secret}\u00e9"}, {"expires_in": secret},
        {"issued_at": secret}, {"expires_at": f"2026-{secret}"}, {"scope": {"a": secret}}, {"scope": f"rft.{secret}"},
    ]  # fmt: skip
    lines = [json.dumps(pair | change) for change in changes]
    return "\n".join([*lines, json.dumps(pair)[:-8], f'["{secret}"]', f"act.{secret}"])


def _foreign_lines(secret: str) -> str:
    """Return lines of creators whose tokens have no known beginning, and which TikTok does not know."""
    pairs = [(f"foreign-{number}", f"{secret}A{number}", f"{secret}R{number}") for number in range(4)]
    return "\n".join(
        json.dumps({"open_id": creator, "access_token": access, "refresh_token": refresh, "expires_in": LIFE_SECONDS})
        for creator, access, refresh in pairs
    )


def marker(name: str) -> str:
    """Return a text that stands nowhere else, with letters of both cases and digits."""
    return f"{name}Canary{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Secrets:
    """Every secret of one rehearsal; none of them is printed."""

    issued: str = field(default_factory=lambda: marker("issued"), repr=False)
    spoken: str = field(default_factory=lambda: marker("spoken"), repr=False)
    imported: str = field(default_factory=lambda: marker("imported"), repr=False)
    typed: str = field(default_factory=lambda: marker("typed"), repr=False)
    app: str = field(default_factory=lambda: marker("app"), repr=False)
    next_app: str = field(default_factory=lambda: marker("nextapp"), repr=False)
    redis: str = field(default_factory=lambda: marker("redis"), repr=False)
    database: str = field(default_factory=lambda: marker("database"), repr=False)
    flower: str = field(default_factory=lambda: marker("flower"), repr=False)
    cookies: str = field(default_factory=lambda: marker("cookies"), repr=False)
    notice: str = field(default_factory=lambda: marker("notice"), repr=False)
    keyring: Keyring = field(default_factory=Keyring.new, repr=False)

    def canaries(self) -> list[Canary]:
        """Return what is looked for; each name says whose secret it is."""
        names = {
            "a token or code of TikTok": self.issued,
            "the end of a token or code of TikTok": TAIL_OF_TOKENS,
            "a token without a known beginning, or a body of TikTok": self.spoken,
            "an imported token": self.imported,
            "a secret that was typed into the wrong place": self.typed,
            "the app's secret": self.app,
            "the app's next secret": self.next_app,
            "Redis's password": self.redis,
            "the database's password": self.database,
            "Flower's password": self.flower,
            "the key of Flower's cookies": self.cookies,
            "the key of notices": self.notice,
        }
        keys = {f"sealing key {number}": key for number, key in self.keyring.keys.items()}
        keys["the key of fingerprints"] = self.keyring.fingerprint_key
        texts = [Canary(name, text.encode()) for name, text in names.items()]
        return texts + [Canary(name, key) for name, key in keys.items()]


class Notices:
    """Receives what the daemon posts, and keeps it as it came; the first one is turned away."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(bytes(self.headers) + body)
                self.send_response(500 if len(received) == 1 else 204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/notices"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Rehearsal:
    """Starts the stack, lets everything happen to it, and gives what it left behind.

    Attributes:
        secrets: what must be nowhere.
        sandbox: the stand-in for TikTok.
        flower_url: where Flower listens.
        events: the events so far.
        monitor: the commands that Redis was given so far.
        notices: what was posted.
        in_the_journal: bodies of answers that a killed worker left in its journal, opened with the keyring.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store_url: str,
        redis_server: Any,
        free_ports: Callable[[], int],
        wait_until: Callable[..., None],
    ) -> None:
        """Prepare one; nothing runs yet.

        Args:
            folder: an empty folder.
            store_url: a migrated database; a PostgreSQL without passwords takes any.
            redis_server: a Redis of this rehearsal alone.
            free_ports: gives ports.
            wait_until: waits for a condition.
        """
        self.secrets = Secrets()
        self.in_the_journal: list[bytes] = []
        self.store_url = store_url.replace("postgres@", f"postgres:{self.secrets.database}@")
        self.home = folder / "home"
        self._records = folder / "records"
        self._redis = redis_server
        self._ports = free_ports
        self._wait_until = wait_until
        self._printed: list[Place] = []
        self._pids: list[Place] = []
        self._stack = ExitStack()
        for each in (self.home, self._records, folder / "secrets"):
            each.mkdir(mode=0o700)
        self._secret_files = folder / "secrets"

    def __enter__(self) -> Self:
        try:
            self._start_ground()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_ground(self) -> None:
        known = self.secrets
        with redis.Redis.from_url(self._redis.url) as client:
            client.config_set("requirepass", known.redis)
        self.redis_url = self._redis.url.replace("redis://", f"redis://:{known.redis}@")
        self.monitor = self._stack.enter_context(Monitor(self.redis_url, self._records / "monitor"))
        self.events = self._stack.enter_context(Events(self.redis_url, self._records / "events"))
        self.notices = self._stack.enter_context(Notices())
        options = SandboxOptions(
            canary=known.issued, app_secret=known.app, rotation="grace", expires_in=LIFE_SECONDS, ledger_all=True
        )
        self.sandbox: RunningSandbox = self._stack.enter_context(start_sandbox(options))
        self.daemon = self._stack.enter_context(Daemon(self.home, self._settings()))
        self.daemon.environ["FLOWER_BASIC_AUTH_FILE"] = self._secret_file("flower", f"{FLOWER_USER}:{known.flower}")
        self.daemon.environ["FLOWER_COOKIE_SECRET"] = known.cookies
        self.metrics_url = f"http://127.0.0.1:{self._ports()}"
        self.flower_url = f"http://127.0.0.1:{self._ports()}"

    def _settings(self) -> dict[str, str]:
        """Return the daemon's settings, with every secret in a file as in production."""
        known = self.secrets
        settings = daemon_settings(
            self.sandbox,
            self.home,
            DATABASE_URL=self.store_url,
            REDIS_URL=self.redis_url,
            KEYRING=known.keyring.to_json(),
            TIKTOK_APP_SECRET_NEXT=known.next_app,
            NOTICE_URL=self.notices.url,
            NOTICE_SECRET=known.notice,
            LOG_LEVEL="DEBUG",
            SCAN_SECONDS="1",
            UPKEEP_SECONDS="1",
            CONNECT_SECONDS="1",
            DEADLINE_SECONDS=str(DEADLINE_SECONDS),
            LEASE_SECONDS="10",
        )
        for name in SECRET_SETTINGS:
            settings[f"EVERTOKEN_{name}_FILE"] = self._secret_file(name, settings.pop(f"EVERTOKEN_{name}"))
        return settings

    def _secret_file(self, name: str, text: str) -> str:
        path = self._secret_files / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def start(self) -> None:
        """Start two workers, beat and Flower as a deployment does."""
        self.refresher = self.worker("refresh", queues="refresh", METRICS_PORT=self.metrics_url.rpartition(":")[2])
        self.puller = self.worker("pull", queues="pull,default")
        self.beat = self.daemon.beat()
        port = self.flower_url.rpartition(":")[2]
        conf = PROJECT / "deploy" / "flowerconfig.py"
        self.flower = self.daemon._start("flower", "flower", f"--conf={conf}", f"--port={port}", "--logging=debug")
        self.daemon.wait_ready(self._wait_until, self.refresher, self.puller, self.beat)
        self._pids += processes([each.pid for each in (self.refresher, self.puller, self.beat, self.flower)])

    def worker(self, name: str, *, queues: str, **settings: str) -> Child:
        """Start a worker with settings of its own at DEBUG, given as an option too."""
        mine = {f"EVERTOKEN_{setting}": value for setting, value in settings.items()}
        before = dict(self.daemon.environ)
        self.daemon.environ.update(mine)
        try:
            return self.daemon.worker(name, "--loglevel", "DEBUG", queues=queues)
        finally:
            self.daemon.environ.clear()
            self.daemon.environ.update(before)

    def command(self, *arguments: str, text: str | None = None, exits: int | None = None, **settings: str) -> str:
        """Run a command; what it prints is scanned. Returns its standard output."""
        done = self.daemon.run(*arguments, text=text, **settings)
        name = f"what `{' '.join(arguments[:2])}` printed, run {len(self._printed)}"
        self._printed.append((name, (done.stdout + done.stderr).encode("utf-8", "surrogatepass")))
        if exits is not None:
            assert done.returncode == exits, f"{name}: status {done.returncode}"
        return done.stdout

    def mistake(self) -> None:
        """Make every mistake of an operator with secrets: in settings, in files, and in a command's wrong place."""
        typed, port = self.secrets.typed, urlsplit(self.redis_url).port
        self.command("doctor", "--offline", REDIS_URL=f"redis://:{typed}@127.0.0.1:{port}/0", exits=1)
        self.command("db", "check", DATABASE_URL=f"postgresql://u:{typed}@127.0.0.1:1/x", exits=1)
        wrong = {"REDIS_URL": f"redis://:{typed}/x@127.0.0.1:{port}/0", "LEASE_SECONDS": typed}
        self.command("worker", **wrong, exits=2)
        self.command("keys", "status", KEYRING=f'{{"active": 1, "keys": {{"1": "{typed}"}}}}', exits=2)
        self.command("grants", "show", f"act.{typed}", exits=1)
        landed = f"https://localhost/callback/?code={typed}&state={typed}"
        self.command("authorize", "exchange", "-", text=landed, exits=2)
        self.command("grants", "import", "-", text=f"act.{typed},rft.{typed},someone\n", exits=2)
        self.command("grants", "import", "-", "--json", text=_bad_lines(typed), exits=1)

    def import_creators(self, names: list[str]) -> None:
        """Let creators consent, and import their tokens as an operator does."""
        given = self.sandbox.grants(creators=names)
        self.command("grants", "import", "-", text="\n".join(map(json.dumps, given)), exits=0)

    def landing(self) -> Callable[[str], str]:
        """Return what tells where a creator's browser lands, with a code and a state of ours in the address."""
        link = json.loads(self.command("authorize", "url", "--json", exits=0))["url"]
        state = parse_qs(urlsplit(link).query)["state"][0]
        return lambda creator: self.sandbox.consent_url(creator, state=state)

    def strike_all(self) -> None:
        """Switch every fault on that concerns one creator, and wait until each has struck."""
        strikes = canary_faults.ordinary(self.secrets.spoken, DEADLINE_SECONDS)
        creators = canary_faults.switch_on(self.sandbox, strikes, "struck-")
        self.import_creators(
            [f"healthy-{number}" for number in range(HEALTHY)]
            + [name for call in ("refresh", "account", "revoke") for name in creators[call]]
        )
        self.command("grants", "import", "-", text=_foreign_lines(self.secrets.imported), exits=0)
        landing = self.landing()
        for creator in creators["token"]:
            self.command("authorize", "exchange", "-", "--json", text=landing(creator))
        spent = landing("spender")
        self.command("authorize", "exchange", "-", text=spent, exits=0)
        self.command("authorize", "exchange", "-", text=spent, exits=1)
        for creator in creators["revoke"]:
            self.command("grants", "revoke", creator, "--yes", exits=1)
            self.command("grants", "revoke", creator, "--yes", exits=0)
        self._wait_for_strikes()

    def strike_the_app(self) -> None:
        """Then the faults that concern the whole app: a spent quota first, then those that stop everyone."""
        for name, strikes in canary_faults.of_the_app(self.secrets.spoken).items():
            creators = canary_faults.switch_on(self.sandbox, strikes, f"{name}-")
            self.import_creators(creators["refresh"])
            self._wait_for_strikes()

    def _wait_for_strikes(self) -> None:
        self._wait_until(lambda: not canary_faults.still_on(self.sandbox), STRIKE_SECONDS)

    def crash(self) -> None:
        """Have workers die and crash at the worst moments, and another one find what they left."""
        self.daemon.stop(self.refresher)
        doomed = self.worker("doomed", queues="refresh", TEST_RUN="1", TEST_FAILPOINTS="post_fsync:kill@3")
        self._wait_until(lambda: doomed.status is not None, STRIKE_SECONDS)
        assert doomed.status == -signal.SIGKILL
        self.in_the_journal = self._opened_journal()
        clumsy = self.worker(
            "clumsy",
            queues="refresh",
            TEST_RUN="1",
            TEST_FAILPOINTS="pre_send:raise@2,post_recv:raise@3,pre_journal:raise@4,pre_commit:raise@5,post_commit:raise@6",
        )
        self._wait_until(lambda: clumsy.log.read_bytes().count(b'"task.crashed"') >= 4, STRIKE_SECONDS)
        os.kill(clumsy.pid, signal.SIGUSR1)
        self._wait_until(lambda: b"most recent call first" in clumsy.log.read_bytes())
        self.daemon.stop(clumsy)
        self.refresher = self.worker("refresh2", queues="refresh")
        self.daemon.wait_ready(self._wait_until, self.refresher)

    def _opened_journal(self) -> list[bytes]:
        copy = self._secret_files / "journal-copy"
        shutil.copytree(self.home / "journal", copy)
        copy.chmod(0o700)
        journal = Journal(copy, Sealer(self.secrets.keyring), owner="scan")
        try:
            return [orphan.entry.body for orphan in journal.orphans()]
        finally:
            journal.close()

    def break_the_database(self) -> None:
        """Have the database refuse one creator's pairs, and then everybody's for a while."""
        store = open_store(self.store_url)
        try:
            grant = store.grant("healthy-0")
            refuse_pairs(store, grant.grant_id)
            self._wait_until(lambda: self._logged(b"refresh.left_over"), STRIKE_SECONDS)
            take_pairs(store)
            with writes_held(self.store_url.replace("postgresql+psycopg", "postgresql")):
                self._wait_until(lambda: self._logged(b"StoreUnavailableError"), STRIKE_SECONDS)
        finally:
            store.close()

    def rotate_the_app_secret(self) -> None:
        """Have TikTok refuse the app's secret, and take the next one."""
        self.sandbox.control("app", {"secret": self.secrets.next_app})

    def _logged(self, text: bytes) -> bool:
        return any(text in path.read_bytes() for path in (self.home / "logs").iterdir())

    def worker_names(self) -> list[str]:
        """Return the names of the workers that run, as Flower knows them."""
        return [f"{child.name}@test" for child in (self.refresher, self.puller)]

    def end(self) -> None:
        """End the daemon in good order."""
        self.daemon.stop(self.beat, self.refresher, self.puller, self.flower)

    def look_around(self) -> None:
        """Have every command that tells something tell it, those of Celery included."""
        for command in (
            ("grants", "list", "--json"), ("grants", "show", "healthy-1"), ("doctor",), ("inspect", "conf"),
            ("grants", "explain", "struck-0-refresh-lost"), ("grants", "explain", "foreign-0", "--json"), ("report",),
        ):  # fmt: skip
            assert self.command(*command), f"{command} told nothing"
        token = self.daemon.run("grants", "token", "healthy-1").stdout
        assert self.secrets.issued in token, "the one command that is to print a token did not"

    def opened_pairs(self) -> list[str]:
        """Return every stored token, opened with the keyring."""
        store, sealer = open_store(self.store_url), Sealer(self.secrets.keyring)
        try:
            tokens = []
            for pair in store.all_pairs(limit=100_000):
                place = PairPlace(pair.creator_id, pair.consent, pair.generation)
                tokens += [sealer.open_access(pair.sealed, place), sealer.open_refresh(pair.sealed, place)]
            return [token.reveal() for token in tokens]
        finally:
            store.close()

    def places(self) -> Iterator[Place]:
        """Yield all that the stack has written, sent, shown and said so far, pages excepted."""
        yield from files(self.home / "logs", "the log")
        yield from files(self.home / "journal", "the journal's file")
        yield from files(self.home / "run", "the run folder's file")
        yield from files(self._records, "the record of")
        yield from database(self.store_url)
        yield from redis_files(self.redis_url, self._redis.folder)
        yield from self._printed
        yield from self._pids
        yield "the notices", b"\n".join(self.notices.received)
