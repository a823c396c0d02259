"""A worker is killed (SIGKILL) at each point of a token's way, under strict and grace rotation, on both databases."""

from __future__ import annotations

import pytest

from tests.faults.conftest import NewScene
from tests.faults.kill_points import ORDER, PAGE, ROTATIONS, fate_of
from worker.failpoints import NAMES


@pytest.mark.over_tls
@pytest.mark.parametrize("rotation", ROTATIONS)
@pytest.mark.parametrize("point", [point for point, _ in ORDER])
def test_a_kill_ends_as_the_page_says_and_loses_no_journaled_pair(
    new_scene: NewScene, point: str, rotation: str
) -> None:
    """The oracle finds nothing, and what becomes of the creator stands in the page."""
    fate = fate_of(new_scene(rotation), point, rotation)

    assert fate.row in PAGE.read_text(encoding="utf-8").splitlines()


def test_the_page_has_every_point() -> None:
    """A failpoint that is added needs its rows."""
    assert {point for point, _ in ORDER} == NAMES
