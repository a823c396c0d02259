"""What the journal costs: one append alone, and many threads that share syncs, beside plain writes in the same run.

A plain write is the same number of bytes into a preallocated file, neither sealed nor synced, so that a ratio to it
says what keeping costs wherever this runs. Figures depend on the disk; ratios less so.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from worker.journal import Journal, JournalEntry
from worker.vault import Keyring, Sealer

BODY_BYTES = 1_000
THREADS = 16


def answer() -> JournalEntry:
    """Return an answer of usual size."""
    now = datetime.now(UTC)
    body = os.urandom(BODY_BYTES // 2).hex().encode()
    return JournalEntry(
        "refresh", 1, "creator", 1, 2, "tt_user/oauth2/refresh_token/", 200, body, True, None, None, now, now
    )


def latencies(work: Callable[[], object], rounds: int) -> list[float]:
    """Return sorted seconds of each call."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def per_second(work: Callable[[], object], rounds: int) -> float:
    """Return calls a second of all threads together."""
    start_line = threading.Barrier(THREADS + 1)

    def run() -> None:
        start_line.wait()
        for _ in range(rounds):
            work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for each in threads:
        each.start()
    start_line.wait()
    start = time.perf_counter()
    for each in threads:
        each.join()
    return THREADS * rounds / (time.perf_counter() - start)


class PlainFile:
    """Writes of the same size without sealing and syncing."""

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._descriptor, size)
        self._end, self._lock = 0, threading.Lock()
        self._data = bytes(BODY_BYTES + 300)

    def write(self) -> None:
        """Write once behind the last write."""
        with self._lock:
            os.pwrite(self._descriptor, self._data, self._end)
            self._end += len(self._data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2_000, help="appends of one thread, and in sum of 16")
    parser.add_argument("--dir", type=Path, default=Path(), help="a folder on the disk to measure")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.dir) as folder:
        journal = Journal(Path(folder) / "journal", Sealer(Keyring.new()), owner="benchmark", floor_bytes=0)
        plain = PlainFile(Path(folder) / "plain", 2**23)
        entry = answer()
        journal.ready()
        bare, kept = latencies(plain.write, options.rounds), latencies(lambda: journal.append(entry), options.rounds)
        each = options.rounds // THREADS
        bare_rate, kept_rate = per_second(plain.write, each), per_second(lambda: journal.append(entry), each)
        ready = latencies(journal.ready, options.rounds)
        start = time.perf_counter()
        for waiting in journal.unreleased():
            waiting.release()
        replay = time.perf_counter() - start
        journal.close()
        plain.close()
    show(bare, kept, bare_rate, kept_rate)
    Console().print(
        f"ready(): {ready[len(ready) // 2] * 1e6:.0f} us; replaying {2 * options.rounds} records: {replay:.2f} s"
    )


def show(bare: list[float], kept: list[float], bare_rate: float, kept_rate: float) -> None:
    """Print the table."""
    table = Table("", "journal", "plain write", "ratio", title=f"Answers of {BODY_BYTES} bytes")
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        one, other = kept[int(len(kept) * share)] * 1e6, bare[int(len(bare) * share)] * 1e6
        table.add_row(f"one thread, {name}", f"{one:.0f} us", f"{other:.1f} us", f"{one / other:.0f}")
    alone = len(kept) / sum(kept)
    table.add_row("one thread, a second", f"{alone:,.0f}", f"{len(bare) / sum(bare):,.0f}", "")
    table.add_row(
        f"{THREADS} threads, a second", f"{kept_rate:,.0f}", f"{bare_rate:,.0f}", f"{bare_rate / kept_rate:.0f}"
    )
    table.add_row("gain of sharing syncs", f"x {kept_rate / alone:.1f}", "", "")
    Console().print(table)


if __name__ == "__main__":
    main()
