"""The threads of a worker share one heap."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.daemon import PROJECT, plain_environ

PROGRAM = """
import ctypes, sys, threading
from worker.heap import share_one_heap

if sys.argv[1] == "share":
    share_one_heap()
held, all_hold = [], threading.Barrier(9)

def hold():
    held.append([bytearray(50_000) for _ in range(20)])
    all_hold.wait(30)

threads = [threading.Thread(target=hold) for _ in range(8)]
for thread in threads:
    thread.start()
all_hold.wait(30)
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


def heaps(how: str, **variables: str) -> int:
    """Return how many heaps a process with eight busy threads has."""
    environ = plain_environ() | variables
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, check=True)
    return done.stdout.count("<heap nr=")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no glibc")
def test_threads_share_one_heap() -> None:
    """Sixteen threads keep what they once needed in one place, unless a person chose otherwise."""
    assert heaps("share") == 1
    assert heaps("leave") > 1
    assert heaps("share", MALLOC_ARENA_MAX="3") in {2, 3}
