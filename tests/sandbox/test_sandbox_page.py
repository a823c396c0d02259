"""docs/sandbox.md tells what the sandbox can be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from worker.sandbox.fault_kinds import MAKERS
from worker.sandbox.process import RunningSandbox, SandboxError

PAGE: Final = (Path(__file__).parents[2] / "docs/sandbox.md").read_text(encoding="utf-8")


def test_every_control_call_has_a_row(start: Callable[..., RunningSandbox]) -> None:
    """The page has the calls that the sandbox itself lists when it is asked for one that it lacks, and no others."""
    with pytest.raises(SandboxError) as refused:
        start().control("nosuchcall")
    listed = str(refused.value).removeprefix("there are ").split(", ")

    assert re.findall(r"^\| `((?:GET|POST|DELETE) \w+)` \|", PAGE, re.MULTILINE) == listed


def test_every_kind_of_fault_has_a_row() -> None:
    """A fault that can be switched on is on the page."""
    rows = re.findall(r"^\| (`[\w`, ]+) \|", PAGE.partition("## Faults")[2], re.MULTILINE)
    told = re.findall(r"`(\w+)`", "".join(rows))

    assert set(told) == set(MAKERS)
