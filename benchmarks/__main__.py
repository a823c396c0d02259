"""The benchmark: `python -m benchmarks`, or `make bench`. docs/performance.md says what is measured and found.

Workers run on one core; databases, Redis and the stand-in for TikTok on the others. All contenders take turns, round
after round, so that a busy machine slows all of them alike: believe the ratios. It prints tables, and writes them with
the raw figures and a picture into a folder. It exits 1 if a contender lost, repeated or left out a refresh.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console

from benchmarks import accounts, counting, growth, machine, report, rest, sampling
from benchmarks.contenders import WARM_UP, Contender, Evertoken, HomeMade, Loop, Run, Worker
from benchmarks.report import HOME, LOOP, Entry, Sheet
from benchmarks.stage import PROJECT, Stage

PARTS: Final = ("speed", "slow", "alone", "counts", "steps", "rest", "memory", "growth", "accounts")
HOME_SHARE: Final = 0.25
"""The home-made worker is slower, so it refreshes fewer in a run."""
BEFORE_SHARE: Final = 0.1
PROCESSES: Final = 2
console: Final = Console()


class Bench:
    """One run of the benchmark: what is measured on which stage, and what was found so far."""

    def __init__(self, chosen: argparse.Namespace, stage: Stage) -> None:
        """Keep the arguments; the stage is set up by the first part that needs it."""
        self.chosen, self.stage = chosen, stage
        self.sheets: list[Sheet] = []
        self.found: dict[str, Any] = {"machine": machine.describe(stage.folder), "options": _plain(vars(chosen))}
        self._pictures: dict[str, dict[str, float]] = {}
        self._prepared: set[str] = set()
        databases = chosen.databases.split(",")
        self._loops = [Loop(stage, LOOP, tls=tls) for tls in (False, True)]
        self._homes = [HomeMade(stage, HOME, database=kind, share=HOME_SHARE) for kind in databases]
        self._ours = [Evertoken(stage, "Evertoken", database=kind) for kind in databases]
        self._secure = [Evertoken(stage, "Evertoken", database=kind, tls=True) for kind in databases]
        self._before = [
            Evertoken(stage, chosen.name, database=kind, tree=chosen.beside.resolve(), share=BEFORE_SHARE)
            for kind in (databases if chosen.beside else ())
        ]

    def speed(self) -> None:
        """Whole refreshes a second, and processor time of each."""
        entries = [
            Entry(each, max(WARM_UP, int(each.share * self.chosen.creators)))
            for each in (*self._loops, *self._homes, *self._before, *self._ours, *self._secure)
        ]
        entries += [Entry(each, self.chosen.creators, processes=PROCESSES) for each in self._ours[-1:]]
        self._take_turns("speed", entries)

    def slow(self) -> None:
        """The same against a stand-in that takes as long as TikTok does."""
        count, latency = self.chosen.slow_creators, self.chosen.latency
        some = (self._loops[0], self._homes[-1], *self._before[-1:], self._ours[-1])
        entries = [Entry(each, count, latency=latency) for each in some]
        entries.append(Entry(self._ours[-1], count * PROCESSES, processes=PROCESSES, latency=latency))
        self._take_turns("slow", entries)

    def alone(self) -> None:
        """How long one refresh takes while nothing else is due."""
        found: dict[str, list[float]] = {each.label: [] for each in (*self._before, *self._ours, *self._secure)}
        for _ in range(self.chosen.rounds):
            for each in (*self._before, *self._ours, *self._secure):
                self._prepare(each)
                found[each.label] += each.alone(self.chosen.alone)
        self._add("alone", found, report.alone(found))

    def counts(self) -> None:
        """What one refresh asks of the servers."""
        for each in self._workers():
            self._prepare(each)
        found = {each.label: counting.count(each, self._few(each)) for each in self._workers()}
        self._add("counts", found, report.counts(found))

    def steps(self) -> None:
        """Where the time goes."""
        for each in self._workers():
            self._pictures[each.label] = self._steps_of(each)
        self._add("steps", self._pictures, report.steps(self._pictures))

    def rest(self) -> None:
        """What a worker and beat take while nothing is due."""
        found: dict[str, list[rest.Rest]] = {}
        for kind in self.chosen.databases.split(","):
            fleet = Evertoken(self.stage, "rest", database=kind)
            found[kind] = rest.measure(fleet, self.chosen.rest_grants, self.chosen.rest_seconds)
        told = {kind: [asdict(each) for each in rests] for kind, rests in found.items()}
        self._add("rest", told, report.at_rest(found, self.chosen.rest_grants))

    def memory(self) -> None:
        """What a worker holds in memory after many refreshes."""
        count, found = self.chosen.creators, dict[str, list[float]]()
        for each in self._ours:
            self._prepare(each)
            found[each.label] = each.grown(count, -(-self.chosen.memory_refreshes // count))
        self._add("memory", found, report.memory(found, count))

    def growth(self) -> None:
        """How scan, claim and counts grow with the fleet."""
        sizes = sorted(int(size) for size in self.chosen.sizes.split(","))
        found = growth.measure(sizes, self.chosen.databases.split(","))
        self._add("growth", [asdict(each) for each in found], report.growth(found, sizes))

    def accounts(self) -> None:
        """What pulls of account data cost, each database in a process of its own."""
        found = []
        for kind in self.chosen.databases.split(","):
            out = self.stage.folder / f"accounts-{kind}.json"
            command = [sys.executable, "-m", "benchmarks.accounts", "--database", kind, "--json", str(out), "--quiet"]
            command += ["--creators", str(self.chosen.account_creators), "--videos", str(self.chosen.account_videos)]
            with machine.pinned(self.stage.worker_cores | self.stage.server_cores):
                done = subprocess.run(command, cwd=PROJECT, check=False)
            assert out.exists(), f"account data was not measured on {kind}"
            found.append(accounts.Found.of(json.loads(out.read_text(encoding="utf-8"))))
            assert not done.returncode, f"account data on {kind}: {found[-1]}"
        self._add("accounts", [asdict(each) for each in found], accounts.sheet(found))

    def write(self, folder: Path) -> None:
        """Write tables, raw figures and the picture."""
        folder.mkdir(parents=True, exist_ok=True)
        self.found["machine"]["load_after"] = os.getloadavg()[0]
        (folder / "bench.json").write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        (folder / "bench.md").write_text("\n".join(sheet.markdown() for sheet in self.sheets), encoding="utf-8")
        if self._pictures:
            report.draw(self._pictures, folder / "where-the-time-goes.png")
        console.print(f"written: {folder}/bench.json, bench.md" + (", where-the-time-goes.png" * bool(self._pictures)))

    def _workers(self) -> list[Worker]:
        return [*self._homes, *self._before, *self._ours]

    def _few(self, contender: Contender) -> int:
        return max(WARM_UP, int(contender.share * self.chosen.creators))

    def _take_turns(self, part: str, entries: list[Entry]) -> None:
        for entry in entries:
            self._prepare(entry.contender)
        for number in range(self.chosen.rounds):
            try:
                runs = [self._run(entry, number) for entry in entries]
            except KeyboardInterrupt:
                if not number:
                    raise
                break  # what whole rounds found is kept
            for entry, run in zip(entries, runs, strict=True):
                entry.runs.append(run)
        self.stage.standin.set_latency(0.0)
        told = [{"label": entry.label, "latency": entry.latency, "runs": [_told(run) for run in entry.runs]}
                for entry in entries]  # fmt: skip
        self._add(part, told, report.speed(entries))

    def _run(self, entry: Entry, number: int) -> Run:
        self.stage.standin.set_latency(entry.latency)
        run = entry.contender.run(entry.count, processes=entry.processes)
        console.print(f"round {number + 1}: {entry.label}: {run.rate:,.0f}/s, {run.cost:,.0f} us", style="dim")
        return run

    def _steps_of(self, worker: Worker) -> dict[str, float]:
        """Return microseconds of one refresh by step: the shares of a run with looks, the sum of one without."""
        self._prepare(worker)
        count, out = self._few(worker), self.stage.folder / f"{worker.slug}.looks"
        plain = worker.run(count)
        look = [sys.executable, "-P", str(PROJECT / "benchmarks" / "sampling.py"), str(out)]
        run = worker.measure(count, worker.environ(), [[*look, *worker.command(0)[3:]]])
        spent = sampling.between(out, run.began, run.ended)
        return {step: plain.cost * seconds / sum(spent.values()) for step, seconds in spent.items()}

    def _prepare(self, contender: Contender) -> None:
        if contender.label not in self._prepared:
            self._prepared.add(contender.label)
            most = max(int(contender.share * self.chosen.creators), PROCESSES * self.chosen.slow_creators, WARM_UP)
            contender.prepare(most)

    def _add(self, part: str, found: Any, sheet: Sheet) -> None:
        self.found[part] = found
        self.sheets.append(sheet)
        sheet.show()


def main() -> int:
    """Run the parts that were asked for, and return 1 if a contender did not do what it should."""
    chosen = _arguments()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="evertoken-bench-", dir=chosen.dir)))
        folder.chmod(0o755)  # PostgreSQL's own user passes through
        bench = Bench(chosen, Stage(folder, stack))
        parts: dict[str, Callable[[], None]] = {name: getattr(bench, name) for name in PARTS}
        try:
            for name in chosen.parts.split(","):
                parts[name]()
        except AssertionError as problem:
            console.print(f"error: {problem}", style="red", markup=False)
            return 1
        finally:
            bench.write(chosen.out)
    return 0


def _told(run: Run) -> dict[str, float]:
    return asdict(run) | {"rate": run.rate, "cost": run.cost}


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=str(__doc__).splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which to measure, of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender")
    parser.add_argument("--creators", type=int, default=2000, help="refreshes of one run; slow contenders do fewer")
    parser.add_argument("--databases", default="sqlite,postgresql", help="which to measure on")
    parser.add_argument("--latency", type=float, default=0.2, help="seconds an answer takes in the part `slow`")
    parser.add_argument("--slow-creators", type=int, default=320, help="refreshes of one run in the part `slow`")
    parser.add_argument("--alone", type=int, default=40, help="refreshes of one run in the part `alone`")
    parser.add_argument("--sizes", default="10000,100000", help="fleets of the part `growth`, up to 10000000")
    parser.add_argument("--rest-grants", type=int, default=100_000, help="the fleet of the part `rest`")
    parser.add_argument("--rest-seconds", type=float, default=20, help="how long is watched in the part `rest`")
    parser.add_argument(
        "--memory-refreshes", type=int, default=20_000, help="refreshes of one worker in the part `memory`"
    )
    parser.add_argument("--account-creators", type=int, default=20, help="creators of the part `accounts`")
    parser.add_argument("--account-videos", type=int, default=200, help="videos of each of them")
    parser.add_argument("--beside", type=Path, help="another checkout of the project, measured in the same rounds")
    parser.add_argument("--name", default="before", help="what the tables call that checkout")
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), help="folder for tables, figures and picture")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts.split(",")) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} is none of {', '.join(PARTS)}")
    if unknown := set(chosen.databases.split(",")) - {"sqlite", "postgresql"}:
        parser.error(f"--databases: {', '.join(sorted(unknown))} is neither sqlite nor postgresql")
    if min(map(int, chosen.sizes.split(","))) < growth.LEAST:
        parser.error(f"--sizes: a fleet under {growth.LEAST} is claimed before the measure ends")
    if chosen.beside and not (chosen.beside / "worker").is_dir():
        parser.error(f"--beside: {chosen.beside} holds no checkout of this project")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
