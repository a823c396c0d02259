"""Facts: what a use case reports, once for each outcome, to be logged and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FactValue = str | int | float | bool | None


@dataclass(frozen=True)
class Fact:
    """One thing that happened.

    Attributes:
        name: a dotted fact such as `refresh.saved`.
        fields: plain values by words of the glossary; never a token, secret or body.
        level: `info` if all is well, `warning` for what will be tried again, `error` for what a person must see.
    """

    name: str
    fields: Mapping[str, FactValue] = field(default_factory=dict)
    level: str = "info"


Hook = Callable[[Fact], None]
