"""axe-core, which looks at a page as a screen reader's user would; npm fetches it into `build/` once."""

from __future__ import annotations

import base64
import functools
import shutil
import subprocess
import tarfile
import tempfile
from hashlib import sha512
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.webdriver import Browser

PACKAGE: Final = "axe-core"
VERSION: Final = "4.14.1"
SHA512: Final = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""Of the package's file, in base64, as lock files of npm name it."""
KEPT: Final = Path(__file__).parents[2] / "build" / PACKAGE / VERSION / "axe.min.js"
FETCH_SECONDS: Final = 120
LOOK: Final = (
    "const done = arguments[0]; axe.run().then((all) => done(all.violations), (error) => done(String(error)));"
)
SERIOUS: Final = frozenset({"serious", "critical"})


def serious_findings(browser: Browser) -> list[str]:
    """Return what axe finds serious or critical on the page that the browser shows; the test is skipped without axe."""
    browser.run(axe_script())
    found: list[dict[str, Any]] = browser.later(LOOK)
    assert isinstance(found, list), found
    return [f"{each['id']}: {node['html']}" for each in found if each["impact"] in SERIOUS for node in each["nodes"]]


@functools.cache
def axe_script() -> str:
    """Return axe-core's script, fetched where it is not at hand; skip the test where it cannot be fetched."""
    if not KEPT.exists():
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            KEPT.write_bytes(_fetched(Path(folder)))
    return KEPT.read_text(encoding="utf-8")


def _fetched(folder: Path) -> bytes:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("axe-core is not in build/, and npm, which fetches it, is not installed")
    try:
        packed = subprocess.run(
            [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"],
            cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not fetch {PACKAGE} within {FETCH_SECONDS} s")
    if packed.returncode != 0:
        pytest.skip(f"npm could not fetch {PACKAGE}: {packed.stderr.strip()[-300:]}")
    file = folder / f"{PACKAGE}-{VERSION}.tgz"
    assert base64.b64encode(sha512(file.read_bytes()).digest()).decode() == SHA512, "npm fetched another package"
    with tarfile.open(file) as content:
        script = content.extractfile("package/axe.min.js")
        assert script is not None
        return script.read()
