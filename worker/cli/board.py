"""The display of a demo: a live board on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from worker.cli.demo_plan import DemoPlan
from worker.cli.demo_watch import Event, Sample, Watch

BARS: Final = "▁▂▃▄▅▆▇█"
WIDEST: Final = 110
EVENTS_SHOWN: Final = 8
PLAIN_EVERY_SECONDS: Final = 5.0
FACT_STYLES: Final = {"refresh.saved": "green", "pull.saved": "blue"}
LEVEL_STYLES: Final = {"warning": "yellow", "error": "bold red", "critical": "bold red"}
STATES: Final = (("fresh", "green"), ("due", "yellow"), ("overdue", "bright_red"), ("expired", "bold white on red"))
"""The parts of the fleet; a grant that is overdue is not counted as due here."""

Links = Callable[[], dict[str, str]]


class Board(Protocol):
    """Displays a run."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def step(self, sentence: str) -> None:
        """Print what is being done before and after the run."""

    def show(self, watch: Watch) -> None:
        """Show the newest sample of a run."""


def sparkline(rates: Sequence[float], width: int) -> str:
    """Return the last rates as a line of bars, scaled to the highest of them."""
    shown = list(rates)[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(len(BARS) - 1, int(rate / highest * (len(BARS) - 1) + 0.5))] for rate in shown)


def shares(sample: Sample) -> dict[str, int]:
    """Return how many grants are in each state of `STATES`."""
    fleet = sample.fleet
    return {
        "fresh": fleet.fresh,
        "due": fleet.due - fleet.overdue,
        "overdue": fleet.overdue,
        "expired": fleet.expired,
    }


class PlainBoard:
    """One line every few seconds: for pipes, files and CI.

    Args:
        console: where lines go.
        links: addresses and paths that people may open during the run, by name.
    """

    def __init__(self, console: Console, links: Links) -> None:
        self._console = console
        self._links = links
        self._shown_at = -PLAIN_EVERY_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def step(self, sentence: str) -> None:
        """Print what is being done."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def show(self, watch: Watch) -> None:
        """Print a line if the last one is old enough."""
        if not watch.samples or watch.elapsed - self._shown_at < PLAIN_EVERY_SECONDS:
            return
        if self._shown_at < 0:
            self.step("; ".join(f"{name}: {place}" for name, place in self._links().items()))
        self._shown_at = watch.elapsed
        sample = watch.samples[-1]
        states = ", ".join(f"{count} {name}" for name, count in shares(sample).items())
        self.step(
            f"{sample.elapsed:5.0f} s  {states}; {sample.refreshed} refreshed ({_latest(watch, 'refreshed'):.0f}/s), "
            f"{sample.pulled} pulled ({_latest(watch, 'pulled'):.0f}/s)"
        )


class LiveBoard:
    """A board that is drawn again with each sample.

    Args:
        console: a terminal.
        plan: the demo's figures.
        links: addresses and paths that people may open during the run, by name.
    """

    def __init__(self, console: Console, plan: DemoPlan, links: Links) -> None:
        self._console = console
        self._plan = plan
        self._links = links
        self._live: Live | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, sentence: str) -> None:
        """Print what is being done, above the board."""
        self._console.print(Text(sentence, style="dim"), soft_wrap=True)

    def show(self, watch: Watch) -> None:
        """Draw the board."""
        if not watch.samples:
            return
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(self.drawn(watch), refresh=True)

    def drawn(self, watch: Watch) -> RenderableType:
        """Return the board as it is drawn."""
        width = min(self._console.width, WIDEST)
        sample = watch.samples[-1]
        links = Table.grid(padding=(0, 2))
        for name, place in self._links().items():
            links.add_row(Text(name, style="dim"), Text(place, style="cyan"))
        body = Group(
            _time_line(sample, self._plan, width - 4),
            Text(),
            _fleet(sample, width - 4),
            Text(),
            _rates(watch, width - 4),
            Text(),
            _events(list(watch.events)[-EVENTS_SHOWN:]),
            Text(),
            links,
        )
        return Panel(body, title="[bold]Evertoken[/bold] keeps tokens alive", title_align="left", width=width)


def _time_line(sample: Sample, plan: DemoPlan, width: int) -> RenderableType:
    left = max(0.0, plan.seconds - sample.elapsed)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=plan.seconds, completed=min(sample.elapsed, plan.seconds), width=max(10, width - 48)),
        Text(f"{left:3.0f} s left", style="bold"),
        Text(f"{plan.creators} creators, tokens live {plan.life_seconds} s", style="dim"),
    )
    return line


def _fleet(sample: Sample, width: int) -> RenderableType:
    counts = shares(sample)
    total = max(1, sum(counts.values()))
    bar, legend = Text(), Text()
    for name, style in STATES:
        count = counts[name]
        if count:
            bar.append("█" * max(1, round(count / total * (width - len(STATES)))), style=style)
        legend.append("■ ", style=style if count else "dim")
        legend.append(f"{name} {count}    ", style="bold" if count else "dim")
    if sample.fleet.needs_reauth or sample.fleet.in_doubt:
        legend.append(f"in doubt {sample.fleet.in_doubt}  to re-authorize {sample.fleet.needs_reauth}", style="yellow")
    bar.truncate(width)
    return Group(bar, legend)


def _rates(watch: Watch, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    sample = watch.samples[-1]
    room = max(10, width - 36)
    for name, total, style in (("refreshed", sample.refreshed, "green"), ("pulled", sample.pulled, "blue")):
        rates = watch.rates(name, room)
        table.add_row(
            Text(name),
            Text(f"{total}", style="bold", justify="right"),
            Text(f"{_latest(watch, name):4.0f}/s", justify="right"),
            Text(sparkline(rates, room), style=style),
        )
    least = sample.fleet.least_seconds_left
    if least is not None:
        table.add_row(Text("least left", style="dim"), Text(f"{least:.0f} s", justify="right"))
    return table


def _events(events: Sequence[Event]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for event in events:
        style = LEVEL_STYLES.get(event.level) or FACT_STYLES.get(event.name, "")
        table.add_row(Text(event.at, style="dim"), Text(event.text, style=style))
    for _ in range(EVENTS_SHOWN - len(events)):
        table.add_row("", "")
    return table


def _latest(watch: Watch, name: str) -> float:
    rates = watch.rates(name, 3)
    return sum(rates) / len(rates) if rates else 0.0
