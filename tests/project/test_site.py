"""The site: each page under one kind, a link that leads nowhere fails, and pages load nothing from other hosts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

KINDS: Final = ("Tutorial", "How to", "Reference", "Explanation", "The project")


def test_every_page_is_in_the_contents_once_under_one_kind(texts: dict[str, str]) -> None:
    """docs/README.md links each page once; a folder's pages follow the folder's own README.md."""
    sections = re.findall(r"^## (.*)$", texts["docs/README.md"], re.MULTILINE)
    links = Counter(
        os.path.normpath(f"docs/{link}")
        for link in re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", texts["docs/README.md"], re.MULTILINE)
    )
    pages = {name for name in texts if re.match(r"(docs/.*|clients/.*|[A-Z]+)\.md$", name)}
    folders = {name.removesuffix("README.md") for name in links if re.match(r"docs/.*/README\.md$", name)}
    alone = {name for name in pages if not name.startswith(tuple(folders)) or name.endswith("/README.md")}

    assert tuple(sections) == KINDS
    assert folders == {"docs/decisions/", "docs/runbook/"}
    assert links == Counter(alone - {"README.md", "docs/README.md"}), "docs/README.md has to list each page once"


def build(root: Path, project: Path) -> subprocess.CompletedProcess[str]:
    """Render a project of a few pages with our configuration, as `make site` does."""
    sphinx = root / "build/sphinx/bin/sphinx-build"
    if not sphinx.exists():
        pytest.skip("Sphinx is not in build/sphinx: `make site` fetches it")
    for name in ("conf.py", "site.css"):
        shutil.copy(root / "docs" / name, project / "docs" / name)
    recipe = re.findall(r"build/sphinx/bin/sphinx-build (.*)$", (root / "Makefile").read_text("utf-8"), re.MULTILINE)[0]
    return subprocess.run(
        [sphinx, *recipe.split()], cwd=project, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of four pages."""
    (tmp_path / "docs/decisions").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Home\n\n[one](docs/one.md#a-part)\n", encoding="utf-8")
    contents = "# All\n\n## How to\n\n- [One](one.md)\n- [Why](decisions/README.md)\n"
    (tmp_path / "docs/README.md").write_text(contents, encoding="utf-8")
    (tmp_path / "docs/one.md").write_text("# One\n\n## A part\n\ntext\n", encoding="utf-8")
    (tmp_path / "docs/decisions/README.md").write_text("# Decisions\n", encoding="utf-8")
    (tmp_path / "docs/decisions/0001-x.md").write_text("# 1. X\n", encoding="utf-8")
    return tmp_path


@pytest.mark.slow_suite
def test_a_page_loads_nothing_from_another_host(root: Path, project: Path) -> None:
    """Scripts, styles, fonts and pictures are in the site; its contents have the captions and a folder's pages."""
    done = build(root, project)
    site = project / "build/site"
    pages = {path.name: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    loaded = [
        url
        for page in pages.values()
        for url in re.findall(r'<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="([^"]+)"', page)
    ]
    loaded += [url for sheet in site.rglob("*.css") for url in re.findall(r"url\(([^)]+)\)|@import", sheet.read_text())]

    assert done.returncode == 0, done.stderr
    assert len(loaded) > 10
    assert [url for url in loaded if re.match(r"['\"]?(https?:)?//", url)] == []
    assert "How to</span>" in pages["one.html"]
    assert 'href="decisions/0001-x.html"' in pages["one.html"]


@pytest.mark.slow_suite
@pytest.mark.parametrize(
    ("link", "told"), [("docs/gone.md", "docs/gone"), ("docs/one.md#gone", "gone"), ("docs/gone/", "docs/gone/")]
)
def test_a_link_that_leads_nowhere_fails(root: Path, project: Path, link: str, told: str) -> None:
    """A missing page, heading or folder ends the build with an error that names page and link."""
    (project / "README.md").write_text(f"# Home\n\n[one]({link})\n", encoding="utf-8")
    done = build(root, project)

    assert done.returncode != 0
    assert re.search(rf"README\.md:3: WARNING: .*{re.escape(told)}", done.stderr)


@pytest.mark.slow_suite
def test_a_page_that_the_contents_lack_fails(root: Path, project: Path) -> None:
    """Nobody finds a page that no list names."""
    (project / "docs/two.md").write_text("# Two\n", encoding="utf-8")
    done = build(root, project)

    assert done.returncode != 0
    assert "two.md: WARNING: document isn't included in any toctree" in done.stderr
