"""The benchmark measures what it says: a strict stand-in, counts that are right, and every contender's work checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks.counting import Relay
from benchmarks.quota import refused_sliding
from benchmarks.report import Sheet
from benchmarks.sampling import between
from benchmarks.standin import DEAD, State, pair_of
from tests.conftest import ServerProcess
from tests.support.daemon import PROJECT, plain_environ
from tests.support.warm import server_for


def refresh(state: State, token: object) -> tuple[int, dict[str, Any]]:
    """Ask the stand-in for a refresh; return code and data."""
    code, _, data = state.refresh(json.dumps({"refresh_token": token}).encode())
    return code, data or {}


def test_the_stand_in_rotates_strictly() -> None:
    """Only the newest refresh token is good, so a worker that sends one twice is found out."""
    state, first = State(), pair_of("creator", 1)

    code, second = refresh(state, first["refresh_token"])
    again, nothing = refresh(state, first["refresh_token"])
    last, third = refresh(state, second["refresh_token"])

    assert (code, again, last) == (0, DEAD, 0)
    assert nothing == {}
    assert third == pair_of("creator", 3)
    assert state.control("/control") == {"refreshes": 2, "refused": 1, "other": 0, "connections": 0}


def test_latency_is_set_from_outside() -> None:
    """The part `slow` sets how long the stand-in takes."""
    state = State()

    state.control("/control?latency=0.2")

    assert state.latency == pytest.approx(0.2)


def test_the_relay_counts_statements_and_round_trips(postgres_server: ServerProcess) -> None:
    """Each statement counts once, with BEGIN and COMMIT; a pipeline of two statements is one round trip."""
    relay = Relay(postgres_server.url)
    with psycopg.connect(relay.url, autocommit=True) as connection:
        connection.execute("SELECT 1")
        alone = dict(relay.counts)
        with connection.transaction():
            connection.execute("SELECT %s::int", (1,))
        together = dict(relay.counts)
        with connection.pipeline():
            connection.execute("SELECT %s::int", (2,))
            connection.execute("SELECT %s::int", (3,))
        piped = dict(relay.counts)
    relay.close()

    assert alone == {"statements": 1, "round trips": 1}
    assert together == {"statements": 4, "round trips": 4}
    assert piped == {"statements": 6, "round trips": 5}


def test_steps_are_cut_out_of_a_sampled_run(tmp_path: Path) -> None:
    """What was spent before and after the measured round is left out."""
    kept = [[1.0, {"database": 5.0}], [2.0, {"database": 6.0}], [3.0, {"database": 8.0, "HTTP": 1.0}], [4.0, {}]]
    (tmp_path / "looks").write_text(json.dumps(kept), encoding="utf-8")

    assert between(tmp_path / "looks", 1.5, 3.5) == {"database": 2.0, "HTTP": 1.0}


def test_a_sliding_window_refuses_what_a_fixed_one_lets_pass() -> None:
    """Two requests at the end of one second and two at the start of the next are too many for a sliding second of 3."""
    arrivals = [0.8, 0.9, 1.0, 1.1, 1.85]

    assert refused_sliding(arrivals, 3, 1.0) == 1
    assert refused_sliding(arrivals, 2, 1.0) == 2
    assert refused_sliding(arrivals, 4, 1.0) == 0


def test_a_sheet_becomes_markdown() -> None:
    """Tables go into the page as they are."""
    sheet = Sheet("Speed", ("", "a second"), [("worker", "2,000")])

    assert sheet.markdown() == "### Speed\n\n|  | a second |\n| --- | ---: |\n| worker | 2,000 |\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parts", "speed,sped"], "sped is none of"),
        (["--databases", "mysql"], "neither sqlite nor postgresql"),
        (["--beside", "nowhere"], "holds no checkout"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(arguments: list[str], words: str) -> None:
    """A mistake costs no minutes."""
    environ = plain_environ()
    command = ["-m", "benchmarks", *arguments]
    done = server_for(environ).run(command, environ=environ, folder=PROJECT, text=None, seconds=60)

    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.slow_suite
@pytest.mark.timeout(300)
def test_the_speed_of_all_contenders_is_measured_and_written(tmp_path: Path) -> None:
    """A tiny run of the part that the README's figures come from, on SQLite."""
    done = run_bench(
        *("--parts", "speed", "--rounds", "1", "--creators", "60", "--databases", "sqlite", "--out", str(tmp_path))
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert {"machine", "options", "speed"} == set(json.loads((tmp_path / "bench.json").read_text(encoding="utf-8")))


@pytest.mark.night
@pytest.mark.slow_suite
@pytest.mark.timeout(900)
def test_every_part_runs_and_is_written(tmp_path: Path) -> None:
    """A tiny run measures all contenders on SQLite and writes tables, figures and picture."""
    done = run_bench(
        *("--rounds", "1", "--creators", "60", "--slow-creators", "10", "--alone", "2", "--databases", "sqlite"),
        *("--sizes", "2000,4000", "--rest-grants", "100", "--rest-seconds", "2", "--memory-refreshes", "120"),
        *("--account-creators", "2", "--account-videos", "25", "--out", str(tmp_path)),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    parts = {"alone", "speed", "slow", "counts", "steps", "rest", "memory", "growth", "accounts"}
    assert {"machine", "options", *parts} == set(found)
    assert (tmp_path / "where-the-time-goes.png").stat().st_size > 1000
    assert (tmp_path / "bench.md").read_text(encoding="utf-8").count("###") == len(parts)


@pytest.mark.slow_suite
@pytest.mark.timeout(300)
def test_account_data_is_measured_on_both_databases(tmp_path: Path) -> None:
    """The part `accounts` counts the requests of first pulls and of a usual day, and none is too many."""
    done = run_bench(
        *("--parts", "accounts", "--account-creators", "3", "--account-videos", "45"), "--out", str(tmp_path)
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["accounts"]
    assert [each["database"] for each in found] == ["sqlite", "postgresql"]
    for each in found:
        assert (each["first"]["requests"], each["first"]["needed"]) == (12, 12)
        assert each["day"]["requests"] == each["day"]["needed"] > 3
        assert each["rows"]["videos"] >= 135  # a creator may post while the clock goes on


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmark as `make bench` does."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, env=plain_environ(), capture_output=True, text=True, timeout=880, check=False)
