"""Pictures of a fleet's load and of accounts; the only module that uses matplotlib, an extra loaded when needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker.accounts.look import calendar
from worker.cli.whole_file import whole_file
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.cli.capacity_report import Report
    from worker.planning.course import Course
    from worker.planning.scenarios import Scenario

ACCOUNT_DAYS: Final = 366
"""Most days of an account in a picture."""
KINDS: Final = (".png", ".svg", ".pdf")
POINTS: Final = 720
"""Most points of a line: the picture could not show more."""
LEGEND_ROOM: Final = 1.2
"""How much higher than its highest line a picture is, so that the legend hides nothing."""
QUOTA_SHOWN: Final = 0.2
"""Part of the quota that the highest load must reach for the quota's line to be drawn to scale."""
HOUR: Final = 3600
DAY: Final = 86_400
DAY_STEPS: Final = DAY // 60
BLUE, GREEN, GREY, RED, AMBER = "#1f5fa8", "#7fb069", "#777777", "#b3261e", "#d98e04"


def check(path: Path) -> None:
    """Check, before the work begins, that a picture can be drawn.

    Raises:
        UsageError: matplotlib is not installed, or the file cannot be written.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{path} must end in {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it first, or name another one")
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib: install Evertoken with its extra `plot`")


def draw_report(report: Report, path: Path) -> None:
    """Draw the load of the next day, or for a planned fleet what the renewal fraction trades."""
    if report.ahead:
        _draw_ahead(report, path)
    else:
        _draw_trades(report, path)


def draw_course(scenario: Scenario, course: Course, path: Path) -> None:
    """Draw a simulated course: requests a minute, below them who waits or has no token, and new consents if any end."""
    begin = 0 if scenario.consent is None else max(0, int((scenario.consent - scenario.notice - 5 * DAY) / 60))
    days = [(begin + at) * 60 / DAY for at in _places(len(course.refreshed) - begin)]

    def line(values: Sequence[int], pick: Callable[[Sequence[int]], float] = max) -> list[float]:
        return _thinned(values[begin:], pick)

    figure, (load, people) = _sheet(2)
    load.fill_between(days, line(course.refreshed, _mean), color=BLUE, alpha=0.85, linewidth=0, label="refreshes")
    load.plot(days, line(course.refreshed), color=BLUE, linewidth=0.8, label="busiest minute")
    load.plot(days, line(course.pulled, _mean), color=GREEN, linewidth=1, label="pulls")
    load.plot(days, line(course.permits, _mean), color=GREY, linestyle="--", linewidth=1, label="quota")
    load.set_ylabel("requests a minute")
    people.plot(days, line(course.waiting), color=AMBER, label="due and waiting")
    people.plot(days, line(course.dark), color=RED, label="without a valid token")
    if scenario.consent is not None:
        people.plot(days, line(course.asked), color=GREY, label="to authorize again")
        sums = [sum(course.authorized[at : at + DAY_STEPS]) for at in range(begin, len(course.authorized), DAY_STEPS)]
        places = [begin * 60 / DAY + day for day in range(len(sums))]
        people.plot(places, sums, color=BLUE, drawstyle="steps-post", label="authorize again, in a day")
    people.set_ylabel("creators")
    people.set_xlabel("days since the import")
    load.set_title(f"{scenario.name}: {scenario.story}\n{scenario.creators:,} creators", fontsize=10)
    _finish(figure, (load, people), path)


def draw_account(creator: str, found: dict[str, Any], path: Path) -> None:
    """Draw one creator's account: followers, the figures of each day, and the videos by age and views."""
    figure, (followers, daily, videos) = _sheet(3)
    days = calendar(found, days=ACCOUNT_DAYS)
    places = [day.day for day in days]

    def draw(axis: Any, label: str, values: Sequence[int | None], color: str) -> None:
        # With its marks a day between two that are not known can be seen too.
        known = [math.nan if value is None else value for value in values]
        axis.plot(places, known, color=color, marker=".", markersize=3, label=label)

    draw(followers, "followers", [day.followers for day in days], BLUE)
    name = found["profile"] and found["profile"]["display_name"]
    followers.set_title(f"{name} ({creator})" if name else creator, fontsize=10, parse_math=False)
    for name, color in (("video_views", BLUE), ("profile_views", GREEN), ("likes", AMBER)):
        draw(daily, name.replace("_", " "), [day.figure(name) for day in days], color)
    provisional = [day.day for day in days if day.is_provisional]
    if provisional:
        daily.axvspan(min(provisional), max(provisional), color=GREY, alpha=0.15, label="provisional")
    posted = [video for video in found["videos"] if video["created_at"] is not None]
    when, views = [video["created_at"] for video in posted], [video["video_views"] for video in posted]
    videos.scatter(when, views, s=12, color=BLUE, label="views of the videos posted then")
    _write_dates(videos)
    _finish(figure, (followers, daily, videos), path)


def _draw_ahead(report: Report, path: Path) -> None:
    minutes = report.slice_seconds / 60
    hours = [number * report.slice_seconds / HOUR for number in range(len(report.ahead))]
    figure, (load, people) = _sheet(2)
    load.fill_between(
        hours, [part.sent / minutes for part in report.ahead], color=BLUE, linewidth=0, label="refreshes", step="post"
    )
    quota, most = 60 * report.plan.usable, max(part.sent for part in report.ahead) / minutes
    if most >= QUOTA_SHOWN * quota:
        load.axhline(quota, color=GREY, linestyle="--", linewidth=1, label="quota")
    else:  # drawn to the scale of the quota, a small load would be flat
        load.plot([], [], color=GREY, linestyle="--", label=f"quota: {quota:,.0f}, far above")
    load.set_ylabel("refreshes a minute")
    load.set_title(f"The next 24 hours of {report.load.creators:,} creators", fontsize=10)
    people.plot(hours, [part.waiting for part in report.ahead], color=AMBER, label="due and waiting")
    people.set_ylabel("creators")
    people.set_xlabel("hours from now")
    _finish(figure, (load, people), path)


def _draw_trades(report: Report, path: Path) -> None:
    figure, (plane,) = _sheet(1)
    places = [trade.renew_at for trade in report.trades]
    plane.plot(
        places, [trade.survived / HOUR for trade in report.trades], color=BLUE, marker="o", label="outage survived"
    )
    plane.set_ylabel("hours of outage survived")
    plane.set_xlabel("part of the life at which a token is renewed")
    other = plane.twinx()
    other.plot(places, [trade.per_day for trade in report.trades], color=RED, marker="s", label="refreshes")
    other.set_ylabel("refreshes of one creator in a day")
    other.set_ylim(bottom=0)
    other.legend(loc="upper right", fontsize=8, frameon=False)
    plane.set_title("What the renewal fraction trades", fontsize=10)
    _finish(figure, (plane,), path, legend="upper center")


def _sheet(panels: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra, slow to load
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(8, 2.4 * panels + 0.8), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0].tolist()


def _finish(figure: Any, planes: Sequence[Any], path: Path, *, legend: str = "upper left") -> None:
    for plane in planes:
        highest = plane.get_ylim()[1] if plane.dataLim.ymax > 0 else 1.0
        plane.set_ylim(bottom=0, top=LEGEND_ROOM * highest)
        plane.margins(x=0)
        plane.grid(visible=True, alpha=0.25)
        plane.legend(loc=legend, fontsize=8, frameon=False, ncols=4)
        if highest > 1:  # up to 1, whole numbers would leave an axis with a single mark
            plane.yaxis.set_major_locator(_whole_numbers())
            plane.yaxis.set_major_formatter("{x:,.0f}")
    with whole_file(path, replaces=True) as part:
        figure.savefig(part, format=path.suffix.lower().removeprefix("."))


def _write_dates(plane: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415 - an extra, slow to load

    places = AutoDateLocator()  # type: ignore[no-untyped-call] # matplotlib has no types for it
    plane.xaxis.set_major_locator(places)
    plane.xaxis.set_major_formatter(ConciseDateFormatter(places))  # type: ignore[no-untyped-call] # as above


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - an extra, slow to load

    return MaxNLocator(nbins=6, integer=True)


def _width(count: int) -> int:
    return max(1, -(-count // POINTS))


def _places(count: int) -> range:
    return range(0, count, _width(count))


def _thinned(values: Sequence[int], pick: Callable[[Sequence[int]], float]) -> list[float]:
    width = _width(len(values))
    return [pick(values[start : start + width]) for start in range(0, len(values), width)]


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
