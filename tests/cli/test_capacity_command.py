"""`capacity` and `capacity simulate` as people and scripts use them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from tests.conftest import APP_ID
from tests.support.claims import claim_one, save_one
from worker.cli import capacity_simulate, checks, output, pictures
from worker.cli.capacity import capacity
from worker.cli.capacity_report import build, show
from worker.errors import UsageError
from worker.planning.capacity import Crowd
from worker.planning.forecast import Due
from worker.planning.headroom import crowds_of
from worker.planning.scenarios import SCENARIOS
from worker.store import NewConsent, NewPair, Store
from worker.vault import Keyring, SealedPair

DAY = timedelta(days=1)
PNG = b"\x89PNG"


def run(*arguments: str, main: str = "evertoken") -> Result:
    """Run the command under an app of this name; an exception that is not an exit fails the test."""
    context = CLIContext(app=Celery(main), no_color=True, workdir=None)
    result = CliRunner().invoke(capacity, arguments, obj=context)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def report_of(*arguments: str, exit_code: int = 0) -> Any:
    """Run the command with `--json` and return what it printed."""
    result = run(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder to work in, with no settings at all."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fleet(bare: Path, monkeypatch: pytest.MonkeyPatch, store: Store, store_url: str, keyring: Keyring) -> Store:
    """Return a store that the settings name."""
    for name, value in {
        "DATABASE_URL": store_url,
        "TIKTOK_APP_ID": APP_ID,
        "TIKTOK_APP_SECRET": "secret",
        "TIKTOK_REDIRECT_URI": "https://app.example/callback/",
        "KEYRING": keyring.to_json(),
        "JOURNAL_DIR": str(bare / "journal"),
    }.items():
        monkeypatch.setenv(f"EVERTOKEN_{name}", value)
    return store


def keep(store: Store, count: int, *, life: timedelta, within: timedelta) -> None:
    """Store grants whose next refreshes are spread evenly."""
    now = store.ping()
    items = [
        NewConsent(
            creator_id=f"{life}-{number}",
            scope="user.info.basic",
            issued_at=now,
            access_expires_at=now + life,
            refresh_expires_at=now + 365 * DAY,
            next_refresh_at=now + within * (number / count),
            jitter=0.5,
        )
        for number in range(count)
    ]
    store.save_consents(items, lambda *_: SealedPair(b"access", b"refresh", 1), replace=False)


def refresh(store: Store, creator_id: str, *, life: timedelta, due_in: timedelta) -> None:
    """Give a grant a pair that a refresh brought."""
    now = store.ping()
    claim = claim_one(store, store.grant(creator_id).grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None
    pair = NewPair(SealedPair(b"access", b"refresh", 1), now, now + life, now + 365 * DAY, now + due_in, None)
    save_one(store, claim, pair)


@pytest.mark.usefixtures("bare")
def test_a_fleet_that_fits_is_reported_without_settings() -> None:
    """A plan needs no settings, no database and no Redis."""
    report = report_of("--creators", "1000", "--lifetime", "7200", "--pulls-per-day", "0")

    assert report["fits"]
    assert report["per_minute"] == 600
    assert report["plan"]["refreshes"] == pytest.approx(1000 / 4800)
    assert report["plan"]["first_missed"] is None
    assert report["ahead"] == []
    assert len(report["levels"]) == 16


@pytest.mark.usefixtures("bare")
def test_a_fleet_that_does_not_fit_exits_1_with_numbers() -> None:
    """The last line names what is needed and what there is."""
    result = run("--creators", "1000000")

    assert result.exit_code == 1
    last = result.stdout.splitlines()[-1]
    assert "needs 2,083.3 requests a minute" in last
    assert "do not fit" in last
    assert report_of("--creators", "1000000", exit_code=1)["plan"]["headroom"] < 1


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--creators", "-1"),
        ("--creators", "1", "--qps", "0"),
        ("--creators", "1", "--qps", "-5"),
        ("--creators", "1", "--qps", "nan"),
        ("--creators", "1", "--qpm", "3001"),
        ("--creators", "1", "--lifetime", "0"),
        ("--creators", "1", "--renew-at", "0.95"),
        ("--lifetime", "7200"),
        ("--creators", "1", "--plot", "picture.txt"),
        ("--creators", "1", "--plot", "nowhere/picture.png"),
        ("simulate", "no-such-thing"),
        ("simulate", "mass-import", "--qps", "0"),
        ("simulate", "mass-import", "--qpm", "1e9"),
        ("simulate", "mass-import", "--creators", "0"),
    ],
)
def test_wrong_use_exits_2_in_a_sentence(arguments: tuple[str, ...]) -> None:
    """Nothing is computed, nothing is printed as if it were a result."""
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.usefixtures("bare")
def test_a_quota_above_tiktoks_highest_level_is_refused_with_the_reason() -> None:
    """The sentence names the level."""
    assert "Ultimate" in run("--creators", "1", "--qps", "51").stderr


@pytest.mark.usefixtures("bare")
def test_another_app_is_refused_by_both() -> None:
    """Without `-A worker` neither the command nor the one below it runs."""
    for arguments in (("--creators", "1"), ("simulate", "mass-import", "--creators", "1")):
        result = run(*arguments, main="default")

        assert result.exit_code == 2
        assert "celery -A worker capacity" in result.stderr


@pytest.mark.slow_suite
def test_the_fleet_in_the_database_is_counted_with_its_own_lives(fleet: Store, bare: Path) -> None:
    """Lives come from the stored answers, the load of the next day from the stored due times."""
    keep(fleet, 90, life=DAY, within=timedelta(hours=9))
    short = timedelta(hours=2)
    keep(fleet, 10, life=short, within=timedelta(hours=1))
    for number in range(90):
        refresh(fleet, f"{DAY}-{number}", life=DAY, due_in=timedelta(hours=9) * (number / 90))
    for number in range(10):
        refresh(fleet, f"{short}-{number}", life=short, due_in=timedelta(hours=1) * (number / 10))

    report = report_of("--plot", str(bare / "load.png"), "--pulls-per-day", "0")

    assert report["creators"] == 100
    assert {(crowd["creators"], crowd["life"]) for crowd in report["crowds"]} == {(90, 86400.0), (10, 7200.0)}
    ahead = report["ahead"]
    assert len(ahead) == 24
    assert ahead[0]["due"] == pytest.approx(20, abs=2)
    assert ahead[5]["due"] == pytest.approx(10 + 7.5, abs=1.5)
    assert ahead[12]["due"] == pytest.approx(7.5, abs=1.5)
    assert all(hour["waiting"] == 0 for hour in ahead)
    assert (bare / "load.png").read_bytes().startswith(PNG)
    assert "Refreshes of the next 24 hours" in run().stdout


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("count", "state"), [(10, "ok"), (40, "warn"), (100, "fail")])
def test_the_doctor_reports_the_headroom(fleet: Store, monkeypatch: pytest.MonkeyPatch, count: int, state: str) -> None:
    """Below a headroom of two it warns, and it fails, with numbers, if the fleet does not fit."""
    monkeypatch.setenv("EVERTOKEN_QUOTA_PER_MINUTE", "1")
    monkeypatch.setenv("EVERTOKEN_RENEW_AT", "0.5")
    keep(fleet, count, life=timedelta(hours=4), within=timedelta(hours=1))

    with output.services() as services:
        found = checks.capacity(services)

    assert (found.check, found.state) == ("capacity", state)
    assert "requests a minute" in found.detail


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_an_empty_database_fits() -> None:
    """Nobody is there yet: any quota will do."""
    assert report_of()["plan"]["headroom"] is None


def test_a_planned_fleet_is_drawn_as_what_the_fraction_trades(bare: Path) -> None:
    """There are no due times to draw, so the picture shows requests against hours of outage."""
    result = run("--creators", "100", "--plot", str(bare / "trade.svg"))

    assert result.exit_code == 0, result.output
    assert "<svg" in (bare / "trade.svg").read_text(encoding="utf-8")


def test_a_scenario_is_simulated_and_drawn(bare: Path) -> None:
    """A thousand creators live through an outage of twelve hours; the figures come as a table and as JSON."""
    result = run("simulate", "outage-12h", "--creators", "1000", "--plot", str(bare / "course.png"))

    assert result.exit_code == 0, result.output
    assert "every token that could be saved was" in result.stdout
    assert (bare / "course.png").read_bytes().startswith(PNG)
    assert report_of("simulate", "outage-12h", "--creators", "1000")["lost"] == 0


@pytest.mark.usefixtures("bare")
def test_a_simulated_fleet_that_loses_tokens_exits_1() -> None:
    """Ten requests a minute cannot carry twenty thousand creators."""
    summary = report_of("simulate", "mass-import", "--creators", "20000", "--qpm", "10", exit_code=1)

    assert not summary["sound"]
    assert summary["lost"] > 0


def test_the_names_on_the_command_line_are_the_scenarios() -> None:
    """The list stands in the command so that Celery need not load the simulation at its start."""
    assert tuple(SCENARIOS) == capacity_simulate.NAMES


def test_pictures_without_matplotlib_are_refused_before_the_work(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)

    with pytest.raises(UsageError, match="extra `plot`"):
        pictures.check(bare / "x.png")


def test_what_is_left_of_imported_lives_is_no_life_of_the_fleet(fleet: Store) -> None:
    """An outage is survived for a part of the usual life, not of the shortest rest of a life."""
    for minutes in range(1, 60):
        keep(fleet, 1, life=timedelta(minutes=14 * minutes), within=timedelta(0))
    unrefreshed = report_of("--renew-at", "0.5")
    keep(fleet, 1, life=DAY, within=timedelta(0))
    refresh(fleet, f"{DAY}-0", life=DAY, due_in=timedelta(hours=12))
    report = report_of("--renew-at", "0.5")

    assert [(crowd["creators"], crowd["life"]) for crowd in unrefreshed["crowds"]] == [(59, 14 * 59 * 60)]
    assert [(crowd["creators"], crowd["life"]) for crowd in report["crowds"]] == [(60, 86_400)]
    assert report["plan"]["survived"] > 10 * 3600


def test_many_lives_are_shown_in_a_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The largest crowds are named one by one, the rest in one figure; nearly equal lives are one crowd."""
    crowds = crowds_of(Due(3600.0 * hours + odd, 0, 1) for hours in range(2, 24) for odd in (0, 60))
    assert [crowd.creators for crowd in crowds] == [2] * 22
    report = build(
        crowds=(Crowd(100, 86_400), *crowds),
        dues=None,
        renew_at=0.5,
        pulls_per_day=None,
        limits=(10, 600),
        latency=0.5,
        slice_seconds=300,
    )

    show(report)

    line = next(line for line in capsys.readouterr().out.splitlines() if "by the life of their tokens" in line)
    assert line.count(" of ") - line.count("life of their") == 5
    assert "100 of 24 h" in line or "100 of 1 d" in line
    assert "38 others of " in line


@pytest.mark.parametrize(("creators", "to_scale"), [(384, False), (800_000, True)])
def test_the_load_of_a_small_fleet_is_not_pressed_flat_by_the_quota(
    bare: Path, monkeypatch: pytest.MonkeyPatch, creators: int, to_scale: bool
) -> None:
    """The picture reaches little higher than the load, and the quota is named; a load near the quota shows its line."""
    tops: list[float] = []
    finish = pictures._finish

    def watched(figure: Any, planes: Any, path: Path) -> None:
        finish(figure, planes, path)
        tops.append(planes[0].get_ylim()[1])

    monkeypatch.setattr(pictures, "_finish", watched)
    report = build(
        crowds=(Crowd(creators, 86_400),),
        dues=[Due(86_400, number, creators // 192) for number in range(192)],
        renew_at=2 / 3,
        pulls_per_day=0,
        limits=(10, 600),
        latency=0.5,
        slice_seconds=300,
    )

    pictures.draw_report(report, bare / "load.png")

    quota = 60 * report.plan.usable
    assert bool(tops[0] > quota) is to_scale
