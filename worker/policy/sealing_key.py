"""Choice of the sealing key: a process never writes what another living process cannot read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

LIVING_SECONDS: Final = 600.0
"""A process that was silent for longer counts as gone: others may write what it cannot read."""


@dataclass(frozen=True)
class SealingChoice:
    """Which key a process seals with.

    Attributes:
        key_id: the key; None if no key is held by all processes.
        reason: why this key, for a person.
    """

    key_id: int | None
    reason: str


def choose_sealing_key(*, active: int, shared: Collection[int], lacking: Collection[str]) -> SealingChoice:
    """Return the active key if every living process holds it, otherwise the newest key that all of them hold.

    Args:
        active: the key that this process's keyring wants to seal with.
        shared: the keys that all living processes hold; a higher id is a newer key.
        lacking: names of the living processes that lack the active key.
    """
    if not lacking:
        return SealingChoice(active, "it is the active key, and every living process holds it")
    why = f"the active key {active} is not held by {', '.join(sorted(lacking))}"
    if not shared:
        return SealingChoice(None, f"{why}, and there is no key that all living processes hold")
    return SealingChoice(max(shared), f"{why}; it is the newest key that all living processes hold")
