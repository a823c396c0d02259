"""The page of faults is true to the tests: what it names exists, and what is tested here is named."""

from __future__ import annotations

import ast
import re

from tests.faults.workers import REPOSITORY

PAGE = (REPOSITORY / "docs/faults.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`([a-z0-9_]+/test_[a-z0-9_]+\.py)::(test_[a-z0-9_]+)`")
COLUMNS = 4


def names_in(path: str) -> set[str]:
    """Return the names of the tests of a file."""
    tree = ast.parse((REPOSITORY / "tests" / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def rows() -> list[list[str]]:
    """Return the cells of the rows that are faults."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("|")]
    return [row for row in cells if len(row) == COLUMNS and row[0] != "fault" and not set(row[0]) <= {"-"}]


def test_every_test_that_is_named_is_there() -> None:
    """A test that was renamed or removed takes its row's proof with it."""
    missing = [f"{path}::{name}" for path, name in NAMED.findall(PAGE) if name not in names_in(path)]

    assert missing == []


def test_every_fault_has_a_promise_an_outcome_and_a_test() -> None:
    """No row says what nothing shows."""
    assert len(rows()) > 60
    for fault, promise, notices, shown in rows():
        assert promise, fault
        assert notices, fault
        assert NAMED.findall(shown), fault


def test_every_test_of_a_fault_is_named() -> None:
    """What is tried here stands in the page; checks of the stand-in itself are no faults."""
    files = sorted((REPOSITORY / "tests/faults").glob("test_fault_*.py"))
    named = {name for _, name in NAMED.findall(PAGE)} | {
        "test_every_combination_of_rotations_can_be_asked_of_the_stand_in"
    }
    unnamed = [name for path in files for name in names_in(f"faults/{path.name}") if name not in named]

    assert files
    assert unnamed == []
