"""The runbook: a page for each alarm, in one form, that names only rules, lines, metrics and facts that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.support.loud import loud_facts
from worker.policy.notice_kinds import KINDS
from worker.telemetry.names import FACT_NAMES

RUNBOOK: Final = Path(__file__).parents[2] / "docs/runbook"
PAGES: Final = sorted(page.name for page in RUNBOOK.glob("*.md") if page.name != "README.md")
OTHERS: Final = "EvertokenErrorLogged"
"""The rule for the errors that have neither a rule of their own nor a notice."""
UNCOUNTED: Final = frozenset({"metrics.unserved"})
"""Who cannot serve metrics has no counter that a rule could ask; `EvertokenTargetAway` sees that it is not scraped."""
PARTS: Final = ["What it means", "Who is affected", "How to see it", "What to do", "When it clears"]


def seen_by(page: str) -> dict[str, list[str]]:
    """Return what a page lists under "How to see it": rules, notices, lines of the doctor, metrics and log lines."""
    part = (RUNBOOK / page).read_text(encoding="utf-8").partition("## How to see it\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^- (\w+): (.+(?:\n  .+)*)$", part, re.MULTILINE)
    return {kind: re.findall(r"`([^`]+)`", names) for kind, names in lines}


def linked_by_rules(root: Path) -> dict[str, str]:
    """Return each rule's link by the rule's name."""
    groups = yaml.safe_load((root / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_five_parts(page: str) -> None:
    """Whoever is woken finds the same five headings on every page, with something under each."""
    text = (RUNBOOK / page).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)

    assert re.match(r"# \S.*\n\n$", parts[0])
    assert parts[1::2] == PARTS
    assert all(len(part.split()) >= 3 for part in parts[2::2])
    assert len(text.splitlines()) <= 90


def test_every_rule_has_a_page_that_names_it(root: Path) -> None:
    """A rule's link leads to a page, and that page alone lists the rule."""
    listed = {rule: page for page in PAGES for rule in seen_by(page).get("rule", ())}

    assert linked_by_rules(root) == {rule: f"docs/runbook/{page}" for rule, page in listed.items()}


def test_every_error_of_the_log_is_reported_by_a_rule_or_a_notice(root: Path, texts: dict[str, str]) -> None:
    """An error's page has one; what no such page names is in the rule for all the others, and each has one place."""
    code = {name: text for name, text in texts.items() if re.match(r"worker/(?!sandbox).*\.py$", name)}
    kinds = set(re.findall(r"_alarm\(\w+, \"(\w+)\"", "\n".join(code.values())))
    errors = {fact for text in code.values() for fact in loud_facts(text, errors_alone=True)}
    assert {"refresh.", "journal.alarm", "owner.wrong", "task.crashed", "schema.unfit"} <= errors
    errors = (errors | {f"refresh.{kind}" for kind in kinds}) - {"refresh.", *UNCOUNTED}
    groups = yaml.safe_load((root / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule["alert"] == OTHERS]
    asked = [set(names.split("|")) for names in re.findall(r'fact=~"([^"]+)"', rule["expr"])]
    seen = [seen_by(page) for page in PAGES]
    listed = {
        fact
        for page in seen
        if page.get("notice") or page.get("rule", [OTHERS]) != [OTHERS]
        for fact in page.get("log", ())
    }
    (others,) = [set(page["log"]) for page in seen if page.get("rule") == [OTHERS]]

    assert sorted(errors - listed - others) == []
    assert asked == [others, others]
    assert sorted(others - errors) == []
    assert others <= set(FACT_NAMES), "a fact that is not there at 0 never increases"


def test_every_page_has_a_rule_or_a_line_of_the_doctor(texts: dict[str, str]) -> None:
    """No page is about something that nothing shows; each line of the doctor and each metric that it names exists."""
    code = "\n".join(
        text for name, text in texts.items() if name.startswith(("worker/cli/checks", "worker/cli/doctor"))
    )
    lines = set(re.findall(r'yield "(\w+)", lambda', code)) | set(re.findall(r'Finding\("(\w+)"', code))
    metrics = set(re.findall(r"^\| `(evertoken_\w+)", texts["docs/metrics.md"], re.MULTILINE))

    assert {"brake", "keyring", "settings"} <= lines
    for page in PAGES:
        seen = seen_by(page)
        assert seen.get("rule") or seen.get("doctor"), page
        assert set(seen.get("doctor", ())) <= lines, page
        assert seen["metric"], page
        assert set(seen["metric"]) <= metrics, page
        assert set(seen.get("log", ())) <= set(FACT_NAMES) | {"process.crashed"}, page
        assert set(seen) <= {"rule", "notice", "doctor", "metric", "log"}, page


def test_every_kind_of_notice_has_a_page_of_its_name_or_clears_one() -> None:
    """Whoever gets a notice finds its kind; the page of an alarm says which notice is its all-clear."""
    cleared = {
        kind
        for page in PAGES
        for kind in re.findall(
            r"`([a-z]+\.[a-z_]+)`", (RUNBOOK / page).read_text(encoding="utf-8").partition(PARTS[-1])[2]
        )
    }
    alarms = {kind: f"{kind}.md" for kind in KINDS.values() if f"{kind}.md" in PAGES}

    assert set(KINDS.values()) - alarms.keys() <= cleared
    assert all(seen_by(page)["notice"] == [kind] for kind, page in alarms.items())
    assert {kind for page in PAGES for kind in seen_by(page).get("notice", ())} == alarms.keys()


def test_the_index_has_every_page_once() -> None:
    """docs/runbook/README.md leads to each page."""
    links = re.findall(r"^\|.*\]\((.+\.md)\) \|$", (RUNBOOK / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(links) == PAGES


def test_every_page_that_a_message_names_exists(texts: dict[str, str]) -> None:
    """Errors, lines of the doctor and helps name pages, and headings of pages, that are there."""
    named = {
        (page, heading)
        for name, text in texts.items()
        if name.startswith(("worker/", "deploy/"))
        for page, heading in re.findall(r"(docs/[\w./-]+\.md)(?:, ([A-Z][\w ]+))?", text)
    }

    assert ("docs/runbook/keys-lost.md", "") in named
    assert [page for page, _ in named if page not in texts] == []
    assert ("docs/operations.md", "A user of Redis") in named
    assert [page for page, heading in named if heading and f"# {heading}\n" not in texts[page]] == []
