"""The console command `evertoken`, and an application of other people's that has our names."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest

from tests.support.daemon import plain_environ
from tests.support.warm import server_for

pytestmark = pytest.mark.slow_suite

SCRIPTS: Final = Path(sys.executable).parent
EVERTOKEN: Final = (str(SCRIPTS / "evertoken"),)
CELERY: Final = (str(SCRIPTS / "celery"), "-A", "worker")
MODULE: Final = (sys.executable, "-m", "celery", "-A", "worker")
THEIRS: Final = 'raise SystemExit("THEIR MODULE")\n'


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, as a person would who has set nothing: what is installed is all that is found."""
    bare = {name: value for name, value in plain_environ().items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=bare | environ, capture_output=True, text=True, timeout=60, check=False
    )


def run_warm(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `evertoken` in a process that starts quickly."""
    environ = plain_environ() | environ
    command = ["-m", "worker.cli.console", *arguments]
    return server_for(environ).run(command, environ=environ, folder=folder, text=None, seconds=60)


@pytest.mark.parametrize(
    ("command", "names"),
    [
        pytest.param(
            EVERTOKEN,
            ("worker.py", "tasks.py", "celeryconfig.py", "settings.py", "redis.py", "celery.py"),
            id="evertoken-modules",
        ),
        pytest.param(
            EVERTOKEN,
            ("worker/__init__.py", "tasks/__init__.py", "celeryconfig/__init__.py"),
            id="evertoken-folders",
            marks=pytest.mark.slow_suite,
        ),
        pytest.param(CELERY, ("tasks/__init__.py", "celeryconfig.py", "settings.py"), id="celery-folders"),
        pytest.param(
            CELERY, ("tasks.py", "celeryconfig/__init__.py"), id="celery-modules", marks=pytest.mark.slow_suite
        ),
        pytest.param(
            MODULE, ("tasks/__init__.py", "celeryconfig.py"), id="python-m-celery", marks=pytest.mark.slow_suite
        ),
    ],
)
def test_the_folder_one_starts_in_shadows_nothing(
    command: tuple[str, ...], names: tuple[str, ...], tmp_path: Path
) -> None:
    """An application's own modules of our names are not imported in place of ours, tasks included."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(THEIRS)

    ran = run(tmp_path, *command, "report")

    assert ran.returncode == 0, ran.stderr
    assert "THEIR" not in ran.stdout + ran.stderr
    assert "tasks.refresh" in ran.stdout
    assert "global_keyprefix" in ran.stdout


def test_the_version_is_that_of_the_package(tmp_path: Path) -> None:
    """`evertoken --version` names our version, not Celery's alone."""
    ran = run(tmp_path, *EVERTOKEN, "--version")

    assert ran.returncode == 0
    assert ran.stdout.startswith(f"evertoken {version('evertoken')} (celery {version('celery')}, Python ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str, tmp_path: Path) -> None:
    """The script that the documentation names is printed for each shell."""
    if shell == "bash" and not any(Path(folder, "bash").exists() for folder in os.environ["PATH"].split(":")):
        pytest.skip("click asks bash for its version, and there is none here")
    ran = run_warm(tmp_path, _EVERTOKEN_COMPLETE=f"{shell}_source")

    assert ran.returncode == 0
    assert "_EVERTOKEN_COMPLETE" in ran.stdout


def test_completion_knows_our_commands(tmp_path: Path) -> None:
    """What begins with `gr` is completed to our `grants`, and to its own commands below it."""
    first = run_warm(tmp_path, _EVERTOKEN_COMPLETE="bash_complete", COMP_WORDS="evertoken gr", COMP_CWORD="1")
    second = run_warm(tmp_path, _EVERTOKEN_COMPLETE="bash_complete", COMP_WORDS="evertoken grants exp", COMP_CWORD="2")

    assert "plain,grants" in first.stdout.split()
    assert "plain,explain" in second.stdout.split()


def test_wrong_use_is_reported_under_our_name(tmp_path: Path) -> None:
    """A command that does not exist ends in a sentence that names `evertoken`, with status 2."""
    ran = run_warm(tmp_path, "grnats")

    assert ran.returncode == 2
    assert "Usage: evertoken" in ran.stderr
    assert "Traceback" not in ran.stderr
