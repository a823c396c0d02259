"""The audit finds what is known, and never reports that all is well if it could ask nobody."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

HASH: Final = " \\\n    --hash=sha256:" + "0" * 64 + "\n"
TODAY: Final = date(2026, 11, 23)
ADVISORY: Final = """\
id: PYSEC-2026-7
details: Something.
affected:
- package:
    name: Old.Thing
    ecosystem: PyPI
  ranges:
  - type: ECOSYSTEM
    events:
    - introduced: "0"
    - fixed: 1.2.0
    - introduced: "2.0"
    - last_affected: "2.3"
  versions: [3.0rc1, not a version]
aliases: [CVE-2026-7]
modified: "2026-11-20T00:00:00Z"
"""


class Mirror(ThreadingHTTPServer):
    """A mirror of OSV that knows one vulnerability, or has gone wrong."""

    knows: str = ""
    broken: bool = False


class Answer(BaseHTTPRequestHandler):
    """Answers a query about one version of one package."""

    server: Mirror

    def do_POST(self) -> None:
        """Answer as OSV does."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found: dict[str, Any] = {}
        if asked["package"]["name"] == self.server.knows:
            package = {"name": self.server.knows, "ecosystem": "PyPI"}
            ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.3"}]}]
            vulnerability = {"id": "PYSEC-2026-7", "aliases": ["CVE-2026-7"], "summary": "Something.", "details": "It."}
            found = {"vulns": [{**vulnerability, "affected": [{"package": package, "ranges": ranges}]}]}
        body = b"" if self.server.broken else json.dumps(found).encode()
        self.send_response(503 if self.server.broken else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name that it has above
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    """A mirror on a free port."""
    with Mirror(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of two packages."""
    path = tmp_path / "lock.txt"
    path.write_text(f"old-thing==1.2.3{HASH}new-thing==0.1 ; python_version >= '3'{HASH}", encoding="utf-8")
    return path


@pytest.fixture
def audit(root: Path, lock: Path) -> Callable[..., tuple[int, list[str]]]:
    """Return a runner of the audit over that lock: its exit status and its lines."""

    def run(*arguments: str) -> tuple[int, list[str]]:
        command = [sys.executable, str(root / "deploy/audit.py"), "--lock", str(lock), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ran.stderr == ""
        return ran.returncode, ran.stdout.splitlines()

    return run


def test_a_service_is_believed_if_it_answers(audit: Callable[..., tuple[int, list[str]]], mirror: Mirror) -> None:
    """Nothing known is 0, something known is 1 with its names and the version that is free of it."""
    url = f"http://127.0.0.1:{mirror.server_port}/v1/query"

    assert audit("--osv", url) == (0, ["2 pinned versions, no known vulnerability (the mirror of OSV)"])
    mirror.knows = "old-thing"
    assert audit("--osv", url) == (1, ["old-thing 1.2.3: PYSEC-2026-7, CVE-2026-7; fixed in 1.3"])


def test_a_service_that_does_not_answer_is_no_audit(
    audit: Callable[..., tuple[int, list[str]]], mirror: Mirror
) -> None:
    """One line says so, with a status of its own; or a failure, for who wants to be sure."""
    mirror.broken = True
    url = f"http://127.0.0.1:{mirror.server_port}/v1/query"
    line = ["NOT AUDITED: the mirror of OSV does not answer"]

    assert audit("--osv", url) == (3, line)
    assert audit("--osv", url, "--must") == (1, line)


@pytest.fixture
def names(root: Path) -> dict[str, Any]:
    """The script's own names."""
    return runpy.run_path(str(root / "deploy/audit.py"))


def test_a_package_that_the_service_does_not_know_is_no_audit(names: dict[str, Any]) -> None:
    """An index without advisories skips every package; what is skipped is not well."""
    known = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "not found"}

    assert names["read_answer"]("x", [known]).complete
    assert not names["read_answer"]("x", [known, skipped]).complete
    assert not names["read_answer"]("x", [skipped]).complete
    assert not names["read_answer"]("x", []).complete


@pytest.fixture
def advisories(tmp_path: Path) -> Path:
    """A checkout of the advisory database with one advisory."""
    folder = tmp_path / "database" / "vulns" / "old-thing"
    folder.mkdir(parents=True)
    (folder / "PYSEC-2026-7.yaml").write_text(ADVISORY, encoding="utf-8")
    return tmp_path / "database"


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        *(("1.1.9", True), ("1.2.0", False), ("1.9", False)),
        *(("2.0", True), ("2.3", True), ("2.3.1", False)),
        *(("3.0rc1", True), ("3.0", False)),
    ],
)
def test_an_advisory_on_disk_is_matched_by_version(
    names: dict[str, Any], advisories: Path, lock: Path, version: str, *, affected: bool
) -> None:
    """Ranges are entered and left, listed versions count, and names are compared as indexes do."""
    lock.write_text(f"Old_Thing=={version}{HASH}other==1{HASH}", encoding="utf-8")
    report = names["looked_up"](lock, advisories, TODAY)

    assert report.complete
    assert report.known == 2
    line = f"Old_Thing {version}: PYSEC-2026-7, CVE-2026-7; fixed in 1.2.0"
    assert report.findings == ([line] if affected else [])


def test_a_withdrawn_advisory_is_none(names: dict[str, Any], advisories: Path, lock: Path) -> None:
    """What was taken back does not stop a release."""
    path = advisories / "vulns/old-thing/PYSEC-2026-7.yaml"
    path.write_text(f"{ADVISORY}withdrawn: '2026-11-21T00:00:00Z'\n", encoding="utf-8")
    lock.write_text(f"old-thing==1.0{HASH}", encoding="utf-8")

    assert names["looked_up"](lock, advisories, TODAY).findings == []


def test_old_advisories_are_no_audit(names: dict[str, Any], advisories: Path, lock: Path) -> None:
    """They still name what they know, and are silent about everything since."""
    month = names["looked_up"](lock, advisories, date(2026, 12, 20))
    later = names["looked_up"](lock, advisories, date(2026, 12, 21))

    assert (month.complete, later.complete) == (True, False)
    assert later.problem == "end 31 days ago, and more than 30 are too many"
    lock.write_text(f"old-thing==1.0{HASH}", encoding="utf-8")
    assert names["looked_up"](lock, advisories, datetime.now(UTC).date().replace(year=2030)).findings


def test_a_folder_without_advisories_is_no_audit(audit: Callable[..., tuple[int, list[str]]], tmp_path: Path) -> None:
    """A wrong path does not pass for a clean bill."""
    status, lines = audit("--advisories", str(tmp_path))

    assert (status, len(lines)) == (3, 1)
    assert lines[0].startswith("NOT AUDITED: ")
