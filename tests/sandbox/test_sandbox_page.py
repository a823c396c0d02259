"""docs/sandbox.md lists what the sandbox accepts."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from worker.sandbox.fault_kinds import ABSENT, MAKERS
from worker.sandbox.faults import CALLS, FaultBook
from worker.sandbox.process import RunningSandbox, SandboxError

PAGE: Final = (Path(__file__).parents[2] / "docs/sandbox.md").read_text(encoding="utf-8")
NONE: Final = "absent"


def test_every_control_call_has_a_row(start: Callable[..., RunningSandbox]) -> None:
    """The page has the calls that the sandbox itself lists when it is asked for one that it lacks, and no others."""
    with pytest.raises(SandboxError) as refused:
        start().control("nosuchcall")
    listed = str(refused.value).removeprefix("there are ").split(", ")

    assert re.findall(r"^\| `((?:GET|POST|DELETE) \w+)` \|", PAGE, re.MULTILINE) == listed


def table_of(heading: str) -> dict[str, str]:
    """Return the last cell of each row of the table with this heading, by the name in its first cell."""
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", table, re.MULTILINE))


def defaults_of(cell: str) -> dict[str, object]:
    """Return the fields in a cell with their defaults; `NONE` if a field is needed or left out."""
    fields = re.findall(r"`(\w+)` \((?:default `([^`]*)`|needed|default: the field is left out)", cell)
    return {name: default or NONE for name, default in fields}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_field_of_a_fault_is_listed_with_its_default(kind: str) -> None:
    """A fault that can be switched on has a row, and the row has each field that it takes, and no other."""
    parameters = inspect.signature(MAKERS[kind]).parameters.values()
    taken = {each.name: NONE if each.default in (each.empty, ABSENT) else _json(each.default) for each in parameters}

    assert defaults_of(table_of("kind")[kind]) == taken


def test_no_other_fault_has_a_row_and_the_common_fields_are_listed() -> None:
    """The page has the kinds that there are, and the fields of all of them."""
    assert set(table_of("kind")) == set(MAKERS)
    assert all(call in PAGE for call in CALLS)
    for field in table_of("field"):
        value: object = {"creator": "c", "call": "refresh", "times": 1, "probability": 0.5}[field]
        FaultBook(1).add({"kind": "gzip", field: value})
    assert set(table_of("field")) == {"creator", "call", "times", "probability"}


def _json(default: object) -> str:
    return default if isinstance(default, str) else json.dumps(default)
