"""The heaps of the C library: the threads of a worker share one, so that its memory stays small."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Final

M_ARENA_MAX: Final = -8
"""An option of glibc's `mallopt`: the most heaps that threads may have."""
OWN_CHOICE: Final = "MALLOC_ARENA_MAX"
"""The variable by which a person sets the same; it is left alone."""


def share_one_heap(environ: Mapping[str, str] | None = None) -> None:
    """Let the threads that start from now on share the process's heap.

    glibc gives each thread a heap of its own, and each keeps most of the memory it once needed: 16 threads hold a tenth
    more than they do in one heap (docs/performance.md). Other C libraries have no such option, and nothing happens.

    Args:
        environ: the variables; those of this process by default.
    """
    if OWN_CHOICE in (os.environ if environ is None else environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
