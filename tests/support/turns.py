"""Let the databases take turns: a test of both runs on one in `make test` and on the other in `make faults`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

KINDS = ("sqlite", "postgresql")


def take_turns(items: Iterable[pytest.Item], folder: Path) -> None:
    """Mark one of the two runs of each test in a folder as slow, in each file the one and the other in turn.

    A test that names its database, or marks one of its runs itself, is left as it is.

    Args:
        items: all tests that were collected.
        folder: whose tests take turns.
    """
    pairs: dict[tuple[Path, str], dict[str, pytest.Item]] = {}
    for item in items:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("database_kind") if callspec is not None else None
        if kind in KINDS and item.path.is_relative_to(folder):
            pairs.setdefault((item.path, item.nodeid.replace(kind, "")), {})[kind] = item
    turns: Counter[Path] = Counter()
    for (path, _), runs in pairs.items():
        marked = any(item.get_closest_marker("slow_suite") for item in runs.values())
        if len(runs) == len(KINDS) and not marked:
            runs[KINDS[turns[path] % len(KINDS)]].add_marker(pytest.mark.slow_suite)
            turns[path] += 1
