"""What use cases share, with nobody in the places that a test does not need."""

from __future__ import annotations

import threading
from typing import Any, Final

from worker.failpoints import no_failpoint
from worker.ground import Ground
from worker.telemetry import Fact

NOBODY: Final[Any] = None


def silent(fact: Fact) -> None:
    """Take a fact and do nothing with it."""


def ground_of(**parts: Any) -> Ground:
    """Return what use cases share, made of the parts that a test has."""
    usual: dict[str, Any] = dict.fromkeys(("store", "sealer", "journal", "limiter", "tiktok"), NOBODY)
    usual |= {"hook": silent, "owner": "test", "stop": threading.Event(), "failpoint": no_failpoint}
    return Ground(**usual | parts)
