"""The chaos run: random schedules of three faults each over real workers, judged by the oracle; exit 1 on a finding.

`python -m tests.faults.chaos --schedules N --seed S`; a schedule with a finding is played again alone by its own seed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults.lane import Lane, Tally
from tests.faults.oracle import CHECKS
from tests.faults.schedules import Schedule, draw

LANES: Final = 2
SAYS: Final = {
    "V1 lost": "lost pairs among those received",
    "V2 refreshed twice": "overlapping or repeated refreshes not already sent",
    "V3 leaked": "leaked canaries",
    "V4 stuck": "grants stuck",
    "V5 wrong creator": "pairs under another creator",
    "V6 over the limit": "requests over the quota",
    "V7 expired": "tokens expired though TikTok was well",
    "V8 open attempts": "attempts without an outcome",
    "V9 false alarm": "creators asked although their live pair is stored",
}
assert SAYS.keys() == CHECKS.keys()


def run(schedules: list[Schedule], *, lanes: int = LANES, progress: Progress | None = None) -> Tally:
    """Play schedules on several lanes at once and return what came of them."""
    total, left, lock = Tally(), iter(schedules), threading.Lock()
    task = None if progress is None else progress.add_task("schedules", total=len(schedules))
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            with Lane() as lane:
                for schedule in _shared(left, lock, failures):
                    tally = lane.play(schedule)
                    with lock:
                        total.add(tally)
                    if progress is not None and task is not None:
                        progress.advance(task)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=follow) for _ in range(min(lanes, len(schedules)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return total


def _shared(left: Iterator[Schedule], lock: threading.Lock, failures: list[BaseException]) -> Iterator[Schedule]:
    while not failures:
        with lock:
            schedule = next(left, None)
        if schedule is None:
            return
        yield schedule


def summary(total: Tally, seconds: float) -> Table:
    """Return the table for people."""
    table = Table(title=f"{total.schedules} schedules of three faults in {seconds:.0f} s")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for check, says in SAYS.items():
        number = total.found(check)
        table.add_row(says, f"[red]{number}[/]" if number else "0")
    table.add_section()
    table.add_row("refreshes sent", str(total.refreshes))
    table.add_row("pairs received", str(total.received))
    table.add_row("workers killed / stopped for a while", f"{total.killed} / {total.stopped}")
    table.add_row("pairs gone with a worker killed inside the window", str(total.windows))
    table.add_row("creators asked to authorize again, once each", str(total.asked))
    table.add_section()
    for name, widths in (("journal write", total.written_ns), ("journal sync", total.synced_ns)):
        table.add_row(f"window from the last byte to the end of the {name}", _widths(widths))
    return table


def _widths(widths: list[int]) -> str:
    if not widths:
        return "not measured"
    ordered = sorted(widths)
    middle, high, most = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1]
    return f"{middle / 1000:.0f} us median, {high / 1000:.0f} us p99, {most / 1000:.0f} us worst"


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=100, help="how many schedules")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first; the next has the next number")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many at once")
    parser.add_argument("--rotation", choices=("strict", "grace", "grace_another", "same"), help="not drawn but this")
    chosen = parser.parse_args()
    schedules = [draw(chosen.seed + number, rotation=chosen.rotation) for number in range(chosen.schedules)]
    console, began = Console(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        total = run(schedules, lanes=chosen.lanes, progress=progress)
    console.print(summary(total, time.monotonic() - began))
    for schedule, findings in total.findings:
        console.print(f"[red]{schedule}[/]", highlight=False)
        for check, found in findings.items():
            for each in found:
                console.print(f"    {check}: {each}", highlight=False)
    return 1 if total.findings else 0


if __name__ == "__main__":
    sys.exit(main())
