"""Look for known vulnerabilities of the pinned versions; never report an audit if no source could be asked.

Exit status 0: every pin was looked up and none is known to be vulnerable; 1: one is; 3: not audited, and why.
"""  # noqa: INP001 - a script beside the locks that it reads

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LOCK: Final = Path(__file__).with_name("requirements-dev.lock")
"""The larger of the two locks; a test holds that the server's is a part of it."""
FOUND: Final = 1
NOT_AUDITED: Final = 3
OLDEST_DAYS: Final = 30
"""Advisories on disk that end longer ago say nothing about today; the collection that is read grows every few days."""
ANSWER_SECONDS: Final = 15
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
MODIFIED: Final = re.compile(r"^modified: ['\"]?(\d{4}-\d{2}-\d{2})", re.MULTILINE)


@dataclass
class Report:
    """What one source says.

    Attributes:
        source: its name, for a person.
        known: how many pins it could say something about.
        unknown: names of the pins that it could not.
        findings: a line for each vulnerability.
        problem: why it cannot be relied on, or empty.
    """

    source: str
    known: int = 0
    unknown: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def complete(self) -> bool:
        """True if every pin was looked up."""
        return self.known > 0 and not self.unknown and not self.problem


def main(arguments: list[str]) -> int:
    """Audit, print what was found, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lock", type=Path, default=LOCK)
    parser.add_argument("--osv", metavar="URL", help="ask this mirror of OSV's query address and nobody else")
    parser.add_argument(
        "--advisories", type=Path, metavar="DIR", help="read a checkout of the Python advisory database, ask nobody"
    )
    parser.add_argument("--must", action="store_true", help="exit 1 if nothing could be audited")
    given = parser.parse_args(arguments)
    reports = []
    for report in _reports(given):
        reports.append(report)
        if report.findings:
            print(*report.findings, sep="\n")  # noqa: T201 - what the script is for
            return FOUND
        if report.complete:
            print(f"{report.known} pinned versions, no known vulnerability ({report.source})")  # noqa: T201 - as above
            return 0
    print(f"NOT AUDITED: {'; '.join(map(_shortcoming, reports))}")  # noqa: T201 - as above
    return FOUND if given.must else NOT_AUDITED


def asked(lock: Path, source: str, options: list[str]) -> Report:
    """Ask a service by pip-audit; the report names packages that it does not know, and a service that is away."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", str(ANSWER_SECONDS), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Report(source, problem="does not answer")
    return read_answer(source, dependencies)


def read_answer(source: str, dependencies: list[dict[str, Any]]) -> Report:
    """Return what pip-audit's list of dependencies says."""
    report = Report(source)
    for dependency in dependencies:
        if "skip_reason" in dependency:
            report.unknown.append(dependency["name"])
            continue
        report.known += 1
        for found in dependency["vulns"]:
            names = ", ".join([found["id"], *found["aliases"]])
            report.findings.append(_line(dependency["name"], dependency["version"], names, found["fix_versions"]))
    return report


def looked_up(lock: Path, folder: Path, today: date) -> Report:
    """Look up every pin in a checkout of the Python advisory database, `vulns/NAME/*.yaml`."""
    report = Report(f"advisories in {folder}")
    folders = {canonicalize_name(each.name): each for each in folder.glob("vulns/*/")}
    dates = [found[1] for each in folder.glob("vulns/*/*.yaml") if (found := MODIFIED.search(each.read_text("utf-8")))]
    if not dates:
        report.problem = "are none of the Python advisory database"
        return report
    age = (today - date.fromisoformat(max(dates))).days
    if age > OLDEST_DAYS:
        report.problem = f"end {age} days ago, and more than {OLDEST_DAYS} are too many"
    for name, version in PIN.findall(lock.read_text("utf-8")):
        report.known += 1
        near = folders.get(canonicalize_name(name))
        for path in sorted(near.glob("*.yaml")) if near else ():
            advisory = yaml.safe_load(path.read_text("utf-8"))
            hit, fixes = _affects(advisory, name, Version(version))
            if hit:
                names = ", ".join([advisory["id"], *advisory.get("aliases", [])])
                report.findings.append(_line(name, version, names, fixes))
    return report


def _reports(given: argparse.Namespace) -> Iterator[Report]:
    if given.advisories is not None:
        yield looked_up(given.lock, given.advisories, datetime.now(UTC).date())
    elif given.osv is not None:
        yield asked(given.lock, "the mirror of OSV", ["--vulnerability-service", "osv", "--osv-url", given.osv])
    else:
        yield asked(given.lock, "the package index's advisories", ["--vulnerability-service", "pypi"])
        yield asked(given.lock, "OSV", ["--vulnerability-service", "osv"])


def _affects(advisory: dict[str, Any], name: str, version: Version) -> tuple[bool, list[str]]:
    """Return whether a version is affected, and the versions that are not any more."""
    if advisory.get("withdrawn"):
        return False, []
    hit, fixes = False, []
    for affected in advisory.get("affected", ()):
        package = affected["package"]
        if package.get("ecosystem") != "PyPI" or canonicalize_name(package["name"]) != canonicalize_name(name):
            continue
        hit = hit or any(_parsed(listed) == version for listed in affected.get("versions", ()))
        for each in affected.get("ranges", ()):
            if each["type"] == "ECOSYSTEM":
                hit = hit or _within(each["events"], version)
                fixes += [str(event["fixed"]) for event in each["events"] if "fixed" in event]
    return hit, fixes


def _within(events: list[dict[str, Any]], version: Version) -> bool:
    """Return whether a version is in a range, whose events run in order from `introduced` to `fixed`."""
    inside = False
    for event in events:
        ((kind, at),) = event.items()
        found = _parsed(at)
        if found is None:
            continue
        if kind == "introduced":
            inside = inside or found <= version
        elif found < version or (kind == "fixed" and found == version):
            inside = False
    return inside


def _parsed(text: object) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:
        return None


def _line(name: str, version: str, names: str, fixes: list[str]) -> str:
    return f"{name} {version}: {names}; {'fixed in ' + ', '.join(fixes) if fixes else 'no fixed version is known'}"


def _shortcoming(report: Report) -> str:
    if report.problem or not report.known:
        return f"{report.source} {report.problem or 'know none of the pinned versions'}"
    return f"{report.source} say nothing of {', '.join(report.unknown)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
