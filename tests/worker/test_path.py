"""The way of one refresh through our files: traced, counted and printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import worker
from tests.support.world import World

PACKAGE = Path(worker.__file__).parent
MOST_FILES = 36
MOST_CHANGES = 149
"""A call that a busy machine makes late asks the limiter again, which is seven more than the usual 142."""


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_refresh_is_followed_through_few_files(new_world: Callable[..., World], database_kind: str) -> None:
    """A reader of the happy path opens few files, and the calls do not jump between them at random."""
    world = new_world()
    refresh = world.services.refresher.refresh
    assert refresh(world.creator().grant_id).kind == "refreshed"
    grant, path = world.creator(), list[str]()

    def enter(frame: Any, event: str, argument: Any) -> None:
        del argument
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)):
            path.append(str(Path(name).relative_to(PACKAGE)))

    sys.setprofile(enter)
    try:
        kind = refresh(grant.grant_id).kind
    finally:
        sys.setprofile(None)

    files = list(dict.fromkeys(path))
    changes = sum(one != other for one, other in pairwise(path))
    print(f"{len(files)} files, {changes} changes of file:", *files, sep="\n  ")  # noqa: T201 - read with `pytest -s`
    assert kind == "refreshed"
    assert len(files) <= MOST_FILES
    assert changes <= MOST_CHANGES
