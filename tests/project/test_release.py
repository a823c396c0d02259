"""What is released: a wheel that runs, the same bytes from two builds, and a bill that names every pin."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest

from tests.project.conftest import NOT_OURS
from tests.support.daemon import plain_environ

EPOCH: Final = 1_790_000_000
NOBODY: Final = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
CHANGELOG: Final = "# Changelog\n\n## [Unreleased]\n\n## [0.9.0] - 2026-11-26\n\n### Added\n\n- This.\n"


@pytest.fixture(scope="module")
def tree(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as a commit has it: no caches and no environment."""
    copy = tmp_path_factory.mktemp("tree") / "evertoken"
    shutil.copytree(root, copy, ignore=lambda _, names: {name for name in names if NOT_OURS.match(name)})
    return copy


@pytest.fixture(scope="module")
def release(root: Path) -> dict[str, Any]:
    """The functions of the release script."""
    return runpy.run_path(str(root / "deploy/release.py"))


@pytest.fixture(scope="module")
def built(tree: Path, release: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the source archive and the client's wheel."""
    out = tmp_path_factory.mktemp("dist")
    release["build"](tree, out, EPOCH)
    return out


@pytest.mark.slow_suite
def test_the_wheel_runs_in_an_environment_of_its_own(built: Path, tmp_path: Path, project: dict[str, Any]) -> None:
    """Installed beside nothing but its libraries it says its version, lists its commands and makes a database."""
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "bare/bin/python"
    (wheel,) = built.glob("evertoken-*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet",
         "--no-deps", "--no-index", wheel],
        check=True,
    )  # fmt: skip
    (site,) = (tmp_path / "bare/lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    environ = {name: value for name, value in plain_environ().items() if name != "PYTHONPATH"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60)

    found = run(str(python), "-c", "import worker; print(worker.__file__)")
    version, listed = (run(str(python.with_name("evertoken")), option) for option in ("--version", "--help"))
    environ |= {
        "EVERTOKEN_DATABASE_URL": f"sqlite:///{tmp_path / 'evertoken.db'}", "EVERTOKEN_TIKTOK_APP_ID": "7",
        "EVERTOKEN_TIKTOK_APP_SECRET": "secret", "EVERTOKEN_TIKTOK_REDIRECT_URI": "https://app.example/",
        "EVERTOKEN_KEYRING": run(str(python.with_name("evertoken")), "keys", "new").stdout,
    }  # fmt: skip
    migrated = run(str(python.with_name("evertoken")), "db", "upgrade")
    open_flower = run(str(python.with_name("evertoken")), "flower", "--port=0")

    assert found.stdout.startswith(str(tmp_path))
    assert version.stdout.startswith(f"evertoken {project['project']['version']} (celery ")
    assert {"doctor", "grants", "worker"} <= set(listed.stdout.split())
    assert migrated.stdout.startswith("made a new, empty database"), migrated.stderr
    assert (open_flower.returncode, "Flower needs a password" in open_flower.stderr) == (1, True), open_flower.stderr


@pytest.mark.slow_suite
def test_wheel_and_source_archive_are_whole(built: Path, tree: Path) -> None:
    """The wheel has the code with all its files, and the licence; the archive has all that a commit has."""
    paths = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]
    names = {path.as_posix() for path in paths if not any(map(NOT_OURS.match, path.parts))}  # the build left some here
    with (
        zipfile.ZipFile(next(built.glob("evertoken-*.whl"))) as wheel,
        tarfile.open(next(built.glob("*.tar.gz"))) as archive,
    ):
        in_wheel = set(wheel.namelist())
        in_archive = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}

    assert {"worker/py.typed", "worker/desk/static/desk.css", "deploy/systemd/evertoken-beat.service"} <= names
    assert sorted(name for name in names if name.startswith(("worker/", "tasks/")) and name not in in_wheel) == []
    assert any(name.endswith("/LICENSE") for name in in_wheel)
    assert sorted(names - in_archive) == []


@pytest.mark.slow_suite
def test_the_client_runs_alone(built: Path, tmp_path: Path) -> None:
    """A release has its wheel, which has the licence and needs nothing beside it."""
    (wheel,) = built.glob("evertoken_client-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    imports = "import sys; sys.path.insert(0, sys.argv[1]); import evertoken_client"
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", imports, wheel], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert {name.rpartition("/")[2] for name in names} >= {"__init__.py", "py.typed", "LICENSE"}
    assert ran.returncode == 0, ran.stderr


def test_the_client_has_the_licence_of_the_project(root: Path) -> None:
    """A package that is given on alone carries it along."""
    assert (root / "clients/python/LICENSE").read_bytes() == (root / "LICENSE").read_bytes()


def test_the_page_of_the_package_stands_alone(root: Path, project: dict[str, Any]) -> None:
    """A package index shows it without the files around it, so it links to none of them; each extra is named."""
    page = (root / project["project"]["readme"]).read_text(encoding="utf-8")

    assert re.findall(r"\]\((?!https://)([^)]*)\)|<(?:img|a) ", page) == []
    assert [extra for extra in project["project"]["optional-dependencies"] if f"`{extra}`" not in page] == ["dev"]


@pytest.mark.slow_suite
def test_two_builds_of_one_commit_give_the_same_bytes(
    built: Path, tree: Path, release: dict[str, Any], tmp_path: Path
) -> None:
    """Whoever builds the tag compares the sums; a later time and another folder change nothing."""
    other = tmp_path / "elsewhere"
    shutil.copytree(tree, other, ignore=lambda _, names: {name for name in names if NOT_OURS.match(name)})
    for path in other.rglob("*"):
        os.utime(path, (EPOCH + 9, EPOCH + 9))
    release["build"](other, tmp_path / "out", EPOCH)

    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()} == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").iterdir()
    }
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        assert {member.mtime for member in packed.getmembers()} == {EPOCH}


@pytest.mark.slow_suite
def test_a_release_is_built_from_a_clean_commit_and_pushed_by_a_person(tree: Path, tmp_path: Path) -> None:
    """The script refuses what is not committed, then writes every file with its sum and names the tag."""
    here = tmp_path / "evertoken"
    shutil.copytree(tree, here, ignore=lambda _, names: {name for name in names if NOT_OURS.match(name)})
    text = (here / "pyproject.toml").read_text(encoding="utf-8")
    (here / "pyproject.toml").write_text(re.sub(r'^version = ".*"$', 'version = "0.9.0"', text, flags=re.MULTILINE))
    (here / "CHANGELOG.md").write_text(CHANGELOG)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=here, capture_output=True, text=True, check=False, timeout=120)

    for words in (["init", "-q"], ["add", "--all"], ["commit", "-q", "--message", "All"]):
        assert run("git", *NOBODY, *words).returncode == 0
    (here / "left.txt").touch()
    refused = run(sys.executable, "deploy/release.py", "--out", str(tmp_path / "dist"))
    (here / "left.txt").unlink()
    done = run(sys.executable, "deploy/release.py", "--out", str(tmp_path / "dist"))

    assert refused.stderr == "no release: the tree is not clean: commit or remove left.txt\n"
    assert done.returncode == 0, done.stderr
    assert "git tag --annotate v0.9.0" in done.stdout
    assert run("git", "tag").stdout == ""
    sums = dict(line.split("  ")[::-1] for line in (tmp_path / "dist/SHA256SUMS").read_text().splitlines())
    assert sorted(re.sub(r"-\d.*?(?=\.\D|-py)", "", name) for name in sums) == [
        "evertoken-py3-none-any.whl", "evertoken.cdx.json", "evertoken.tar.gz", "evertoken_client-py3-none-any.whl",
    ]  # fmt: skip
    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "dist").iterdir()
        if path.name != "SHA256SUMS"
    }


@pytest.mark.parametrize(
    ("changelog", "changes", "said"),
    [
        (CHANGELOG, "", None),
        (CHANGELOG, "M  worker/store/store.py", "commit or remove worker/store/store.py"),
        (CHANGELOG.replace("0.9.0", "0.8.0"), "", r"has no section \[0.9.0\] with a date"),
        (CHANGELOG.replace(" - 2026-11-26", ""), "", r"has no section \[0.9.0\] with a date"),
        (CHANGELOG.replace("## [0.9.0]", "- New.\n\n## [0.9.0]"), "", r"lines under \[Unreleased\]"),
    ],
)
def test_what_is_no_release_is_refused(changelog: str, changes: str, said: str | None, release: dict[str, Any]) -> None:
    """A version is released once, with its changes told, from what is committed."""
    found = release["refusal"]("0.9.0", changelog, changes)

    assert found is said if said is None else re.search(said, found)


def test_the_bill_names_every_pin_of_the_server(root: Path, project: dict[str, Any], texts: dict[str, str]) -> None:
    """It has the fields that CycloneDX asks for, each reference leads to a component, and each file's hash is there."""
    make = runpy.run_path(str(root / "deploy/sbom.py"))["bill"]
    lock = texts["deploy/requirements.lock"]
    found = make(project["project"], lock)

    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found["serialNumber"])
    parts = found["components"]
    pins = re.findall(r"^(\S+==[^\s;]+)", lock, re.MULTILINE)
    assert [f"{part['name']}=={part['version']}" for part in parts] == pins
    for part in [*parts, found["metadata"]["component"]]:
        assert part["type"] in {"application", "library"}
        assert part["purl"] == part["bom-ref"]
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[\w.]+", part["purl"])
    references = {part["bom-ref"] for part in parts} | {found["metadata"]["component"]["bom-ref"]}
    assert len(references) == len(parts) + 1
    assert {node["ref"] for node in found["dependencies"]} == references
    assert {name for node in found["dependencies"] for name in node.get("dependsOn", ())} < references
    hashes = [each["value"] for part in parts for each in part["properties"] if each["name"] == "evertoken:sha256"]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", lock))
    assert json.dumps(make(project["project"], lock)) == json.dumps(found)


def test_a_line_of_the_lock_that_is_no_pin_ends_the_bill(root: Path, project: dict[str, Any]) -> None:
    """A bill that leaves something out would be believed."""
    make = runpy.run_path(str(root / "deploy/sbom.py"))["bill"]

    with pytest.raises(SystemExit, match="a line that is no pin: 'celery>=5'"):
        make(project["project"], "celery>=5\n")
