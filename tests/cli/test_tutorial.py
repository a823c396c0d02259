"""The tutorial does what it says: its commands are run as they stand, on other ports and with shorter lives."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemon import plain_environ
from worker.sandbox.ledger import read_ledger
from worker.sandbox.verdict import REFRESH_CALL

ROOT: Final = Path(__file__).parents[2]
TERMINALS: Final = 2
"""How many of the blocks after the setup serve until they are ended; the third terminal has the rest."""
FASTER: Final = {
    "--expires-in 120": "--expires-in 18",
    "sleep 90": "sleep 15",
    "--min-validity 20": "--min-validity 2",
    "grants revoke ada ": "grants revoke ada --yes ",
    "grants forget ada ": "grants forget ada --yes ",
}
"""What is written, and what is run: the same in less time, and without a person who says yes."""


def blocks(page: str) -> list[str]:
    """Return the blocks of commands of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    ]


@pytest.mark.night
@pytest.mark.timeout(300)
def test_the_tutorial_does_what_it_says(
    tmp_path: Path, free_ports: Callable[[], int], wait_until: Callable[..., None]
) -> None:
    """A creator consents, is pulled, refreshed, served, revoked and forgotten, by the page's own commands."""
    changes = FASTER | {"8599": str(free_ports()), "6399": str(free_ports())}
    text = "\n--\n".join(blocks("docs/tutorial.md")[1:])
    for written, run in changes.items():
        assert written in text
        text = text.replace(written, run)
    parts = text.split("\n--\n")
    environ = plain_environ() | {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
    environ = {name: value for name, value in environ.items() if not name.startswith("EVERTOKEN_")}
    servers = [
        subprocess.Popen(["sh", "-c", f"exec {command}"], cwd=tmp_path, env=environ, stdout=subprocess.DEVNULL)
        for command in parts[:TERMINALS]
    ]
    try:
        wait_until((tmp_path / "ledger.jsonl").exists, 20)
        done = subprocess.run(
            ["sh", "-c", "\n".join(parts[TERMINALS:])],
            cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=270, check=False,
        )  # fmt: skip
    finally:
        for server in servers:
            server.terminate()
            server.wait(20)
        with suppress(OSError, ValueError):
            subprocess.run(["kill", (tmp_path / "worker.pid").read_text().strip()], check=False, capture_output=True)

    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("each link works once") == 1
    assert "attempt 2 of consent 1" in done.stdout
    assert "TikTok gave a new pair, and it was stored" in done.stdout
    assert len(re.findall(r"^act\.\S+$", done.stdout, re.MULTILINE)) == 1
    assert "creator ada is revoked, and the tokens are wiped" in done.stdout
    assert re.search(r"ada.*forgotten", done.stdout)
    refreshes = [entry for entry in read_ledger(tmp_path / "ledger.jsonl") if entry.call == REFRESH_CALL]
    assert len({entry.fp_old_refresh for entry in refreshes}) == len(refreshes) > 0
