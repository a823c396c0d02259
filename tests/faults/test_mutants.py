"""The deliberate bugs can be planted, and the tests that must turn red exist; planting them all is `make mutants`."""

from __future__ import annotations

import re

import pytest

from tests.faults.mutants import MUTANTS, Mutant, planted
from tests.faults.workers import REPOSITORY


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_bug_fits_the_code_as_it_is(mutant: Mutant) -> None:
    """Its texts stand once in their module, what comes out is Python, and its tests are there."""
    text = (REPOSITORY / mutant.path).read_text(encoding="utf-8")

    compile(planted(mutant, text), mutant.path, "exec")
    for test in mutant.tests:
        path, _, name = test.partition("::")
        found = (REPOSITORY / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name.partition('[')[0]}\(", found, re.MULTILINE) or not name


def test_a_bug_that_does_not_fit_is_reported() -> None:
    """Code that has changed under a bug is no proof of anything."""
    with pytest.raises(ValueError, match="stands 0 times"):
        planted(Mutant("odd", "worker/refresh/refresher.py", (("not there", ""),), ()), "text")


def test_there_are_at_least_twelve() -> None:
    """And each has a name of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
