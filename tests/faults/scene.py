"""A scene: one daemon's database, journal and Redis before one TikTok, with worker processes that come and go."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from tests.faults.aging import end_leases
from tests.faults.leaks import find_leaks
from tests.faults.oracle import Evidence, judge
from tests.faults.tape import Note, read_tape, received_pair
from tests.faults.workers import Nursery, Worker
from tests.support.world import World
from worker.journal import Journal
from worker.sandbox.process import RunningSandbox
from worker.store import GrantView, NewConsent
from worker.vault import Keyring, PairPlace, SealedPair, Sealer, Token

CANARY: Final = "KANARIENVOGEL"
APP_SECRET: Final = "sandbox-secret"
REAUTH: Final = "reauth_needed"
LEASE_SECONDS: Final = 1.6


def settings_of(
    sandbox: RunningSandbox, *, database_url: str, redis_url: str, keyring: Keyring, folder: Path
) -> dict[str, str]:
    """Return a worker's environment, with durations of tests; names without their prefix are added to it."""
    values = {
        "TIKTOK_APP_ID": "sandbox-app",
        "TIKTOK_APP_SECRET": APP_SECRET,
        "TIKTOK_REDIRECT_URI": "https://localhost/callback/",
        "TIKTOK_BASE_URL": sandbox.url,
        "TIKTOK_AUTHORIZE_URL": sandbox.authorize_url,
        "KEYRING": keyring.to_json(),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "JOURNAL_DIR": str(folder / "journal"),
        "RUN_DIR": str(folder / "run"),
        "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
        "DEADLINE_SECONDS": "0.5",
        "CONNECT_SECONDS": "0.5",
        "STORE_SECONDS": "0.5",
        "QUOTA_PER_SECOND": "1000",
        "QUOTA_PER_MINUTE": "60000",
        "QUOTA_PER_ACCOUNT_MINUTE": "1000",
    }
    return {f"EVERTOKEN_{name}": value for name, value in values.items()}


class Scene:
    """What a fault test plays in."""

    def __init__(self, sandbox: RunningSandbox, nursery: Nursery, environ: dict[str, str], folder: Path) -> None:
        self.sandbox = sandbox
        self.folder = folder
        self.environ = environ
        self.world = World(sandbox, environ)
        self.store = self.world.services.store
        self.sealer = self.world.services.sealer
        self.journal_dir = Path(environ["EVERTOKEN_JOURNAL_DIR"])
        self.tape_path = folder / "tape.jsonl"
        self.workers: list[Worker] = []
        self.revoked: set[str] = set()
        self.grants: list[GrantView] = []
        self._nursery = nursery
        (folder / "logs").mkdir(parents=True, exist_ok=True)

    def creators(self, count: int = 1, **how: Any) -> list[GrantView]:
        """Let creators consent; their grants are due at once."""
        self.grants += self.world.creators(count, **how)
        return self.grants[-count:]

    def creator(self, **how: Any) -> GrantView:
        """Let one creator consent."""
        return self.creators(1, **how)[0]

    def look(self, grant: GrantView) -> GrantView:
        """Return the grant as it is now."""
        return self.store.grant(grant.creator_id)

    def consent_again(self, grant: GrantView) -> Callable[[], object]:
        """Let a creator authorize once more, at TikTok, and return what stores the new consent here."""
        token = self.sandbox.grants(creators=[grant.creator_id], scope=grant.scope)[0]
        now = self.store.ping()

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            place = PairPlace(item.creator_id, consent, generation)
            return self.sealer.seal_pair(Token(token["access_token"]), Token(token["refresh_token"]), place)

        item = NewConsent(
            creator_id=grant.creator_id,
            scope=grant.scope,
            issued_at=now,
            access_expires_at=now + timedelta(seconds=token["expires_in"]),
            refresh_expires_at=None,
            next_refresh_at=now + timedelta(seconds=token["expires_in"] / 2),
            jitter=0.5,
        )
        return partial(self.store.save_consents, [item], seal, replace=True)

    def revoke(self, grant: GrantView) -> None:
        """Let a creator remove the app, at TikTok."""
        self.sandbox.revoke(grant.creator_id)
        self.revoked.add(grant.creator_id)

    def worker(self, *steps: Mapping[str, Any], at: str = "", log: str = "", **settings: str) -> Worker:
        """Start a worker on a job.

        Args:
            *steps: see `driver`.
            at: failpoints, such as `post_recv:kill`.
            log: where its output goes, if not to a file of its own.
            **settings: settings that differ, without their prefix.
        """
        environ = self.environ | {f"EVERTOKEN_{name}": value for name, value in settings.items()}
        if at:
            environ |= {"EVERTOKEN_TEST_RUN": "1", "EVERTOKEN_TEST_FAILPOINTS": at}
        job = {"tape": str(self.tape_path), "steps": [dict(step) for step in steps]}
        path = Path(log or self.folder / "logs" / f"worker-{len(self.workers)}.log")
        self.workers.append(self._nursery.hatch(job, environ, path))
        return self.workers[-1]

    def refresh(
        self, *grants: GrantView, at: str = "", force: bool = False, threads: int = 1, **settings: str
    ) -> Worker:
        """Start a worker that refreshes these grants once, and ends."""
        ids = [grant.grant_id for grant in grants]
        return self.worker({"do": "refresh", "ids": ids, "force": force, "threads": threads}, at=at, **settings)

    def kinds(self, worker: Worker) -> list[str]:
        """Return what became of each refresh of a worker that has ended."""
        worker.ended()
        return [note.kind for note in self.notes() if note.what == "done" and note.pid == worker.pid and note.grant_id]

    def wait_for(self, kind: str, seconds: float = 10.0) -> None:
        """Wait until a worker has reported a result of this kind."""
        ends_at = time.monotonic() + seconds
        while kind not in [note.kind for note in self.notes()]:
            assert time.monotonic() < ends_at, f"no worker came to {kind}"
            time.sleep(0.01)

    def end_leases(self) -> None:
        """Let every lease run out."""
        end_leases(self.store)

    def notes(self) -> list[Note]:
        """Return the tape."""
        return read_tape(self.tape_path)

    def sent(self) -> int:
        """Return how many refreshes the workers have sent."""
        return sum(note.what == "sent" for note in self.notes())

    def drain(self) -> None:
        """End every fault and every worker, let time pass, and let a fresh worker bring all grants to an end."""
        self.sandbox.heal()
        for worker in self.workers:
            if worker.status is None:
                worker.kill() if worker.is_stopped else worker.finish()
        self.healed_at = self.store.ping()
        self.flush_redis()
        drain = {"do": "drain", "since": self.healed_at.timestamp()}
        assert self.worker(drain).ended(60) == 0, self.workers[-1].said()[-2000:]

    def flush_redis(self) -> None:
        """Empty Redis; one that is away stays as it is."""
        with suppress(redis.RedisError), redis.Redis.from_url(self.environ["EVERTOKEN_REDIS_URL"]) as client:
            client.flushall()

    def evidence(self, *, per_second: int | None = None) -> Evidence:
        """Return what is known of the run, after `drain`."""
        grants = [self.look(grant) for grant in self.grants]
        names = {grant.creator_id for grant in grants}
        asked = Counter(
            (notice.grant_id or 0, int(notice.dedupe_key.rsplit(":", 1)[-1].partition(".")[0]))
            for notice in self.store.undelivered_notices()
            if notice.kind == REAUTH
        )
        return Evidence(
            entries=[entry for entry in self.sandbox.entries() if entry.creator in names],
            notes=self.notes(),
            stored=self.world.stored(),
            kept=self.kept(),
            grants=grants,
            attempts={grant.grant_id: self.store.attempts(grant.grant_id, 500) for grant in grants},
            asked=asked,
            away={worker.pid for worker in self.workers if worker.was_killed or worker.was_stopped},
            leaks=self.leaks(),
            healed_at=getattr(self, "healed_at", None),
            revoked=self.revoked,
            per_second=per_second,
        )

    def judge(self) -> dict[str, list[str]]:
        """Drain, and return what the oracle found."""
        self.drain()
        return judge(self.evidence())

    def kept(self) -> set[str]:
        """Return the pairs that lie in the journal, waiting or set aside, without touching it."""
        with tempfile.TemporaryDirectory() as beside:
            copy = Path(beside, "journal")
            copy.mkdir(mode=0o700)
            for path in self.journal_dir.rglob("*.segment"):
                shutil.copy2(path, copy / path.name)
            journal = Journal(copy, Sealer(self.sealer.keyring), owner="the oracle", floor_bytes=0)
            bodies = [received_pair(orphan.entry.body) for orphan in journal.orphans()]
            journal.close()
        return {pair for pair in bodies if pair is not None}

    def leaks(self) -> list[str]:
        """Return the places where tokens, codes or secrets stand in clear."""
        values = json.loads(self.sealer.keyring.to_json())["keys"].values()
        keys = [value.rpartition(":")[2] for value in values]
        return find_leaks(
            [CANARY, APP_SECRET, *keys],
            folders=[self.folder],
            store=self.store,
            redis_url=self.environ["EVERTOKEN_REDIS_URL"],
        )

    def close(self) -> None:
        """End the workers and close what was opened."""
        for worker in self.workers:
            if worker.status is None:
                worker.kill()
        self.world.close()
