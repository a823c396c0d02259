"""The whole daemon at full demand: worker processes, beat, PostgreSQL, and TikTok's real limits.

Run it from the project's root: `python -m benchmarks.fleet [--minutes 10] [--restart-redis]`. Eight `celery -A worker
worker` and one beat, with their own defaults, serve a fleet in which `--refreshes` grants come due each minute and each
creator is due for a pull, so that the quota is short all the time. Accounts are small, so that the processor is not
short as well. The sandbox enforces TikTok's limits; its ledger records what arrived and when. `--restart-redis` kills
the Redis-protocol server in the middle and starts an empty one at the same address some seconds later. The sandbox
counts seconds of the clock; nobody knows whether TikTok does, so arrivals are counted by sliding seconds and minutes
too. It exits 1 on a refusal by either, and if less than 96 % of the permitted requests was used or the limiter was
asked more than 1.5 times for each, although Redis was left alone. Each worker greets Redis once a second as well, which
is counted separately.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from benchmarks.quota import SETTLE_SECONDS, Server, closest, most_within, refused_sliding
from tests.conftest import start_postgres
from tests.support.daemon import plain_environ
from tests.support.small_accounts import small_sandbox
from worker.consent.import_lines import Source
from worker.consent.importer import Importer, ImportReport
from worker.policy import quota
from worker.sandbox.broker import connect
from worker.sandbox.children import Child, Children
from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.tiktok import ACCOUNT_CALL, REFRESH_CALL
from worker.vault import Keyring

WORKERS: Final = 8
LEAST_USED: Final = 0.96
MOST_QUESTIONS: Final = 1.5
READY_SECONDS: Final = 120.0
FIRST_SECONDS: Final = 60.0
STOP_SECONDS: Final = 40.0
CONSENTS_AT_ONCE: Final = 500
SPARE_MINUTES: Final = 3
"""Creators for so much longer than the run, so that demand does not end before it."""
LOOK_SECONDS: Final = 0.2


def main() -> int:
    """Run, print the figures, and return 1 if a promise is broken."""
    arguments = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        options = SandboxOptions(
            ledger=str(folder / "ledger.jsonl"),
            ledger_all=True,
            latency=arguments.latency,
            quota_per_second=arguments.qps,
            quota_per_minute=arguments.qpm,
            quota_per_account_minute=40,
        )
        server = Server(folder)
        stack.callback(server.stop)
        sandbox = stack.enter_context(small_sandbox(options))
        database = database_of(arguments.database, folder, stack)
        environ = plain_environ() | settings_of(sandbox, folder, server.url, database)
        services = build_services(load_settings(environ, dotenv=None))
        stack.callback(services.close)
        services.store.upgrade()
        creators = math.ceil((arguments.minutes + SPARE_MINUTES) * arguments.qpm)
        fill(sandbox, services, creators, refreshes_a_minute=arguments.refreshes)
        change(services, "UPDATE grants SET next_pull_at = next_refresh_at - 86400000")
        began, away = _drive(stack, sandbox, server, environ=environ, folder=folder, arguments=arguments)
        entries = [entry for entry in sandbox.entries() if entry.time >= began and "control" not in entry.call]
        asked = _asked(server)
        refusals = {kind: count for kind, count in sandbox.stats()["quota"].items() if count}
    if arguments.arrivals:
        lines = "".join(f"{entry.time:.6f} {entry.code} {entry.call}\n" for entry in entries)
        arguments.arrivals.write_text(lines, encoding="utf-8")
    return _report(entries, refusals=refusals, away=away, creators=creators, asked=asked, arguments=arguments)


def _report(
    entries: Sequence[LedgerEntry],
    *,
    refusals: Mapping[str, int],
    away: float,
    creators: int,
    asked: tuple[int, int],
    arguments: argparse.Namespace,
) -> int:
    first = entries[0].time + SETTLE_SECONDS
    until = first + arguments.minutes * 60
    seen = [entry for entry in entries if first <= entry.time < until]
    arrivals = [entry.time for entry in seen if entry.code == 0]
    permitted = quota.sustained_rate(per_second=arguments.qps, per_minute=arguments.qpm) * arguments.minutes * 60
    used = len(arrivals) / permitted
    codes, calls = Counter(entry.code for entry in entries), Counter(entry.call for entry in seen)
    every = [sum(first + 60 * minute <= at < first + 60 * (minute + 1) for at in arrivals)
             for minute in range(math.floor(arguments.minutes))]  # fmt: skip
    sliding = [refused_sliding(arrivals, *each) for each in ((arguments.qps, 1.0), (arguments.qpm, 60.0))]
    rows = (
        ("creators", f"{creators:,}"),
        ("requests that arrived", f"{len(seen):,}"),
        ("of them refreshes and pulls", f"{calls[REFRESH_CALL]:,} and {calls[ACCOUNT_CALL]:,}"),
        ("answers by code", ", ".join(f"{code}: {count:,}" for code, count in sorted(codes.items()))),
        ("refused by the quota", json.dumps(refusals)),
        ("refused if TikTok counted sliding seconds, minutes", f"{sliding[0]}, {sliding[1]}"),
        ("share of the permitted requests used", f"{used:.2%}"),
        ("least and median in a minute", f"{min(every, default=0)} and {statistics.median(every or [0]):g}"),
        ("most in a sliding second", f"{most_within(arrivals, 1.0)} of {arguments.qps}"),
        ("most in a sliding minute", f"{most_within(arrivals, 60.0)} of {arguments.qpm}"),
        ("closest eleventh request (limit + 1)", f"{1000 * closest(arrivals, arguments.qps):.0f} ms"),
        ("questions to the limiter for each request", f"{asked[0] / len(entries):.2f}" if not away else "not counted"),
        ("greetings of the workers beside them", f"{asked[1]:,}" if not away else "not counted"),
        ("Redis away", f"{away:.1f} s" if away else "never"),
        ("processors, and processes that want them", f"{os.cpu_count()}, {os.getloadavg()[1]:.1f} in five minutes"),
    )
    table = Table("figure", "value", title=f"{WORKERS} Celery workers, {arguments.minutes:g} minutes")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    short = used < LEAST_USED or asked[0] > MOST_QUESTIONS * len(entries)
    return int(bool(refusals) or any(sliding) or (short and not away))


def database_of(kind: str, folder: Path, stack: ExitStack) -> str:
    """Return the address of an empty database, which goes with the stack."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'fleet.db'}"
    return str(stack.enter_context(start_postgres("max_connections=250")).url)


def settings_of(sandbox: RunningSandbox, folder: Path, redis_url: str, database: str) -> dict[str, str]:
    """Return the settings that have no default; all others keep theirs."""
    options = sandbox.options
    values = {
        "DATABASE_URL": database,
        "REDIS_URL": redis_url,
        "KEYRING": Keyring.new().to_json(),
        "JOURNAL_DIR": str(folder / "journal"),
        "RUN_DIR": str(folder / "run"),
        "TIKTOK_APP_ID": options.app_id,
        "TIKTOK_APP_SECRET": options.app_secret,
        "TIKTOK_REDIRECT_URI": options.redirect_uri,
        "TIKTOK_BASE_URL": sandbox.url,
        "TIKTOK_AUTHORIZE_URL": sandbox.authorize_url,
        "QUOTA_PER_SECOND": str(options.quota_per_second),
        "QUOTA_PER_MINUTE": str(options.quota_per_minute),
    }
    return {f"EVERTOKEN_{name}": value for name, value in values.items()}


def fill(sandbox: RunningSandbox, services: Services, creators: int, *, refreshes_a_minute: float) -> None:
    """Import a fleet whose refreshes come due at an even rate from now on."""
    importer = Importer(store=services.store, sealer=services.sealer, renew_at=services.settings.renew_at)
    for first in range(1, creators + 1, CONSENTS_AT_ONCE):
        given = sandbox.grants(min(CONSENTS_AT_ONCE, creators + 1 - first), first=first)
        lines = "\n".join(json.dumps(token) for token in given)
        report = ImportReport()
        importer.run(Source(io.BytesIO(lines.encode())), report=report)
        if report.bad:
            raise AssertionError(f"the sandbox's own tokens were refused: {report.counts}")
    now = int(services.store.ping().timestamp() * 1000)
    # As in a fleet that has been refreshed before: the owners of the pairs are not looked up.
    change(services, "UPDATE grants SET unproven_since = NULL, next_refresh_at = :now + CAST(id * :each AS bigint)",
           now=now, each=60_000 / refreshes_a_minute)  # fmt: skip


def change(services: Services, statement: str, **values: float) -> None:
    """Run a statement of our own on the store."""
    services.store.transact(lambda connection: connection.execute(text(statement), values).close(), writes=True)


def _asked(server: Server) -> tuple[int, int]:
    """Return how many questions for permits and how many greetings Redis has answered: only a greeting uses ZCARD."""
    with connect(server.url) as client:
        told: Any = client.info("commandstats")
    greetings = int(told["cmdstat_zcard"]["calls"])
    return int(told["cmdstat_evalsha"]["calls"]) - greetings, greetings


def _drive(
    stack: ExitStack,
    sandbox: RunningSandbox,
    server: Server,
    *,
    environ: Mapping[str, str],
    folder: Path,
    arguments: argparse.Namespace,
) -> tuple[float, float]:
    """Run the daemon for as long as was asked; return when it began, and for how long Redis was away."""
    children = Children(folder / "logs")
    stack.callback(children.close, seconds=STOP_SECONDS)
    stack.callback(keep_logs, folder / "logs", arguments.logs)
    names = [f"worker-{number}" for number in range(1, WORKERS + 1)]
    workers = [start(children, name, environ, folder, "worker", "-n", f"{name}@fleet") for name in names]
    wait_for(lambda: all(b" ready." in worker.log.read_bytes() for worker in workers), READY_SECONDS, children)
    began, lines = time.time(), sandbox.stats()["ledger_lines"]
    start(children, "beat", environ, folder, "beat")
    wait_for(lambda: sandbox.stats()["ledger_lines"] > lines, FIRST_SECONDS, children)
    seconds, away = arguments.minutes * 60 + SETTLE_SECONDS + 1, 0.0
    until = time.time() + seconds
    if arguments.restart_redis:
        time.sleep(seconds / 2)
        away = server.restart()
    while time.time() < until:
        assert not children.died(), [child.tail() for child in children.died()]
        time.sleep(LOOK_SECONDS)
    return began, away


def start(children: Children, name: str, environ: Mapping[str, str], folder: Path, *arguments: str) -> Child:
    """Start `celery -A worker ...` as a child."""
    command = [sys.executable, "-m", "celery", "-A", "worker", *arguments]
    return children.start(name, command, environ=environ, folder=folder)


def wait_for(ready: Callable[[], bool], seconds: float, children: Children) -> None:
    """Wait until `ready` returns True, while all children live."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "the daemon did not come up"
        assert not children.died(), [child.tail() for child in children.died()]
        time.sleep(LOOK_SECONDS)


def keep_logs(logs: Path, wanted: Path | None) -> None:
    """Copy the logs to the folder `wanted`, if it is given."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        for log in logs.iterdir():
            (wanted / log.name).write_bytes(log.read_bytes())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long")
    parser.add_argument("--qps", type=int, default=10, help="TikTok's limit a second")
    parser.add_argument("--qpm", type=int, default=600, help="TikTok's limit a minute")
    parser.add_argument("--refreshes", type=float, default=300, help="refreshes that come due in a minute")
    parser.add_argument("--latency", type=float, default=0.15, help="seconds the sandbox takes to answer")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql", help="which one")
    parser.add_argument("--restart-redis", action="store_true", help="kill Redis in the middle and start an empty one")
    parser.add_argument("--arrivals", type=Path, help="file for time, code and call of every request")
    parser.add_argument("--logs", type=Path, help="folder for copies of the daemon's logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
