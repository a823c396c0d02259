"""What one permit costs: microseconds and round trips to Redis, given, denied, and while Redis is away.

Run it from the project's root: `python -m benchmarks.permit [--takes 5000]`. A server of its own answers on a Unix
socket or on loopback; round trips and processor time come from its own counters. It exits 1 if a permit takes
more than one round trip.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from worker.limiter import Limiter
from worker.sandbox.broker import answers, connect, plan_broker

UNBOUND: Final = 1_000_000.0
TIGHT: Final = 1.0
"""Permits a second."""
SPARE_ROUND_TRIPS: Final = 0.01
"""Of each take: connecting, loading the script, and permits that were late on this machine."""


def main() -> int:
    """Measure, print the table, and return 1 if a permit takes more than one round trip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--takes", type=int, default=5000, help="how many permits are asked for in each row")
    takes = parser.parse_args().takes
    table = Table(title=f"One permit, {takes:,} takes by one process")
    for heading in ("what is asked", "median us", "99 % us", "round trips", "Redis's processor us"):
        table.add_column(heading, justify="left" if heading == "what is asked" else "right")
    most = 0.0
    with TemporaryDirectory() as folder:
        plan = plan_broker(Path(folder))
        server = subprocess.Popen(plan.command, stdout=subprocess.DEVNULL)
        try:
            while not answers(plan.url):
                time.sleep(0.02)
            rows: tuple[tuple[str, float, Callable[[int], str]], ...] = (
                ("given, every account its own", UNBOUND, str),
                ("given, few accounts", UNBOUND, lambda number: str(number % 200)),
                ("denied", TIGHT, str),
            )
            for name, per_second, account in rows:
                figures = _measure(plan.url, per_second, account, takes)
                most = max(most, figures[2])
                table.add_row(name, *(f"{figure:,.2f}" if figure < 10 else f"{figure:,.0f}" for figure in figures))
        finally:
            server.kill()
            server.wait()
        away = _time(_limiter(plan.url, UNBOUND), takes, str)
        table.add_row("Redis away", f"{away[0]:,.0f}", f"{away[1]:,.0f}", "0.00", "-")
    Console(width=110).print(table)
    return int(most > 1 + SPARE_ROUND_TRIPS)


def _measure(
    url: str, per_second: float, account: Callable[[int], str], takes: int
) -> tuple[float, float, float, float]:
    limiter = _limiter(url, per_second)
    with connect(url) as client:
        client.flushall()
        limiter.take(lane="refresh", call="call", account="first")
        before: Any = client.info()
        median, late = _time(limiter, takes, account)
        after: Any = client.info()
    limiter.close()
    # What the scripts themselves call is counted as well, so the clients' packets are counted instead.
    trips = (after["total_reads_processed"] - before["total_reads_processed"] - 1) / takes
    spent = sum(after[name] - before[name] for name in ("used_cpu_sys", "used_cpu_user"))
    return median, late, trips, 1e6 * spent / takes


def _limiter(url: str, per_second: float) -> Limiter:
    return Limiter(
        url, app_id="sandbox-app", per_second=per_second, per_minute=60 * per_second, per_account_minute=1_000_000
    )


def _time(limiter: Limiter, takes: int, account: Callable[[int], str]) -> tuple[float, float]:
    """Return the median and the 99th percentile of a take, in microseconds."""
    spent = []
    for number in range(takes):
        began = time.perf_counter()
        limiter.take(lane="refresh", call="call", account=account(number))
        spent.append(1e6 * (time.perf_counter() - began))
    return statistics.median(spent), statistics.quantiles(spent, n=100)[98]


if __name__ == "__main__":
    sys.exit(main())
