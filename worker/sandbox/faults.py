"""Faults that can be switched on while the sandbox runs, for one creator or all, for one call or all."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from worker.sandbox.fault_kinds import MAKERS, Plan

CALLS: Final = {
    "token": "tt_user/oauth2/token/",
    "refresh": "tt_user/oauth2/refresh_token/",
    "revoke": "tt_user/oauth2/revoke/",
    "token_info": "tt_user/token_info/get/",
    "account": "business/get/",
    "videos": "business/video/list/",
    "comments": "business/comment/list/",
    "replies": "business/comment/reply/list/",
    "benchmark": "business/benchmark/",
    "mentions": "business/mention/video/list/",
    "mention": "business/mention/video/get/",
    "mention_comments": "business/mention/comment/list/",
    "mention_words": "business/mention/top_word/list/",
    "mention_hashtags": "business/mention/top_hashtag/list/",
    "video_settings": "business/video/settings/",
    "publish_status": "business/publish/status/",
    "hashtags": "business/hashtag/suggestion/",
    "locations": "business/publish/location/",
    "properties": "business/property/list/",
}
"""Short names of the calls and their paths."""


class FaultError(ValueError):
    """A fault is described wrongly; the text is one sentence for a person."""


@dataclass(slots=True)
class Fault:
    """One fault: when it strikes and what it does to the plan of an answer."""

    number: int
    described: dict[str, Any]
    make: Callable[[Plan], None] = field(repr=False)
    creator: str | None
    path: str | None
    left: int | None
    probability: float
    hits: int = 0

    def to_json(self) -> dict[str, Any]:
        """Describe the fault as it was set, with its counts."""
        return {"id": self.number, **self.described, "left": self.left, "hits": self.hits}


class FaultBook:
    """The faults in force.

    Args:
        seed: seed of the draws for those with a probability.
    """

    def __init__(self, seed: int) -> None:
        self._faults: dict[int, Fault] = {}
        self._next = 1
        self._draw = random.Random(seed)  # noqa: S311  # draws of faults, repeatable on purpose
        self.hits = 0

    def add(self, described: dict[str, Any]) -> int:
        """Switch a fault on.

        Args:
            described: `kind`, when it strikes (`creator`, `call`, `times`, `probability`), and the kind's own settings.

        Raises:
            FaultError: for an unknown kind, setting or value.
        """
        how = dict(described)
        kind, creator, call = how.pop("kind", None), how.pop("creator", None), how.pop("call", None)
        times, probability = how.pop("times", None), how.pop("probability", 1.0)
        if kind not in MAKERS:
            raise FaultError(f"kind: there are {', '.join(sorted(MAKERS))}")
        if call is not None and call not in CALLS:
            raise FaultError(f"call: there are {', '.join(CALLS)}")
        if times is not None and (type(times) is not int or times < 1):
            raise FaultError("times: a whole number from 1 is wanted")
        if not isinstance(probability, int | float) or not 0 <= probability <= 1:
            raise FaultError("probability: a number from 0 to 1 is wanted")
        try:
            make = MAKERS[kind](**how)
        except (TypeError, ValueError) as error:
            raise FaultError(f"{kind}: {error}") from None
        number, self._next = self._next, self._next + 1
        path = CALLS[call] if call is not None else None
        self._faults[number] = Fault(number, dict(described), make, creator, path, times, probability)
        return number

    def remove(self, numbers: list[int] | None) -> None:
        """Switch some faults off, or all."""
        for number in list(self._faults) if numbers is None else numbers:
            self._faults.pop(number, None)

    def listed(self) -> list[dict[str, Any]]:
        """Describe the faults in force."""
        return [fault.to_json() for fault in self._faults.values()]

    def plan(self, path: str, creator: str | None) -> Plan | None:
        """Draw which faults strike this call and combine them; None if none does."""
        plan: Plan | None = None
        for fault in list(self._faults.values()):
            if fault.path not in {None, path} or fault.creator not in {None, creator}:
                continue
            if fault.probability < 1 and self._draw.random() >= fault.probability:
                continue
            plan = plan or Plan()
            fault.make(plan)
            plan.kinds += (fault.described["kind"],)
            fault.hits += 1
            self.hits += 1
            if fault.left is not None:
                fault.left -= 1
                if not fault.left:
                    del self._faults[fault.number]
        return plan
