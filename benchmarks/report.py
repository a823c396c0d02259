"""What the benchmark found, as tables for people, JSON for programs, and a picture of where the time goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Contender, Run
from benchmarks.growth import Growth
from benchmarks.rest import Rest
from benchmarks.sampling import OTHER, STEPS

HOME: Final = "home-made"
LOOP: Final = "bare loop"
COLOURS: Final = (
    *("#4477aa", "#99ddaa", "#66ccee", "#228833", "#ccbb44", "#ee6677", "#aa3377", "#ee9944", "#222255", "#777777"),
    "#bbbbbb",
)
MEDIAN_OF_FEW: Final = "median (least to most)"


@dataclass
class Entry:
    """One row of the table: who runs, how, and what came of it, one run a round.

    Attributes:
        contender: who.
        count: refreshes of a run.
        processes: how many workers share them.
        latency: seconds that the stand-in takes to answer.
        runs: what was measured.
    """

    contender: Contender
    count: int
    processes: int = 1
    latency: float = 0.0
    runs: list[Run] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What the row is called."""
        several = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.contender.label}{several}" + (f", {1000 * self.latency:g} ms" if self.latency else "")

    @property
    def cost(self) -> float:
        """Median microseconds of processor time for each refresh."""
        return statistics.median(run.cost for run in self.runs)


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def show(self) -> None:
        """Print it."""
        table = Table(title=self.title)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        Console(width=150).print(table)

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = [self.headings, ("---",) + ("---:",) * (len(self.headings) - 1), *self.rows]
        return f"### {self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def speed(entries: Sequence[Entry]) -> Sheet:
    """Return rates, costs, and the ratios of each round to the home-made worker and to the bare loop."""
    rows = []
    for entry in entries:
        rates, costs = [run.rate for run in entry.runs], [run.cost for run in entry.runs]
        home = _beside(entry, entries, HOME, lambda one, other: one.database == other.database)
        loop = _beside(entry, entries, LOOP, lambda one, other: one.tls == other.tls)
        others = max(run.others for run in entry.runs)
        ratios = tuple(_spread(each, "{:.2f}") for each in (home, loop))
        rows.append((entry.label, _spread(rates, "{:,.0f}"), _spread(costs, "{:,.0f}"), *ratios, f"{others:.0%}"))
    headings = (
        "",
        "refreshes a second",
        "processor us each",
        "of the home-made",
        "of the bare loop",
        "others' share",
    )
    rounds = len(entries[0].runs)
    return Sheet(f"Whole refreshes, {rounds} rounds in turns, {MEDIAN_OF_FEW}", headings, rows)


def counts(found: dict[str, dict[str, float]]) -> Sheet:
    """Return what one refresh asks of the servers."""
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    rows = [(name, *(f"{each[name]:,.2f}" if name in each else "-" for each in found.values())) for name in names]
    return Sheet("What one refresh asks of the servers", ("", *found), rows)


def steps(found: dict[str, dict[str, float]]) -> Sheet:
    """Return microseconds of processor time of one refresh by step."""
    names = [name for name, _ in STEPS] + [OTHER]
    rows = [(name, *(f"{each.get(name, 0.0):,.0f}" for each in found.values())) for name in names]
    rows.append(("sum", *(f"{sum(each.values()):,.0f}" for each in found.values())))
    return Sheet("Where the time goes: processor us of one refresh", ("", *found), rows)


def alone(found: dict[str, list[float]]) -> Sheet:
    """Return how long one refresh takes while nothing else is due."""
    rows: list[tuple[str, ...]] = []
    for label, seconds in found.items():
        ordered = [1000 * each for each in sorted(seconds)]
        late = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        rows.append((label, str(len(ordered)), f"{statistics.median(ordered):.1f}", f"{late:.1f}"))
    return Sheet(
        "Milliseconds from the message of a scan to the commit of the one refresh",
        ("", "refreshes", "median", "99 %"),
        rows,
    )


def at_rest(found: dict[str, list[Rest]], grants: int) -> Sheet:
    """Return what processes take while nothing is due."""
    rows: list[tuple[str, ...]] = [
        (f"{each.process}, {database}", f"{each.core:.2%}", f"{each.mebibytes:.0f}")
        for database, rests in found.items()
        for each in rests
    ]
    return Sheet(f"At rest with {grants:,} grants", ("", "of a core", "MiB"), rows)


def memory(found: dict[str, list[float]], count: int) -> Sheet:
    """Return a worker's memory after every tenth of its refreshes."""
    rounds = max(len(each) for each in found.values()) - 1
    columns = sorted({rounds * tenth // 10 for tenth in range(11)})
    rows = [(label, *(f"{each[number]:.1f}" for number in columns)) for label, each in found.items()]
    return Sheet("MiB of a worker after so many refreshes", ("", *(f"{count * each:,}" for each in columns)), rows)


def growth(found: Sequence[Growth], sizes: Sequence[int]) -> Sheet:
    """Return how scan, claim and counts grow."""
    rows = [
        (f"{each.measure}, {each.database}", *(f"{figure:.2f}" for figure in each.milliseconds), f"{each.factor:.2f}")
        for each in found
    ]
    return Sheet("Milliseconds by size of the fleet", ("", *(f"{size:,}" for size in sizes), "growth"), rows)


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Draw where the time goes, one bar for each contender."""
    import matplotlib as mpl  # noqa: PLC0415 - only who has the extra `plot` gets a picture

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of what draws

    names = [name for name, _ in STEPS] + [OTHER]
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.6 * len(found)), layout="constrained")
    left = [0.0] * len(found)
    for name, colour in zip(names, COLOURS, strict=True):
        widths = [each.get(name, 0.0) for each in found.values()]
        axes.barh(list(found), widths, left=left, label=name, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("microseconds of processor time for one refresh")
    axes.legend(ncols=3, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _beside(
    entry: Entry, entries: Sequence[Entry], name: str, same: Callable[[Contender, Contender], bool]
) -> list[float]:
    """Return the ratio of each round to the contender of that name that fits, or nothing."""
    for other in entries:
        fits = other.contender.name == name and same(other.contender, entry.contender)
        if fits and other.latency == entry.latency and other is not entry:
            return [one.rate / two.rate for one, two in zip(entry.runs, other.runs, strict=True)]
    return []


def _spread(figures: Sequence[float], form: str) -> str:
    if not figures:
        return "-"
    median, least, most = (form.format(each) for each in (statistics.median(figures), min(figures), max(figures)))
    return median if len(figures) == 1 else f"{median} ({least} to {most})"
