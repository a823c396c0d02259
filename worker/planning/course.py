"""The result of a simulation: the course of a fleet, minute by minute."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field


def _series() -> array[int]:
    return array("q")


@dataclass
class Course:
    """What happened, step by step.

    Attributes:
        permits: requests that the quota gave.
        refreshed: pairs brought.
        pulled: pulls made.
        failed: attempts that brought no pair.
        waiting: grants that are due and wait, at the step's end.
        darkened: grants whose access token ended in this step.
        dark: grants that have no valid access token at the step's end, and are not to be authorized again.
        braked: 1 if the brake is on at the step's end.
        asked: creators who are to authorize again, at the step's end.
        authorized: new consents.
    """

    permits: array[int] = field(default_factory=_series)
    refreshed: array[int] = field(default_factory=_series)
    pulled: array[int] = field(default_factory=_series)
    failed: array[int] = field(default_factory=_series)
    waiting: array[int] = field(default_factory=_series)
    darkened: array[int] = field(default_factory=_series)
    dark: array[int] = field(default_factory=_series)
    braked: array[int] = field(default_factory=_series)
    asked: array[int] = field(default_factory=_series)
    authorized: array[int] = field(default_factory=_series)
