"""The machine: which core measures and which serves, what a process used, and how the machine is described."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
PACKAGES: Final = (
    "celery",
    "kombu",
    "redis",
    "requests",
    "urllib3",
    "sqlalchemy",
    "sqlmodel",
    "psycopg",
    "cryptography",
)


def split_cores() -> tuple[set[int], set[int]]:
    """Return the cores of what is measured, and those of the servers; the same one if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[-1:]), set(cores[:-1] or cores)


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Keep this process to some cores; what it starts meanwhile stays there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far, in steps of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def children_seconds() -> float:
    """Return the processor time of this process's children that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def core_seconds(cores: set[int]) -> float:
    """Return how long some cores were not idle since the machine began, the time other machines took included."""
    busy = 0
    for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            idle = int(fields[3]) + int(fields[4])
            busy += sum(map(int, fields[:8])) - idle
    return busy / TICKS


def written_bytes(pid: int) -> int:
    """Return the bytes that a process gave to the disk so far."""
    lines = Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def resident_mebibytes(pid: int) -> float:
    """Return the memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def describe(folder: Path) -> dict[str, Any]:
    """Return what figures depend on: processor, disk, versions, and how busy the machine is right now."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "taken": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": model[0] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sync_microseconds": round(_sync_seconds(folder) * 1e6),
        "load_before": os.getloadavg()[0],
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _sync_seconds(folder: Path) -> float:
    spent = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            spent.append(time.perf_counter() - began)
    (folder / "sync").unlink()
    return statistics.median(spent)
