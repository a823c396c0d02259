"""Debian's packages, unpacked under `build/` without root, for servers that no wheel brings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import pytest

BUILD: Final = Path(__file__).parents[2] / "build"
FETCH_SECONDS: Final = 300
NOTHING: Final = re.compile(r"(?!)")


def program(name: str, package: str) -> str:
    """Return the path of an installed program, else of one from Debian's package, which needs no other.

    Args:
        name: of the program.
        package: of Debian, which has it in `/usr/bin`.
    """
    return shutil.which(name) or str(unpacked(package, NOTHING) / "usr/bin" / name)


def command(name: str, package: str) -> list[str]:
    """Return how a program is started that reads files of its own package in `/usr/share`.

    If it is not installed, a mount namespace of its own shows it the unpacked package's files there. Where the host
    allows none, the test is skipped.

    Args:
        name: of the program.
        package: of Debian, which has it in `/usr/bin`.
    """
    if shutil.which(name):
        return [name]
    path = program(name, package)
    shown = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"']
    shown.append(str(unpacked(package, NOTHING) / "usr/share"))
    if shutil.which("unshare") is None or subprocess.run([*shown, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{package} is not installed, and without a mount namespace it finds no files: install the package")
    return [*shown, path]


def unpacked(package: str, also: re.Pattern[str], *options: str) -> Path:
    """Return the folder that a package and some that it depends on are unpacked in; they are fetched once.

    If that cannot be done the test is skipped, with the reason.

    Args:
        package: its name.
        also: finds names of further packages in what `apt-cache depends` says of it.
        options: options of `apt-cache depends`.
    """
    folder = BUILD / package
    if folder.exists():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip(f"{package} is not installed, and without apt-get it cannot be fetched: install the package")
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        said = _run(package, scratch, "apt-cache", "depends", *options, package)
        _run(package, scratch, "apt-get", "download", *dict.fromkeys([package, *also.findall(said)]))
        for file in Path(scratch).glob("*.deb"):
            _run(package, scratch, "dpkg-deb", "--extract", str(file), "unpacked")
        if not folder.exists():
            Path(scratch, "unpacked").rename(folder)
    return folder


def _run(package: str, folder: str, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        pytest.skip(f"{package} is not installed and cannot be fetched: {command[0]} says {said[-1]}")
    return done.stdout
