"""The plan of one spoilt answer: what the faults that strike it do together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.sandbox.wire import Delivery, Reply


@dataclass(slots=True)
class Plan:
    """What happens to one answer.

    Attributes:
        kinds: the faults that strike.
        works: False where the call is not carried out at all.
        wait_first: seconds before the call is carried out.
        code: an application code and message in place of the call's own answer.
        instead: an HTTP answer in place of the envelope.
        edits: changes of the answer's data.
        altered: whether an edit touches the creator id or a token.
        padding: how many bytes of a useless field stand in the envelope.
        packed: whether the body is gzipped, asked for or not.
        bomb: how many spaces stand after the envelope before it is gzipped.
        delivery: how the answer travels.
    """

    kinds: tuple[str, ...] = ()
    works: bool = True
    wait_first: float = 0.0
    code: tuple[int, str] | None = None
    instead: Reply | None = None
    edits: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)
    altered: bool = False
    padding: int = 0
    packed: bool = False
    bomb: int = 0
    delivery: Delivery = field(default_factory=Delivery)
