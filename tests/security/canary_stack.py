"""The real stack at DEBUG, every secret of it a canary, and everything that it writes, says and sends."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis

from tests.security.canary_places import Events, Monitor, Place, Trace, database, files, processes, redis_files
from tests.security.canary_secrets import Secrets
from tests.support.daemon import Daemon, daemon_settings
from tests.support.rabbit import Rabbit
from tests.support.small_accounts import small_sandbox
from worker.journal import Journal
from worker.sandbox.children import Child
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.store import open_store
from worker.vault import PairPlace, Sealer

LIFE_SECONDS: Final = 15
DEADLINE_SECONDS: Final = 1.5
FLOWER_USER: Final = "operator"
SECRET_SETTINGS: Final = (
    "DATABASE_URL", "REDIS_URL", "KEYRING", "TIKTOK_APP_SECRET", "TIKTOK_APP_SECRET_NEXT", "NOTICE_SECRET",
)  # fmt: skip


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


class CanaryStack:
    """Starts the stack, and gives what it leaves behind; a context that ends it.

    Attributes:
        secrets: what must be nowhere.
        sandbox: the stand-in for TikTok.
        home: where the daemon's processes run.
        flower_url: where Flower listens.
        metrics_url: where the worker that refreshes shows its metrics.
        events: the events so far, in Redis or RabbitMQ, with every message of the latter.
        rabbit: what carries the messages; None if Redis does.
        monitor: the commands that Redis was given so far.
        notices: what was posted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store_url: str,
        redis_server: Any,
        rabbit: Rabbit | None = None,
        free_ports: Callable[[], int],
        wait_until: Callable[..., None],
    ) -> None:
        """Prepare one; nothing runs yet.

        Args:
            folder: an empty folder.
            store_url: a migrated database; a PostgreSQL without passwords takes any.
            redis_server: a Redis of this rehearsal alone.
            rabbit: a RabbitMQ of this rehearsal alone, if it is to carry the messages.
            free_ports: gives ports.
            wait_until: waits for a condition.
        """
        self.secrets = Secrets()
        self.store_url = store_url.replace("postgres@", f"postgres:{self.secrets.database}@")
        self.home = folder / "home"
        self._records = folder / "records"
        self._redis = redis_server
        self.rabbit = rabbit
        self._ports = free_ports
        self.wait_until = wait_until
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
        heard = self._records / "events"
        self.events: Events | Trace
        if self.rabbit is None:
            self.events = self._stack.enter_context(Events(self.redis_url, heard))
        else:
            self.rabbit.change_password(known.rabbitmq)
            self.events = self._stack.enter_context(Trace(self.rabbit, heard))
        self.notices = self._stack.enter_context(Notices())
        options = SandboxOptions(
            canary=known.issued, app_secret=known.app, rotation="grace", expires_in=LIFE_SECONDS, ledger_all=True
        )
        self.sandbox: RunningSandbox = self._stack.enter_context(small_sandbox(options))
        self.daemon = self._stack.enter_context(Daemon(self.home, self._settings(), warm_commands=True))
        self.daemon.environ["FLOWER_BASIC_AUTH_FILE"] = self._secret_file("flower", f"{FLOWER_USER}:{known.flower}")
        self.daemon.environ["FLOWER_COOKIE_SECRET"] = known.cookies
        self.metrics_port = str(self._ports())
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
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
        if self.rabbit is not None:
            settings["EVERTOKEN_BROKER_URL"] = self.rabbit.url
        for name in SECRET_SETTINGS if self.rabbit is None else (*SECRET_SETTINGS, "BROKER_URL"):
            settings[f"EVERTOKEN_{name}_FILE"] = self._secret_file(name, settings.pop(f"EVERTOKEN_{name}"))
        return settings

    def _secret_file(self, name: str, text: str) -> str:
        path = self._secret_files / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def start(self) -> None:
        """Start two workers, beat and Flower as a deployment does."""
        self.refresher = self.worker("refresh", queues="refresh", METRICS_PORT=self.metrics_port)
        self.puller = self.worker("pull", queues="pull,default")
        self.beat = self.daemon.beat()
        port = self.flower_url.rpartition(":")[2]
        self.flower = self.daemon._start("flower", "flower", f"--port={port}", "--logging=debug")
        self.daemon.wait_ready(self.wait_until, self.refresher, self.puller, self.beat)
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

    def logged(self, text: bytes) -> bool:
        """Return whether a text stands in the log of a process."""
        return any(text in path.read_bytes() for path in (self.home / "logs").iterdir())

    def worker_names(self) -> list[str]:
        """Return the names of the workers that run, as Flower knows them."""
        return [f"{child.name}@test" for child in (self.refresher, self.puller)]

    def end(self) -> None:
        """End the daemon in good order."""
        self.daemon.stop(self.beat, self.refresher, self.puller, self.flower)

    def opened_pairs(self) -> list[str]:
        """Return every stored token, opened with the keyring."""
        store, sealer = (
            open_store(self.store_url, app_id=self.sandbox.options.app_id),
            Sealer(self.secrets.keyring, app_id=self.sandbox.options.app_id),
        )
        try:
            tokens = []
            for pair in store.all_pairs(limit=100_000):
                place = PairPlace(pair.creator_id, pair.consent, pair.generation)
                tokens += [sealer.open_access(pair.sealed, place), sealer.open_refresh(pair.sealed, place)]
            return [token.reveal() for token in tokens]
        finally:
            store.close()

    def opened_journal(self) -> list[bytes]:
        """Return the bodies of the answers that wait in the journal of dead workers, opened with the keyring."""
        copy = self._secret_files / "journal-copy"
        shutil.copytree(self.home / "journal", copy)
        copy.chmod(0o700)
        journal = Journal(copy, Sealer(self.secrets.keyring), owner="scan")
        try:
            return [orphan.entry.body for orphan in journal.orphans()]
        finally:
            journal.close()

    def places(self) -> Iterator[Place]:
        """Yield all that the stack has written, sent, shown and said so far, pages excepted."""
        yield from files(self.home / "logs", "the log")
        yield from files(self.home / "journal", "the journal's file")
        yield from files(self.home / "run", "the run folder's file")
        yield from files(self._records, "the record of")
        yield from database(self.store_url)
        yield from redis_files(self.redis_url, self._redis.folder)
        if self.rabbit is not None:
            yield from files(self.rabbit.folder / "data", "RabbitMQ's data")
            yield from (
                (f"RabbitMQ's log {path.parent.name}", path.read_bytes())
                for path in self.rabbit.folder.glob("run*/log")
            )
        yield from self._printed
        yield from self._pids
        yield "the notices", b"\n".join(self.notices.received)
