"""Write a software bill of materials (CycloneDX, JSON) of what a server installs, from its lock file.

The same lock and version give the same bytes: the serial number is made from what is in it, and no time is.
"""  # noqa: INP001 - a script beside the lock that it reads

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
LOCK: Final = HERE / "requirements.lock"
PROJECT: Final = HERE.parent / "pyproject.toml"
PIN: Final = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)(?: ; (?P<marker>.+?))? *\\?$", re.MULTILINE)
HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def bill(project: dict[str, Any], lock: str) -> dict[str, Any]:
    """Return the bill of a version.

    Args:
        project: the table `project` of pyproject.toml.
        lock: the lock's text: each pin with the SHA-256 of every file that may be installed for it.
    """
    ours = _component(project["name"], project["version"], kind="application")
    ours["licenses"] = [{"license": {"id": project["license"]}}]
    parts = list(_pins(lock))
    names = [part["bom-ref"] for part in parts]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([ours, parts]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": ours},
        "components": parts,
        # A lock does not say which of its packages asks for which.
        "dependencies": [{"ref": ours["bom-ref"], "dependsOn": names}, *({"ref": name} for name in names)],
    }


def _pins(lock: str) -> Iterator[dict[str, Any]]:
    for block in re.split(r"\n(?=\S)", lock.strip()):
        found = PIN.match(block)
        if found is None:
            raise SystemExit(f"the lock has a line that is no pin: {block.splitlines()[0][:80]!r}")
        part = _component(found["name"], found["version"], kind="library")
        part["properties"] = [{"name": "evertoken:sha256", "value": value} for value in HASH.findall(block)]
        if found["marker"]:
            part["properties"].append({"name": "evertoken:marker", "value": found["marker"]})
        yield part


def _component(name: str, version: str, *, kind: str) -> dict[str, Any]:
    address = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    return {"type": kind, "bom-ref": address, "name": name, "version": version, "purl": address}


def main() -> None:
    """Write the bill to standard output, or to the file that `--out` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the file to write; standard output by default")
    given = parser.parse_args()
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    text = json.dumps(bill(project, LOCK.read_text(encoding="utf-8")), indent=2) + "\n"
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
