"""docs/data.md: every row that it claims is proved by a test that is there, and every table is on it."""

from __future__ import annotations

import re
from pathlib import Path

from worker.accounts.resources import RESOURCES
from worker.store.account_models import DATA, NARROWINGS, PROGRESS, QUARANTINE, RAW_ANSWERS, REQUESTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_row_of_the_comparison_is_proved_by_a_test() -> None:
    """Eighteen rows, and each test that they name exists."""
    rows = re.findall(r"^\| (\d+) .*\|$", PAGE, re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 19))

    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 14
    for file, test in named:
        (found,) = ROOT.glob(f"tests/*/{file}")
        assert f"def {test}(" in found.read_text(encoding="utf-8"), (file, test)


def test_every_table_and_call_is_on_the_page() -> None:
    """Whoever looks for a table's meaning, or for what a call costs, finds it."""
    words = set(re.findall(r"`(\w+)`", PAGE))

    assert {table.name for table in (*DATA, RAW_ANSWERS, QUARANTINE, PROGRESS, NARROWINGS, REQUESTS)} <= words
    assert {scope for each in RESOURCES for scope in (each.needs, *each.scope_of().values()) if scope} <= set(
        re.findall(r"`([\w.]+)`", PAGE)
    )
    assert all(resource.call in PAGE for resource in RESOURCES if resource.per not in {"video", "comment"})
