"""What the code may log above the level `info`, read from its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

FACT: Final = re.compile(r"[a-z]+\.[a-z_]*")


def loud_facts(code: str, *, errors_alone: bool = False) -> Iterator[str]:
    """Yield the names of the facts that a module may log at a level above `info`; `refresh.` if it makes one up.

    Args:
        code: the module's text.
        errors_alone: True for the levels `error` and `critical` alone.
    """
    loggers = {"error", "exception", "critical"} | (set() if errors_alone else {"warning"})
    for call in ast.walk(ast.parse(code)):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        called = getattr(call.func, "id", getattr(call.func, "attr", ""))
        # What has a stack goes to a logger, by the name that comes first.
        first = str(getattr(call.args[0], "value", ""))
        if called in loggers and FACT.fullmatch(first):
            yield first
        levels = [keyword.value for keyword in call.keywords if keyword.arg == "level"] + call.args[2:]
        loud = bool(levels) and not (called == "_report" and ast.unparse(call.args[-1]) == "'info'")
        if errors_alone:
            loud = any(getattr(part, "value", "") == "error" for level in levels for part in ast.walk(level))
        if called in {"Fact", "_report"} and loud:
            named = call.args[: 2 if called == "_report" else 1]
            for part in (part for given in named for part in ast.walk(given)):
                if isinstance(part, ast.Constant) and FACT.fullmatch(str(part.value)):
                    yield str(part.value)
