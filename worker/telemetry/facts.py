"""Facts: what a use case reports, once per outcome, to whoever counts or writes it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

FactValue = str | int | float | bool | None


@dataclass(frozen=True)
class Fact:
    """One thing that happened.

    Attributes:
        name: a dotted fact such as `refresh.saved`.
        fields: glossary words to plain values; never a token, secret or body.
        level: `info` for the usual, `warning` for what will be tried again, `error` for what a person must see.
    """

    name: str
    fields: Mapping[str, FactValue] = field(default_factory=dict)
    level: str = "info"


Hook = Callable[[Fact], None]
