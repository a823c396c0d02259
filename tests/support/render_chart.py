"""Render a chart with Helm's own engine, in the environment that has it; values are JSON on standard input.

Prints JSON: the manifests by template, and what Helm's linter says; a chart or values that Helm refuses exit 1.
"""

from __future__ import annotations

import json
import sys

from helm_python import Chart, lint
from helm_python.errors import HelmError


def main() -> None:
    """Render the chart that the argument names."""
    values = json.load(sys.stdin)
    try:
        rendered = Chart.load(sys.argv[1]).render(values, name="demo", namespace="tokens")
    except HelmError as error:
        sys.exit(str(error))
    messages = lint(sys.argv[1], values)["messages"]
    json.dump({"rendered": rendered, "messages": messages}, sys.stdout)


if __name__ == "__main__":
    main()
