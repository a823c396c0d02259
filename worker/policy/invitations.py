"""How far ahead of the end of a consent its creator is invited again: pure.

Creators who consented together, such as in the week of a launch, have consents that end together a year later. If all
were invited on one day, most would consent again on one day, and the next year would bring the same. So where many ends
meet in one week, first invitations are spread over weeks before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

USUAL_DAYS: Final = 30
EARLIEST_DAYS: Final = 90
CROWDED_SHARE: Final = 0.1
"""A week is crowded if more than this part of the fleet's consents end in it: five times an even spread over a year."""
FEWEST: Final = 20
"""A week with fewer ends is never crowded: so few creators are no trouble."""


def crowded_weeks(ends: Mapping[int, int], *, fleet: int) -> list[int]:
    """Return the numbers of the weeks in which too many consents end.

    Args:
        ends: how many end, by the number of the week.
        fleet: how many grants there are.
    """
    return sorted(week for week, count in ends.items() if count >= FEWEST and count > CROWDED_SHARE * fleet)
