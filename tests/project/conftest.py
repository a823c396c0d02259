"""What the tests of the project's habits share: its root, its files and its declared dependencies."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NOT_OURS: Final = re.compile(r"^(\.git|\.venv.*|var|build|dist|__pycache__|\..*_cache|\.hypothesis|.*\.egg-info)$")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """Every text file of the project by its path: no caches, no environment, no data."""
    found: dict[str, str] = {}
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if not NOT_OURS.match(name)]
        for name in files:
            path = Path(folder) / name
            if name not in {".env", ".git", ".coverage"}:
                try:
                    found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue
    return found


@pytest.fixture(scope="session")
def dependencies(project: dict[str, Any]) -> dict[str, list[str]]:
    """The names of all declared dependencies by extra; the runtime's own stand under an empty name."""
    extras: dict[str, list[str]] = {"": project["project"]["dependencies"]}
    extras |= project["project"]["optional-dependencies"]
    return {
        extra: [re.split(r"[\[<>=;! ]", line)[0].lower() for line in lines if not line.startswith("evertoken[")]
        for extra, lines in extras.items()
    }
