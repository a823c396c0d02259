"""Which creators a consumer may ask about: all, or those that it names by id or by reference; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from worker.errors import UsageError
from worker.policy.creator_id import is_creator_id

LONGEST_REFERENCE: Final = 255
"""Characters; the width of the column."""
MOST_ENTRIES: Final = 1000
"""Entries of one consumer's scope: they are read with its key."""
ANY_END: Final = "*"


def is_reference(text: str) -> bool:
    """Return True if a text can be an operator's own name for a creator."""
    return 0 < len(text) <= LONGEST_REFERENCE and text.isprintable() and text == text.strip()


@dataclass(frozen=True)
class ConsumerScope:
    """Which creators a consumer may ask about.

    Attributes:
        everyone: True for all creators of the app; then nothing else is listed.
        creators: ids of creators.
        references: references of creators; one that ends with `*` is the beginning of many.
    """

    everyone: bool = False
    creators: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()

    def permits(self, creator_id: str, reference: str | None) -> bool:
        """Return True if the creator, whose stored reference is given, is in the scope."""
        if self.everyone or creator_id in self.creators:
            return True
        if reference is None:
            return False
        begins = (each[:-1] for each in self.references if each.endswith(ANY_END))
        return reference in self.references or any(reference.startswith(begin) for begin in begins)


def read_scope(*, everyone: bool, creators: Iterable[str], references: Iterable[str]) -> ConsumerScope:
    """Return the scope that an operator asks for.

    Raises:
        UsageError: it names nobody, contradicts itself, is too long, or an entry cannot be an id or a reference.
    """
    scope = ConsumerScope(everyone, frozenset(creators), frozenset(references))
    listed = len(scope.creators) + len(scope.references)
    if everyone and listed:
        raise UsageError("a consumer gets all creators or those that are named, not both")
    if not everyone and not listed:
        raise UsageError("name the creators of the consumer by --creator or --reference, or give it all with --all")
    if listed > MOST_ENTRIES:
        raise UsageError(
            f"a consumer's scope has at most {MOST_ENTRIES} entries, and these are {listed}; give those creators "
            "references with a common beginning, such as shop7-*"
        )
    for creator_id in scope.creators:
        if not is_creator_id(creator_id):
            raise UsageError("a creator's id has 1 to 255 printable characters without a blank")
    for reference in scope.references:
        if not is_reference(reference) or ANY_END in reference[:-1] or reference == ANY_END:
            raise UsageError(
                f"a reference has 1 to {LONGEST_REFERENCE} printable characters without a blank at its ends; a * may "
                "only be its last character, for all references that begin so"
            )
    return scope
