"""What the journal costs: one append alone, and many threads that share syncs, beside plain writes in the same run.

A third column is SQLite doing the journal's work, sealed rows in WAL mode with every commit synced: why the journal is
a file of our own (docs/decisions/0015-journal-file.md).

A plain write is the same number of bytes into a preallocated file, neither sealed nor synced, so that a ratio to it
is the price of keeping answers on any machine. Figures depend on the disk; ratios less so.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from worker.journal import Journal, JournalEntry
from worker.journal.segment import place_of
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


class SqliteJournal:
    """A sealed row for each answer, committed and synced one by one or in groups, and deleted when it is released."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE answers (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL)")
        self._sealer, self._number = sealer, 0

    def keep(self, entry: JournalEntry, count: int = 1) -> None:
        """Keep answers in one commit."""
        self._connection.execute("BEGIN IMMEDIATE")
        for _ in range(count):
            self._number += 1
            sealed = self._sealer.seal(entry.to_bytes(), place_of(bytes(16), self._number))
            self._connection.execute("INSERT INTO answers VALUES (?, ?)", (self._number, sealed))
        self._connection.execute("COMMIT")

    def release(self, count: int) -> None:
        """Delete the oldest answers in one commit."""
        self._connection.execute(
            "DELETE FROM answers WHERE number IN (SELECT number FROM answers ORDER BY number LIMIT ?)", (count,)
        )

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def beside_sqlite(folder: Path, journal: Journal, sealer: Sealer, rounds: int) -> None:
    """Print wall and processor time of each record, kept and released: our file and SQLite, alone and in groups."""
    rows, entry = SqliteJournal(folder / "journal.db", sealer), answer()

    def ours(count: int) -> None:
        for written in [journal.write(entry) for _ in range(count)]:
            journal.release(journal.sync(written))

    def theirs(count: int) -> None:
        rows.keep(entry, count)
        rows.release(count)

    table = Table(
        "records in a group", "file", "SQLite", "ratio", title="Wall / processor us of each record, kept and released"
    )
    for count in (1, 50):
        figures = []
        for work in (ours, theirs):
            cpu, start = time.process_time(), time.perf_counter()
            for _ in range(max(rounds // count, 1)):
                work(count)
            done = max(rounds // count, 1) * count
            figures.append(((time.perf_counter() - start) / done * 1e6, (time.process_time() - cpu) / done * 1e6))
        (wall, cpu_used), (their_wall, their_cpu) = figures
        table.add_row(
            str(count), f"{wall:.0f} / {cpu_used:.0f}", f"{their_wall:.0f} / {their_cpu:.0f}",
            f"{their_wall / wall:.1f} / {their_cpu / cpu_used:.1f}",
        )  # fmt: skip
    rows.close()
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2_000, help="appends of one thread, and in sum of 16")
    parser.add_argument("--dir", type=Path, default=Path(), help="a folder on the disk to measure")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.dir) as folder:
        sealer = Sealer(Keyring.new())
        journal = Journal(Path(folder) / "journal", sealer, owner="benchmark", floor_bytes=0)
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
        beside_sqlite(Path(folder), journal, sealer, options.rounds)
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
