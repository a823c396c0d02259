"""Pages as a person gets them: through a real browser, and as plain answers of HTTP."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import requests

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-extensions",
)  # fmt: skip
PATIENCE_MILLISECONDS: Final = 10_000
"""Of the page's own time: its scripts fetch their tables in it."""
PAGE_SECONDS: Final = 60.0
TRIES: Final = 3


def browser_program() -> str | None:
    """Return a Chromium of this machine."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """A headless Chromium with a fresh profile for each page."""

    runs_scripts = True

    def __init__(self, program: str, user: str, password: str) -> None:
        """Start no browser yet.

        Args:
            program: the Chromium.
            user: name for pages that ask for one.
            password: password for those pages.
        """
        self._program = program
        self._login = f"{quote(user, safe='')}:{quote(password, safe='')}"

    def get(self, url: str) -> bytes:
        """Return a page as it stands after its scripts have run; one that comes too late is asked for again."""
        for _ in range(TRIES):
            with tempfile.TemporaryDirectory(prefix="evertoken-browser-", ignore_cleanup_errors=True) as profile:
                page = self._run(url, f"--user-data-dir={profile}", "--dump-dom").stdout
            if page:
                return page
        return b""

    def picture(self, url: str, path: Path) -> None:
        """Put a picture of a page into a file."""
        with tempfile.TemporaryDirectory(prefix="evertoken-browser-", ignore_cleanup_errors=True) as profile:
            self._run(url, f"--user-data-dir={profile}", "--window-size=1400,1000", f"--screenshot={path}")

    def _run(self, url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        parts = urlsplit(url)
        login = urlunsplit(parts._replace(netloc=f"{self._login}@{parts.netloc}"))
        budget = f"--virtual-time-budget={PATIENCE_MILLISECONDS}"
        done = subprocess.run(
            [self._program, *FLAGS, budget, *arguments, login], capture_output=True, timeout=PAGE_SECONDS, check=False
        )
        assert done.returncode == 0, f"the browser ended with status {done.returncode} at {parts.path}"
        return done


class PlainClient:
    """Fetches what a browser would be sent, without running any script."""

    runs_scripts = False

    def __init__(self, user: str, password: str) -> None:
        self._login = (user, password)

    def get(self, url: str) -> bytes:
        """Return an answer's body; the status may be any."""
        return requests.get(url, auth=self._login, timeout=PAGE_SECONDS).content
