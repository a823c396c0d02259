"""The pages say what the code says: settings, commands, links, dependencies and the changelog's form."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import click
import jsonschema
import pytest
import yaml
from celery.bin.celery import celery as celery_cli

from tests.support.loud import loud_facts
from worker import tokens
from worker.desk.openapi import PROBLEMS, description
from worker.planning.scenarios import SCENARIOS
from worker.policy.notice_kinds import KINDS
from worker.policy.verdicts import AttemptOutcome, Cause
from worker.settings import Settings
from worker.sources import PREFIX
from worker.store.models import METADATA
from worker.telemetry.metrics import FACTS
from worker.telemetry.names import FACT_NAMES

COMPOSED: Final = ("docker-compose.yml", "Dockerfile", "deploy/", "docs/", "README.md", ".ci/")


def pages(texts: dict[str, str]) -> dict[str, str]:
    """Return the Markdown pages."""
    return {name: text for name, text in texts.items() if name.endswith(".md")}


def documented_commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each of our or Celery's commands that a page writes as code, with the word after it."""
    for code in re.findall(r"`([^`]+)`|^    (.+)$", text, re.MULTILINE):
        for match in re.finditer(
            r"(?:celery -A worker|^evertoken) ([a-z]+)(?: ([a-z_.]+))?", " ".join("".join(code).split())
        ):
            yield match[1], match[2] or ""


def command(name: str, project: dict[str, Any]) -> click.Command | None:
    """Return a command by its name: ours from the entry points, else Celery's own."""
    ours = project["project"]["entry-points"]["celery.commands"]
    if name in ours:
        module, _, attribute = ours[name].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found
    own: click.Command | None = celery_cli.commands.get(name)
    return own


def generated(root: Path) -> dict[str, str]:
    """Return the pages as the code makes them, by their names."""
    made = runpy.run_path(str(root / "docs/write_reference.py"))["PAGES"]
    return {f"docs/{name}": page() for name, page in made.items()}


def test_the_generated_pages_are_what_the_code_says(root: Path, texts: dict[str, str]) -> None:
    """Whoever adds a setting, a command, a table, an error or a function for neighbours writes its page again."""
    pages = generated(root)

    assert len(pages) == 4
    assert [name for name, page in pages.items() if texts[name] != page] == [], "write them again with `make docs`"


def test_nothing_is_missing_from_the_generated_pages(root: Path, project: dict[str, Any]) -> None:
    """Each setting, command, option, table and column, and each name that neighbours import, is there."""
    pages = generated(root)
    options = {}
    for name in project["project"]["entry-points"]["celery.commands"]:
        waiting = [(name, command(name, project))]
        for path, found in waiting:
            assert found is not None
            options[path] = {option for each in found.params for option in each.opts if each.opts[0].startswith("--")}
            waiting += [(f"{path} {each}", sub) for each, sub in getattr(found, "commands", {}).items()]
    sections = dict(re.findall(r"^#{2,3} (.+)\n((?:(?!^##).*\n)*)", pages["docs/commands.md"], re.MULTILINE))
    tables = dict(re.findall(r"^## (\w+)\n((?:(?!^## ).*\n)*)", pages["docs/tables.md"], re.MULTILINE))

    assert all(f"`{PREFIX}{field.upper()}`" in pages["docs/settings.md"] for field in Settings.model_fields)
    assert sections.keys() == options.keys()
    assert [path for path in options if any(f"{option}" not in sections[path] for option in options[path])] == []
    assert tables.keys() == METADATA.tables.keys()
    assert all(f"| `{column.name}` |" in tables[name] for name in tables for column in METADATA.tables[name].columns)
    assert all(f"## {name}\n" in pages["docs/python-api.md"] for name in set(tokens.__all__) - {"WAIT_SECONDS"})


def test_the_page_of_the_http_api_is_what_the_desk_describes(texts: dict[str, str]) -> None:
    """Requests, problems with their status, and causes: each is on the page, and none that the desk does not know."""
    page = texts["docs/http-api.md"]
    requests = {
        (method.upper(), path)
        for path, item in description()["paths"].items()
        for method in item.keys() & {"get", "post"}
    }
    # This one is the answer of no path.
    problems = {("404", "unknown-address")}
    problems |= {(status, word) for status, (_, words) in PROBLEMS.items() for word in re.split(r", | or ", words)}
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", page, re.MULTILINE)
    causes = re.findall(r"`(\w+)`", page.partition("A 409 also has `cause`")[2])

    assert {*re.findall(r"^\| `([A-Z]+) ([^`?]+)", page, re.MULTILINE)} == requests - {("GET", "/v1/openapi.json")}
    assert {(status, word) for status, words in rows for word in re.findall(r"`([\w-]+)`", words)} == problems
    assert sorted(causes) == sorted(Cause)


def test_every_setting_that_is_named_exists(texts: dict[str, str]) -> None:
    """Pages, compose, image and units name settings as the code knows them, or their files."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    named = {
        (name, setting)
        for name, text in texts.items()
        if name.startswith(COMPOSED)
        for setting in re.findall(rf"\b{PREFIX}[A-Z_]+\b", text)
    }

    assert sorted(pair for pair in named if pair[1] not in known) == []
    assert {setting for _, setting in named} >= {f"{PREFIX}REDIS_URL_FILE", f"{PREFIX}RUN_DIR"}


def test_every_documented_command_exists(texts: dict[str, str], project: dict[str, Any]) -> None:
    """A command of a page can be typed: it is one of Celery's or of ours, and so is its subcommand."""
    wrong = []
    for page, text in pages(texts).items():
        for name, following in documented_commands(text):
            found = command(name, project)
            if found is None or (isinstance(found, click.Group) and following and following not in found.commands):
                wrong.append(f"{page}: {name} {following}")

    assert wrong == []


def test_the_readme_has_the_main_commands(texts: dict[str, str]) -> None:
    """The check above reads something: the README's own commands are among what it finds."""
    documented = {name for name, _ in documented_commands(texts["README.md"])}

    assert {"authorize", "doctor", "grants", "keys"} <= documented


def test_every_documented_make_target_exists(texts: dict[str, str]) -> None:
    """`make x` in a page is a target of the Makefile."""
    targets = set(re.findall(r"^\.PHONY: (.*)$", texts["Makefile"], re.MULTILINE)[0].split())
    documented = {
        (page, target)
        for page, text in pages(texts).items()
        for target in re.findall(r"(?:`|^    )make ([a-z]+)\b", text, re.MULTILINE)
    }

    assert {("README.md", "demo"), ("README.md", "test")} <= documented
    assert [pair for pair in documented if pair[1] not in targets] == []


def test_every_link_and_path_leads_somewhere(texts: dict[str, str], root: Path) -> None:
    """Links within the project, and paths written as code, are there."""
    missing = []
    for page, text in pages(texts).items():
        links = [root / Path(page).parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)]
        paths = [root / path for path in re.findall(r"`((?:docs|deploy|worker|tasks|tests)/[\w./-]+)`", text)]
        missing += [f"{page}: {path.relative_to(root)}" for path in links + paths if not path.exists()]

    assert missing == []


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_anchor_is_a_heading(texts: dict[str, str]) -> None:
    """A link to a part of a page leads to a heading that is there."""
    links = [
        (page, (Path(page).parent / link).as_posix() if link else page, anchor)
        for page, text in pages(texts).items()
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text)
    ]
    resolved = [(page, os.path.normpath(target), anchor) for page, target, anchor in links]

    assert len(resolved) > 10
    assert [link for link in resolved if link[2] not in anchors(texts[link[1]])] == []


@pytest.mark.parametrize("extra", ["", "local", "flower", "desk", "plot", "dev"])
def test_every_dependency_has_a_line(texts: dict[str, str], dependencies: dict[str, list[str]], extra: str) -> None:
    """docs/dependencies.md says of each library what it is for and what was looked at beside it."""
    rows = re.findall(r"^\| `([\w-]+)(?:\[\w+\])?` \|(.*)\|$", texts["docs/dependencies.md"], re.MULTILINE)
    documented = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}

    assert [name for name in dependencies[extra] if name not in documented] == []
    assert all(len(documented[name]) == 4 and all(documented[name]) for name in dependencies[extra])


def test_no_documented_dependency_is_gone(texts: dict[str, str], dependencies: dict[str, list[str]]) -> None:
    """A line whose library was removed is removed too."""
    documented = re.findall(r"^\| `([\w-]+)(?:\[\w+\])?` \|", texts["docs/dependencies.md"], re.MULTILINE)

    assert set(documented) == {name for names in dependencies.values() for name in names}


def test_the_changelog_keeps_its_form(texts: dict[str, str], project: dict[str, Any]) -> None:
    """Unreleased comes first, versions have a date and go down, and sections have the six names."""
    text = texts["CHANGELOG.md"]
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    versions = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d{2}-\d{2}", release) for release in releases[1:]]
    numbers = [tuple(map(int, version.groups())) for version in versions if version]

    assert text.startswith("# Changelog\n")
    assert releases[0] == "[Unreleased]"
    assert all(versions)
    assert numbers == sorted(numbers, reverse=True)
    assert not numbers or ".".join(map(str, numbers[0])) <= project["project"]["version"]
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= {
        "Added", "Changed", "Deprecated", "Removed", "Fixed", "Security",
    }  # fmt: skip


def test_decisions_are_numbered_without_a_double(texts: dict[str, str]) -> None:
    """Each decision has a number of its own, and its title bears it."""
    found = {name: text for name, text in texts.items() if re.match(r"docs/decisions/\d", name)}
    numbers = [int(Path(name).name[:4]) for name in found]

    assert len(set(numbers)) == len(numbers) > 0
    for name, text in found.items():
        assert re.match(rf"# {int(Path(name).name[:4])}\. \w", text), name
        assert "**Decided**" in text, name
        assert "## Price" in text, name


def test_the_pages_speak_of_as_many_scenarios_as_there_are(texts: dict[str, str]) -> None:
    """The table has a row for each, in their order, and both pages give the cost of all of them."""
    number = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")[len(SCENARIOS)]
    page, figures = texts["docs/capacity.md"], texts["docs/figures.md"]

    rows = re.findall(r"^\| `([a-z0-9-]+)` \| [\d,]+ \| [\d,]+ \|", page, re.MULTILINE)
    assert sorted(rows) == sorted(SCENARIOS)
    assert f"all {number} scenarios together" in page
    assert f"| {number} scenarios in " in figures


def test_the_glossary_is_in_order_and_has_the_words_of_the_code(texts: dict[str, str]) -> None:
    """Words stand once, by the alphabet, and those that name rows and commands are there."""
    words = re.findall(r"^\| \*\*([a-z ]+)\*\* \|", texts["docs/glossary.md"], re.MULTILINE)

    assert words == sorted(set(words))
    assert {"attempt", "claim", "consent", "creator", "grant", "journal", "lease", "notice", "pair"} <= set(words)


def test_every_kind_of_notice_is_explained(texts: dict[str, str]) -> None:
    """docs/notices.md has each kind that the code makes; tests/project/test_runbook.py compares it with the runbook."""
    code = "\n".join(text for name, text in texts.items() if re.match(r"worker/(?!sandbox).*\.py$", name))
    kinds = set(re.findall(r"_alarm\(\w+, \"(\w+)\"", code))
    kinds |= {
        re.findall(rf"^{name}\b.* = \"(\w+)\"", code, re.MULTILINE)[0]
        for name in ("APP_STOPPED", "REAUTH_NEEDED", "WRONG_OWNER")
    }

    assert len(kinds) >= 4
    assert kinds <= KINDS.keys()
    listed = re.findall(r"^\| `([a-z._]+)` \|", texts["docs/notices.md"], re.MULTILINE)
    assert sorted(listed) == sorted(KINDS.values())


def test_every_warning_and_error_of_the_log_is_explained(texts: dict[str, str]) -> None:
    """docs/operations.md has a row for each fact above `info`, and none for a fact that no code logs."""
    code = {name: text for name, text in texts.items() if re.match(r"worker/(?!sandbox).*\.py$", name)}
    made_up = set(re.findall(r"_alarm\(\w+, \"(\w+)\"", "\n".join(code.values()))) | set(AttemptOutcome)
    loud = {fact for text in code.values() for fact in loud_facts(text)}
    assert {"refresh.", "process.crashed", "thread.crashed", "error.ignored", "task.crashed"} <= loud
    loud |= {f"refresh.{end}" for end in made_up - {AttemptOutcome.REFRESHED}}
    table = texts["docs/operations.md"].partition("## What the log says")[2]
    documented = set(re.findall(r"`([a-z]+\.[a-z_]+)`", table))

    assert sorted(loud - {"refresh."} - documented) == []
    assert sorted(documented - loud) == []


def test_every_fact_is_counted_from_the_start(texts: dict[str, str]) -> None:
    """The list of facts names each one that the code reports, and none that no code reports."""
    code = {name: text for name, text in texts.items() if re.match(r"worker/(?!sandbox).*\.py$", name)}
    made_up = set(re.findall(r"_alarm\(\w+, \"(\w+)\"", "\n".join(code.values()))) | set(AttemptOutcome)
    reported = {f"refresh.{end}" for end in made_up - {AttemptOutcome.REFRESHED}}
    for text in code.values():
        for call in ast.walk(ast.parse(text)):
            called = getattr(call.func, "id", getattr(call.func, "attr", "")) if isinstance(call, ast.Call) else ""
            if isinstance(call, ast.Call) and called in {"Fact", "_report"}:
                words = (part for given in call.args[:2] for part in ast.walk(given) if isinstance(part, ast.Constant))
                reported |= {str(word.value) for word in words if re.fullmatch(r"[a-z]+\.[a-z_]+", str(word.value))}
        # If metrics cannot be served, nobody would see the count.
        logged_alone = re.findall(r"log_fact\(\s*Fact\(\s*\"([a-z._]+)\"", text)
        assert set(logged_alone) <= {"metrics.unserved"}, "a fact that is not counted: use `report`"
    counted = {sample.labels["fact"] for family in FACTS.collect() for sample in family.samples}

    assert len(FACT_NAMES) > 60
    assert sorted(reported ^ set(FACT_NAMES)) == []
    assert counted >= reported


def test_every_metric_is_explained(texts: dict[str, str]) -> None:
    """docs/metrics.md names each metric that a worker serves."""
    metrics = re.findall(r'(?:Counter|Gauge|Histogram)\(\s*"(\w+)"', texts["worker/telemetry/metrics.py"])

    assert len(metrics) >= 3
    assert [metric for metric in metrics if f"`{metric}" not in texts["docs/metrics.md"]] == []


def test_the_forms_for_issues_keep_their_schema(root: Path) -> None:
    """The host shows only a form that it can read."""
    vendor = files("check_jsonschema") / "builtin_schemas" / "vendor"
    folder = root / ".github/ISSUE_TEMPLATE"
    schemas = {
        name: json.loads((vendor / f"github-issue-{name}.json").read_text("utf-8")) for name in ("forms", "config")
    }

    assert {path.name for path in folder.iterdir()} == {"defect.yml", "wish.yml", "config.yml"}
    for path in folder.iterdir():
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        jsonschema.Draft7Validator(schemas["config" if path.stem == "config" else "forms"]).validate(form)
