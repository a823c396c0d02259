"""What deciding costs at a million creators: one due time, one plan, one outage, and one minute of the simulation.

Run it from the project's root: `python -m benchmarks.planner [--creators 1000000] [--minutes 1440]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from rich.console import Console
from rich.table import Table

from worker.planning.capacity import DAY, Crowd, Load, plan
from worker.planning.outage import after_outage
from worker.planning.scenarios import SCENARIOS
from worker.planning.simulation import simulate
from worker.policy import renewal


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--creators", type=int, default=1_000_000, help="fleet that is simulated")
    parser.add_argument("--minutes", type=int, default=1440, help="virtual minutes that are simulated")
    arguments = parser.parse_args()
    load = Load((Crowd(arguments.creators, DAY),), 2 / 3)
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    table = Table("decision", "cost", title=f"{arguments.creators:,} creators")
    table.add_row("one due time", _each(lambda: _due(issued)))
    table.add_row("one plan of the whole fleet", _each(lambda: plan(load, usable=47.0)))
    table.add_row("one outage of the whole fleet", _each(lambda: after_outage(load, usable=47.0, seconds=DAY / 2)))
    scenario = replace(SCENARIOS["mass-import"], creators=arguments.creators)
    begun = _seconds(lambda: simulate(replace(scenario, seconds=60.0)))
    took = _seconds(lambda: simulate(replace(scenario, seconds=60.0 * arguments.minutes)))
    table.add_row("importing the fleet into the simulation", f"{begun:.1f} s")
    table.add_row("one minute of the simulation", f"{1000 * (took - begun) / arguments.minutes:.2f} ms")
    Console(width=100).print(table)


def _due(issued: datetime) -> renewal.Decision:
    return renewal.next_refresh(issued_at=issued, expires_at=issued + timedelta(days=1), renew_at=2 / 3, jitter=0.3)


def _each(decide: Callable[[], object], times: int = 5000) -> str:
    best = min(_seconds(lambda: [decide() for _ in range(times)]) for _ in range(3))
    return f"{1e6 * best / times:.1f} µs"


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
