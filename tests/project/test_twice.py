"""Every command of the pages is safe to run twice: nothing that a person filled in or depends on is lost."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemon import plain_environ

OVERWRITES: Final = re.compile(
    r"(?<![0-9&>-])>(?!>)\s*(?!/dev/null|&)([\w./-]+)|\bcp (?!-n)|\bmv |(?<!--)\brm |\btruncate |\bdd "
)
WORKER: Final = "celery -A worker worker --beat --pidfile worker.pid --loglevel WARNING > worker.log 2>&1 &"
HARMLESS: Final = {
    ("docs/tutorial.md", "cat > .env <<'END'"),  # the same text again
    # A person's own export, which the second run writes again.
    (
        "docs/data.md",
        "celery -A worker accounts export --table account_days --format jsonl --creator CREATOR > days.jsonl",
    ),
    ("docs/tutorial.md", f"kill -0 $(cat worker.pid 2> /dev/null) 2> /dev/null || {WORKER}"),  # a log
}


def commands(text: str) -> list[str]:
    """Return the command lines of a page's indented blocks, without their comments; programs are fenced."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    return [re.sub(r"\s+# .*$", "", line) for line in blocks]


def test_no_command_of_a_page_overwrites_what_is_there(texts: dict[str, str]) -> None:
    """A shell empties the target of `>` before the command can look; a copy asks nobody."""
    documented = {(page, line) for page, text in texts.items() if page.endswith(".md") for line in commands(text)}
    wrong = {
        (page, line)
        for page, line in documented
        if OVERWRITES.search(line)
        and not re.match(r"test -e (\S+) \|\| (cp \S+|openssl [\w -]+ >) \1$", line)
        and "->" not in line
        and not line.startswith("user ")  # an access rule of Redis, where > begins a password
    }

    assert sorted(wrong - HARMLESS) == []
    assert documented >= HARMLESS


@pytest.mark.parametrize(
    ("line", "harmful"),
    [
        ("docker run --rm evertoken:0.1.0 celery -A worker keys new > var/secrets/keyring", True),
        ("cp deploy/env.example .env", True),
        ("printf %s 'THE APP SECRET' > var/secrets/tiktok_app_secret", True),
        ("celery -A worker grants import - < FILE", False),
        ("celery -A worker doctor 2>&1 | less", False),
    ],
)
def test_the_look_for_such_commands_finds_them(line: str, harmful: bool) -> None:
    """What the README had once is found."""
    assert bool(OVERWRITES.search(line)) is harmful


def test_the_readmes_steps_run_twice_leave_everything_as_it_is(
    root: Path, tmp_path: Path, texts: dict[str, str]
) -> None:
    """The steps to the running stack, with a stand-in for Docker that runs the image's command here."""
    lines = commands(texts["README.md"])
    first = next(place for place, line in enumerate(lines) if "env.example" in line)
    steps = lines[first : lines.index("docker compose up --detach") + 1]
    for name in ("deploy/env.example", "deploy/new-secrets.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    docker = tmp_path / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(
        f"""#!/bin/sh
case "$1" in run) shift 4; exec {sys.executable} -m celery "$@" ;; *) exit 0 ;; esac
"""
    )
    docker.chmod(0o755)
    environ = plain_environ() | {"PATH": f"{docker.parent}:{os.environ['PATH']}"}

    def run() -> dict[str, str]:
        script = "set -e\n" + "\n".join(steps)
        subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, check=True, capture_output=True
        )
        return {path.name: path.read_text() for path in (tmp_path / "var/secrets").iterdir()}

    made = run()
    (tmp_path / ".env").write_text("EVERTOKEN_TIKTOK_APP_ID=7\n")
    (tmp_path / "var/secrets/tiktok_app_secret").write_text("mine")
    again = run()

    assert made["keyring"]
    assert again == made | {"tiktok_app_secret": "mine"}
    assert (tmp_path / ".env").read_text() == "EVERTOKEN_TIKTOK_APP_ID=7\n"
