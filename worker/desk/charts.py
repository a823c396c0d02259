"""Small charts of an account as SVG, and the sentences that say the same; what is missing is a gap, never zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final

from worker.accounts.look import Day, calendar

HEIGHT: Final = 100
"""Of a drawing; the style stretches it to the page."""
SLOT: Final = 4
"""Width of a day."""
BAR: Final = 3
LEAST_BAR: Final = 1.5
"""Height of the bar of a zero, which is no gap."""

OF_PROFILE: Final = ("display_name", "username", "is_verified")
OF_COUNTERS: Final = ("followers_count", "videos_count")


@dataclass(frozen=True)
class Chart:
    """A drawing of one figure of each day.

    Attributes:
        name: of the figure; letters alone.
        words: what a reader sees in the drawing, as a sentence.
        paths: the style's name of each part of the drawing, and the part as SVG's path.
        least: the figure at the lower edge.
        most: the figure at the upper edge.
    """

    name: str
    words: str
    paths: Mapping[str, str]
    least: int
    most: int
    first: date
    last: date
    width: int
    height: int = HEIGHT


@dataclass(frozen=True)
class Known:
    """What is said of an account above its charts.

    Attributes:
        read_at: when TikTok said so last.
    """

    name: str
    value: str | int
    read_at: datetime


@dataclass(frozen=True)
class Account:
    """What the page of a creator shows of the account.

    Attributes:
        read_at: when all of the account could be read last; None if no profile is known.
        facts: what is said of it above the charts, from the rows that the charts are drawn from.
        days: every day of the charts, those without a figure among them.
        videos: the most viewed videos, as `look` returns them.
    """

    read_at: datetime | None
    facts: Sequence[Known]
    days: Sequence[Day]
    charts: Sequence[Chart]
    videos: Sequence[Mapping[str, Any]]


def account_of(found: Mapping[str, Any]) -> Account | None:
    """Return what is shown of what `look` returned; None if nothing was pulled yet."""
    days = calendar(found)
    if not days and not found["videos"] and found["profile"] is None:
        return None
    charts = [_line("followers", days), _bars("views", days)]
    read_at = None if found["profile"] is None else found["profile"]["read_at"]
    return Account(read_at, _facts(found), days, [chart for chart in charts if chart is not None], found["videos"])


def _facts(found: Mapping[str, Any]) -> list[Known]:
    """Return the newest of each value: a counter that TikTok stopped sending has the instant of its last reading."""
    profile: Mapping[str, Any] = found["profile"] or {}
    facts = [
        Known(name, ("no", "yes")[value] if isinstance(value, bool) else value, profile["read_at"])
        for name in OF_PROFILE
        if (value := profile.get(name)) is not None
    ]
    for name in OF_COUNTERS:
        readings = [row for row in found["counters"] if row[name] is not None]
        facts += [Known(name, row[name], row["read_at"]) for row in readings[-1:]]
    return facts


def _line(name: str, days: Sequence[Day]) -> Chart | None:
    """Draw followers: a line through days in a row, a dot for a day between two gaps."""
    values = [day.followers for day in days]
    known = [value for value in values if value is not None]
    if not known:
        return None
    least, most = min(known), max(known)
    height = _scale(least, most)
    runs = groupby(enumerate(values), lambda each: each[1] is None)
    line = " ".join(
        "M" + " L".join(f"{_middle(at)} {HEIGHT - height(value):g}" for at, value in run if value is not None) + " h0"
        for is_gap, run in runs
        if not is_gap
    )
    gaps = [at for at, value in enumerate(values) if value is None]
    words = f"Followers from {days[0].day} to {days[-1].day}: {known[0]:,} at first, {known[-1]:,} at last, between "
    words += f"{least:,} and {most:,}.{_missing('a reading', gaps, days)}"
    return _chart(name, words, {"line": line, "gap": _gaps(gaps)}, (least, most), days)


def _bars(name: str, days: Sequence[Day]) -> Chart | None:
    """Draw the video views of each day as a bar, which is hollow while the figure is provisional."""
    views = [(at, day, day.figure("video_views")) for at, day in enumerate(days)]
    known = [(at, day, value) for at, day, value in views if value is not None]
    if not known:
        return None
    least, most = min(value for _, _, value in known), max(value for _, _, value in known)
    height = _scale(0, max(most, 1))

    def draw(*, provisional: bool) -> Iterator[str]:
        for at, day, value in known:
            if day.is_provisional is provisional:
                tall = max(LEAST_BAR, height(value))
                yield f"M{_middle(at) - BAR / 2:g} {HEIGHT - tall:g}h{BAR}V{HEIGHT}h-{BAR}z"

    gaps = [at for at, _, value in views if value is None]
    hollow = sum(day.is_provisional for _, day, _ in known)
    words = f"Video views of each day from {days[0].day} to {days[-1].day}: between {least:,} and {most:,}, "
    words += f"{known[-1][2]:,} on {known[-1][1].day}."
    if hollow:
        words += f" Hollow bars are provisional figures: {hollow} of {len(known)} days."
    words += _missing("a figure", gaps, days)
    paths = {"bar": " ".join(draw(provisional=False)), "hollow": " ".join(draw(provisional=True)), "gap": _gaps(gaps)}
    return _chart(name, words, paths, (0, most), days)


def _chart(name: str, words: str, paths: Mapping[str, str], edges: tuple[int, int], days: Sequence[Day]) -> Chart:
    return Chart(
        name=name,
        words=words,
        paths={part: path for part, path in paths.items() if path},
        least=edges[0],
        most=edges[1],
        first=days[0].day,
        last=days[-1].day,
        width=SLOT * len(days),
    )


def _scale(least: int, most: int) -> Callable[[int], float]:
    """Return what makes a figure a height; figures that are all the same are at half the height."""
    spread = most - least
    return lambda value: round((value - least) / spread * HEIGHT, 1) if spread else HEIGHT / 2


def _middle(at: int) -> int:
    return SLOT * at + SLOT // 2


def _gaps(gaps: Sequence[int]) -> str:
    return " ".join(f"M{_middle(at)} 0V{HEIGHT}" for at in gaps)


def _missing(what: str, gaps: Sequence[int], days: Sequence[Day]) -> str:
    return f" Dashed lines are days without {what}: {len(gaps)} of {len(days)}." if gaps else ""
