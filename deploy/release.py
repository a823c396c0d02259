"""Build a release into `dist`: both wheels, source archive, bill of materials and the SHA-256 of each; push nothing.

What is built is the last commit, with its time, so that the same commit gives the same bytes on every machine with the
pinned setuptools.
"""  # noqa: INP001 - a script beside the other ones of deploy

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
BUILD: Final = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
SUMS: Final = "SHA256SUMS"
CLIENT: Final = "clients/python"
OURS: Final = "evertoken[-_]*"
"""The names of what is released: a wheel of the client has an underscore after the first word."""


def refusal(version: str, changelog: str, changes: str) -> str | None:
    """Return why this commit is no release, or None.

    Args:
        version: the version of pyproject.toml.
        changelog: the text of CHANGELOG.md.
        changes: what `git status --porcelain` prints.
    """
    if changes:
        return f"the tree is not clean: commit or remove {changes.split()[1]}"
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        return f"CHANGELOG.md has no section [{version}] with a date: write it, or change the version in pyproject.toml"
    if changelog.partition("## [Unreleased]")[2].partition("\n## ")[0].strip():
        return f"CHANGELOG.md has lines under [Unreleased]: raise the version from {version}, and move them under it"
    return None


def build(source: Path, out: Path, seconds: int) -> None:
    """Build the wheel and the source archive of a tree, and the wheel of the client in it.

    Args:
        source: a tree of nothing but committed files.
        out: where they go.
        seconds: the time that every file in them has, since 1970.
    """
    environ = os.environ | {"SOURCE_DATE_EPOCH": str(seconds), "PYTHONHASHSEED": "0", "TZ": "UTC"}
    for folder, kind in ((".", "build_wheel"), (".", "build_sdist"), (CLIENT, "build_wheel")):
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BUILD, kind, out],
            cwd=source / folder, env=environ, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    (archive,) = out.glob("*.tar.gz")
    archive.write_bytes(_without_times(archive.read_bytes(), seconds))


def _without_times(packed: bytes, seconds: int) -> bytes:
    """Return a source archive with one time, one owner and one order: setuptools keeps those of the machine."""
    inner = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as old,
        tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            plain = tarfile.TarInfo(member.name)
            plain.type, plain.size, plain.mtime = member.type, member.size, seconds
            plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(member) if member.isfile() else None)
    outer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=outer, mtime=seconds) as squeezed:
        squeezed.write(inner.getvalue())
    return outer.getvalue()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Check, build, write the sums and print what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the files go; `dist` by default")
    out = parser.parse_args().out.resolve()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if problem := refusal(version, changelog, _git("status", "--porcelain")):
        raise SystemExit(f"no release: {problem}")
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob(OURS), *out.glob(SUMS)]:
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree.tar"
        _git("archive", "--format=tar", f"--output={tree}", "HEAD")
        with tarfile.open(tree) as packed:
            packed.extractall(Path(folder) / "source", filter="data")
        build(Path(folder) / "source", out, int(_git("log", "-1", "--format=%ct")))
    bill = out / f"evertoken-{version}.cdx.json"
    subprocess.run([sys.executable, ROOT / "deploy/sbom.py", "--out", bill], check=True)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(out.glob(OURS))]
    (out / SUMS).write_text("".join(sums), encoding="utf-8")
    sys.stdout.write("".join(sums))
    sys.stdout.write(
        f"\nBuilt into {out}. Nothing was pushed. To release it:\n"
        f"    git tag --annotate v{version} --message 'Evertoken {version}'\n    git push origin v{version}\n"
    )


if __name__ == "__main__":
    main()
