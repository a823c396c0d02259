"""A stand-in for TikTok for tests that are not about account data: a pull of its accounts costs little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox

SMALL: Final[dict[str, Any]] = {"videos": 6, "video_seconds": 15, "age_days": 20}
"""Traits of an account of a few short videos and three weeks of figures; it has every kind of row."""


@contextmanager
def small_sandbox(options: SandboxOptions) -> Iterator[RunningSandbox]:
    """Start a sandbox whose accounts are small."""
    with start_sandbox(options) as running:
        running.set_account(**SMALL)
        yield running
