"""Twelve hours of TikTok down, scaled: real workers, beat and PostgreSQL, with lives and outage shortened alike.

Run it from the project's root: `python -m benchmarks.outage [--scale 60] [--headroom 3]`. At the scale of 60 a token
lives 24 minutes in place of 24 hours, and every call is answered with HTTP 503 for 12 minutes. Limits, scan, brake and
back-off are not scaled: they are those of production, so the run is harder than the twelve hours would be. What comes
between the outage's end and the first whole scan after a probe's success is listed separately, therefore. It exits
1 if a creator was marked, if a token ended after that although the quota could have saved it, or if the backlog took
more than 5 % longer or shorter than the planner computes.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, text

from benchmarks.fleet import READY_SECONDS, STOP_SECONDS, database_of, fill, keep_logs, settings_of, start, wait_for
from benchmarks.quota import Server
from tests.support.daemon import plain_environ
from tests.support.small_accounts import small_sandbox
from worker.planning.capacity import Crowd, Load
from worker.planning.outage import after_outage
from worker.policy import quota
from worker.sandbox.children import Children
from worker.sandbox.ledger import LedgerEntry
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.store import FleetStatus
from worker.tiktok import REFRESH_CALL

DAY: Final = 86_400
OUTAGE: Final = 43_200
WORKERS: Final = 4
HEALTHY_PERIODS: Final = 1.05
"""So many mean times between two refreshes come before the outage: by then lives end as evenly as they always do."""
LOOK_SECONDS: Final = 0.5
TOLERANCE: Final = 0.05
GIVE_UP: Final = 3.0
"""So many times the computed time are waited for the end of the backlog."""


@dataclass(frozen=True)
class Seen:
    """What was seen of an outage.

    Attributes:
        seconds: how long it lasted.
        backlog: grants that were due at its end.
        ended: tokens that had ended by its end.
        first: seconds from its end until the first refresh that TikTok answered as it should; probes are not scaled.
        drained: seconds from then until no more were due than come between two scans.
        before: creators whose token ended unrefreshed between its end and the first whole scan after that.
        late: creators whose token ended unrefreshed later than that.
        fleet: the counts after it.
    """

    seconds: float
    backlog: int
    ended: int
    first: float
    drained: float
    before: int
    late: int
    fleet: FleetStatus


def main() -> int:
    """Run, print the figures, and return 1 if a promise is broken."""
    arguments = _arguments()
    life = DAY // arguments.scale
    usable = quota.usable_rate(per_second=arguments.qps, per_minute=arguments.qpm)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        options = SandboxOptions(
            ledger=str(folder / "ledger.jsonl"),
            ledger_all=True,
            expires_in=life,
            latency=0.15,
            quota_per_second=arguments.qps,
            quota_per_minute=arguments.qpm,
            quota_per_account_minute=40,
        )
        server = Server(folder)
        stack.callback(server.stop)
        sandbox = stack.enter_context(small_sandbox(options))
        database = database_of("postgresql", folder, stack)
        environ = plain_environ() | settings_of(sandbox, folder, server.url, database)
        services = build_services(load_settings(environ, dotenv=None))
        stack.callback(services.close)
        services.store.upgrade()
        renew_at = services.settings.renew_at
        load = Load((Crowd(round(usable / arguments.headroom * life * renew_at), life),), renew_at)
        fill(sandbox, services, load.creators, refreshes_a_minute=60 * load.refreshes)
        children = Children(folder / "logs")
        stack.callback(children.close, seconds=STOP_SECONDS)
        stack.callback(keep_logs, folder / "logs", arguments.logs)
        workers = [start(children, f"w{n}", environ, folder, "worker", "-n", f"w{n}@fleet") for n in range(WORKERS)]
        wait_for(lambda: all(b" ready." in each.log.read_bytes() for each in workers), READY_SECONDS, children)
        start(children, "beat", environ, folder, "beat")
        time.sleep(HEALTHY_PERIODS * life * renew_at)
        seen = _outage(sandbox, services, load, seconds=OUTAGE / arguments.scale, usable=usable)
        if arguments.arrivals:
            told = (f"{entry.time:.6f} {entry.code} {entry.call}\n" for entry in sandbox.entries())
            arguments.arrivals.write_text("".join(told), encoding="utf-8")
    return _report(seen, load, usable)


def _outage(sandbox: RunningSandbox, services: Services, load: Load, *, seconds: float, usable: float) -> Seen:
    """Take TikTok away and give it back; return what was seen."""
    began = time.time()
    sandbox.fault("status", status=503)
    time.sleep(max(0.0, began + seconds - time.time()))
    backlog, ended = services.store.due_count(), services.store.fleet_status().expired
    lives = services.store.transact(_lives, writes=False)
    sandbox.heal()
    healed = time.time()
    between_scans = load.refreshes * services.settings.scan_seconds
    give_up = healed + GIVE_UP * after_outage(load, usable=usable, seconds=seconds).drain
    while services.store.due_count() > between_scans and time.time() < give_up:
        time.sleep(LOOK_SECONDS)
    drained = time.time()
    refreshed = _first_refreshes(sandbox.entries(), since=healed)
    first = min(refreshed.values(), default=drained)
    at_work = first + services.settings.scan_seconds
    lost = [ends for creator, ends in lives.items() if healed < ends <= min(drained, refreshed.get(creator, drained))]
    late = sum(ends > at_work for ends in lost)
    fleet = services.store.fleet_status()
    return Seen(healed - began, backlog, ended, first - healed, drained - first, len(lost) - late, late, fleet)


def _lives(connection: Connection) -> dict[str, float]:
    """Return when each creator's access token ends, in seconds since 1970."""
    rows = connection.execute(text("SELECT creator_id, access_expires_at FROM grants"))
    return {creator: milliseconds / 1000 for creator, milliseconds in rows}


def _first_refreshes(entries: list[LedgerEntry], *, since: float) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in entries:
        if entry.creator is not None and entry.call == REFRESH_CALL and entry.code == 0 and entry.time >= since:
            found.setdefault(entry.creator, entry.time)
    return found


def _report(seen: Seen, load: Load, usable: float) -> int:
    cost = after_outage(load, usable=usable, seconds=seen.seconds)
    marked = seen.fleet.by_status["needs_reauth"] + seen.fleet.by_status["suspect"]
    rows = (
        ("creators", f"{load.creators:,}"),
        ("life of a token, outage", f"{load.crowds[0].life:,.0f} s, {seen.seconds:,.0f} s"),
        ("headroom of refreshes", f"{usable / load.refreshes:.2f}"),
        ("due at the end, computed", f"{seen.backlog:,}, {cost.backlog:,.0f}"),
        ("first refresh after its end", f"{seen.first:,.0f} s"),
        ("drained after that, computed", f"{seen.drained:,.0f} s, {cost.drain:,.0f} s"),
        ("the one against the other", f"{seen.drained / cost.drain:.1%}"),
        ("tokens that ended in the outage, computed", f"{seen.ended:,}, {cost.missed:,.0f}"),
        ("tokens that ended before the scan after that", f"{seen.before:,}"),
        ("tokens that ended later", f"{seen.late:,}"),
        ("creators marked", f"{marked:,}"),
    )
    table = Table("figure", "value", title=f"{WORKERS} Celery workers, TikTok away")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
    return int(bool(marked or seen.late) or abs(seen.drained / cost.drain - 1) > TOLERANCE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=60, help="how many times shorter lives and outage are")
    parser.add_argument("--headroom", type=float, default=3.0, help="how many times the refreshes fit into the quota")
    parser.add_argument("--qps", type=int, default=10, help="TikTok's limit a second")
    parser.add_argument("--qpm", type=int, default=600, help="TikTok's limit a minute")
    parser.add_argument("--arrivals", type=Path, help="file for time, code and call of every request")
    parser.add_argument("--logs", type=Path, help="folder for copies of the daemon's logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
