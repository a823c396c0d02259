"""The Makefile explains itself and refuses an old Python in one line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

HANDED_DOWN = ("MAKE", "MFLAGS", "VENV", "PYTHON", "WORKERS", "ARGS")


def make(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make in the project's root, as a person would from a clean shell."""
    # The make that runs these tests hands its variables down.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(HANDED_DOWN)}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=root, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("help",)], ids=["plain make", "make help"])
def test_help_lists_every_target(root: Path, arguments: tuple[str, ...]) -> None:
    """Each target that a person may call is listed with a text."""
    text = (root / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    listed = dict(re.findall(r"^  ([a-z-]+) +(\S.*)$", make(root, *arguments).stdout, re.MULTILINE))

    assert list(listed) == targets
    assert {"demo", "test", "check"} <= set(listed)


def test_an_old_python_is_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    """The line says which version is needed, which was found, and how to name another."""
    old = tmp_path / "python-old"
    shim = 'exec python3 -c "import sys; sys.version_info = (3, 9); $2"'
    old.write_text(f"#!/bin/sh\n{shim}\n", encoding="utf-8")
    old.chmod(0o755)
    lock = tmp_path / "deploy/requirements-dev.lock"
    lock.parent.mkdir()
    lock.touch()
    (tmp_path / "pyproject.toml").touch()
    ran = make(tmp_path, "--file", str(root / "Makefile"), f"PYTHON={old}", ".venv/ready")

    assert ran.returncode == 2
    assert ran.stderr.splitlines()[0] == (
        "Evertoken needs Python 3.11 or newer and found 3.9; name one: make PYTHON=/path/to/python3.11"
    )
    assert not (tmp_path / ".venv").exists()


def test_the_pipeline_calls_every_suite(root: Path) -> None:
    """.ci/run is strict about errors; what has to be fetched and is missing is reported."""
    text = (root / ".ci/run").read_text(encoding="utf-8")

    assert "set -euo pipefail" in text
    assert re.findall(r"^run (\w+)", text, re.MULTILINE) == ["check", "test", "faults", "chaos", "mutants"]
    assert re.findall(r"^    run (\w+)", text, re.MULTILINE) == ["chart", "site", "browser", "test"]
    assert "deploy/audit.py" in text
    assert (root / ".ci/run").stat().st_mode & 0o111
