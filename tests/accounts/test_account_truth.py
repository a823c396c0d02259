"""Days of pulls against the sandbox, with its clock and the database's moved together: the tables equal the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from worker.accounts.resources import ACCOUNT, VIDEOS
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox, start_sandbox
from worker.services import Services, build_services
from worker.settings import load_settings
from worker.store import NewConsent, clock
from worker.store.account_models import DAY_FIGURES, FIGURES
from worker.vault import Keyring, PairPlace, SealedPair, Token

LONG: Final = 10**8
SCOPES: Final = (
    "user.info.basic", "user.info.username", "user.info.stats", "user.info.profile", "user.account.type",
    "user.insights", "video.list", "video.insights", "comment.list",
)  # fmt: skip
USUAL_NOW: Final = dict(clock.NOW)
CREATORS: Final = ("ada", "bob")
WEEK: Final = 7


class Months:
    """A daemon whose days pass with the sandbox's clock."""

    def __init__(self, sandbox: RunningSandbox, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self._environ = environ
        self._monkeypatch = monkeypatch
        self._services: Services | None = None
        began = datetime.fromtimestamp(sandbox.advance(), UTC)
        noon = (began + timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
        self.now = noon
        self._ahead = sandbox.advance(seconds=(noon - began).total_seconds()) - datetime.now(UTC).timestamp()
        self.since = noon.date().isoformat()

    @property
    def services(self) -> Services:
        """A process's services, on a database whose clock is the sandbox's."""
        if self._services is None:
            moved = round(self._ahead * 1000)
            for kind, usual in USUAL_NOW.items():
                self._monkeypatch.setitem(clock.NOW, kind, f"({usual} + {moved})")
            self._services = build_services(load_settings(self._environ, dotenv=None))
        return self._services

    def consent(self, *creators: str) -> None:
        """Let creators consent for years, and store their pairs."""
        store, sealer = self.services.store, self.services.sealer
        given = {token["open_id"]: token for token in self.sandbox.grants(creators=list(creators))}
        now = store.ping()

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            token = given[item.creator_id]
            place = PairPlace(item.creator_id, consent, generation)
            return sealer.seal_pair(Token(token["access_token"]), Token(token["refresh_token"]), place)

        years = now + timedelta(days=900)
        items = [
            NewConsent(
                creator_id=creator, scope=",".join(SCOPES), issued_at=now, access_expires_at=years,
                refresh_expires_at=years, next_refresh_at=years, jitter=0.5,
            )
            for creator in creators
        ]  # fmt: skip
        store.save_consents(items, seal, replace=False)

    def pull(self) -> None:
        """Pull everybody who is due, until nobody is."""
        for _ in range(20):
            due = self.services.store.due_pulls(100)
            if not due:
                return
            self.services.puller.pull_all(due)

    def end_process(self) -> None:
        """End the process; the next one begins with what is stored."""
        if self._services is not None:
            self._services.close()
            self._services = None

    def sleep(self, *, days: float) -> None:
        """Let time pass: processes are replaced, and clocks move."""
        self.end_process()
        self._ahead = self.sandbox.advance(days=days) - datetime.now(UTC).timestamp()

    def rows(self, table: str, creator: str) -> list[dict[str, Any]]:
        """Return a creator's rows."""
        found: list[dict[str, Any]] = []
        after: tuple[Any, ...] = ()
        store = self.services.store
        while page := store.account_rows(table, creator_id=creator, since=None, after=after):
            found += [dict(row._mapping) for row in page]
            after = store.key_of(table, page[-1])
        return found


@pytest.fixture
def months(
    tmp_path: Path, store_url: str, redis_url: str, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Months]]:
    """Make a daemon and a sandbox whose days pass together."""
    running: list[Months] = []

    def make(**options: Any) -> Months:
        usual: dict[str, Any] = {"expires_in": LONG, "scopes": list(SCOPES), "seed": 4, "ledger_all": False}
        sandbox = start_sandbox(SandboxOptions(**usual | options))
        environ = {
            "TIKTOK_APP_ID": "sandbox-app", "TIKTOK_APP_SECRET": "sandbox-secret",
            "TIKTOK_REDIRECT_URI": "https://localhost/callback/", "TIKTOK_BASE_URL": sandbox.url,
            "TIKTOK_AUTHORIZE_URL": sandbox.authorize_url, "KEYRING": keyring.to_json(), "DATABASE_URL": store_url,
            "REDIS_URL": redis_url, "JOURNAL_DIR": str(tmp_path / "journal"), "RUN_DIR": str(tmp_path / "run"),
            "QUOTA_PER_SECOND": "1000", "QUOTA_PER_MINUTE": "60000", "QUOTA_PER_ACCOUNT_MINUTE": "10000",
            "PULL_RESOURCES": "videos", "PULL_BUDGET": "10000",
        }  # fmt: skip
        running.append(Months(sandbox, {f"EVERTOKEN_{name}": value for name, value in environ.items()}, monkeypatch))
        return running[-1]

    yield make
    for each in running:
        each.end_process()
        each.sandbox.stop()


def check_days(months: Months, creator: str) -> None:
    """Every settled day of the truth is stored with its figures and its hours; ours that stand are settled there."""
    truth = {row["date"]: row for row in months.sandbox.truth("daily", creator, since=months.since)}
    ours = {row["day"].isoformat(): row for row in months.rows("account_days", creator)}
    assert truth.keys() - ours.keys() == set() or min(ours) == min(truth)
    for day, row in truth.items():
        if not row["settled"]:
            continue
        figures = {name: value for name, value in row.items() if name in DAY_FIGURES}
        assert {name: ours[day][name] for name in figures} == figures, (creator, day)
    wrong = [day for day, row in ours.items() if row["settled"] and not truth[day]["settled"]]
    assert wrong == []
    hours = {(row["day"].isoformat(), str(row["hour"])): row["active"] for row in months.rows("account_hours", creator)}
    for row in months.sandbox.truth("activity", creator, since=months.since):
        assert hours[row["date"], str(row["hour"])] == row["count"], (creator, row)


def check_corrections(months: Months, creator: str) -> int:
    """Every old figure that is kept is one that TikTok had said of that day."""
    truth = {row["date"]: row for row in months.sandbox.truth("daily", creator, since=months.since)}
    kept = months.rows("account_corrections", creator)
    for row in kept:
        said = truth[row["day"].isoformat()]
        assert row["old"] in [version[row["field"]] for version in said["versions"]], row
        assert row["new"] in [version[row["field"]] for version in [*said["versions"], said]], row
    return len(kept)


def check_audience(months: Months, creator: str) -> None:
    """Each day's shares are there with the day of the pull."""
    ours = {
        (row["pull_day"].isoformat(), row["kind"], row["label"]): row["share"]
        for row in months.rows("audience_shares", creator)
    }
    kinds = {
        "audience_ages": "age",
        "audience_genders": "gender",
        "audience_countries": "country",
        "audience_cities": "city",
    }
    truth = {
        (row["pull_date"], kinds[row["kind"]], row["label"]): row["percentage"]
        for row in months.sandbox.truth("audience", creator, since=months.since)
    }
    assert ours == truth


def check_videos(months: Months, creator: str) -> int:
    """Every post that was read has the last value of every field that was ever given; gone ones are marked."""
    ours = {row["item_id"]: row for row in months.rows("videos", creator)}
    seen = {item: row["last_seen_at"].date().isoformat() for item, row in ours.items()}
    truth = {row["item_id"]: row for row in months.sandbox.truth("videos", creator, since=months.since, seen=seen)}
    assert ours.keys() <= truth.keys()
    missed = truth.keys() - ours.keys()
    assert len(missed) <= 4, missed
    for item, row in ours.items():
        figures = {name: truth[item][name] for name in FIGURES if name in truth[item]}
        assert {name: row[name] for name in figures} == figures, (creator, item)
        assert truth[item].get("caption") == row["caption"]
        if row["vanished_at"] is not None:
            assert not truth[item]["public"], item
    return sum(row["vanished_at"] is not None for row in ours.values())


FAULTS: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "status", "status": 503, "probability": 0.05},
    {"kind": "lost", "probability": 0.05},
    {"kind": "code", "code": 51010, "probability": 0.05},
    {"kind": "gzip", "probability": 0.5},
)


def live(months: Months, *, days: int) -> None:
    """Pull on every day, with trouble on most of them and a process that dies in the middle."""
    for day in range(days):
        months.sandbox.heal()
        for fault in FAULTS:
            for call in ("account", "videos"):
                months.sandbox.fault(call=call, **fault)
        months.pull()
        months.end_process()
        months.sandbox.heal()
        for creator in CREATORS:
            months.services.store.request_pull(creator)
        months.services.store.transact(
            lambda connection: connection.exec_driver_sql("UPDATE account_progress SET next_at = 1"), writes=True
        )
        months.pull()
        if day < days - 1:
            months.sleep(days=1)


def check_all(months: Months, *, days: int) -> None:
    """Compare every table with the truth; posts are found to be gone by a whole pass, which comes every week."""
    for creator in CREATORS:
        check_days(months, creator)
        check_audience(months, creator)
        gone = check_videos(months, creator)
        assert gone > 0 or days <= WEEK
    assert sum(check_corrections(months, creator) for creator in CREATORS) > 0


@pytest.mark.parametrize("days", [4, pytest.param(60, marks=[pytest.mark.slow_suite, pytest.mark.timeout(1800)])])
@pytest.mark.timeout(600)
def test_the_tables_equal_the_truth(months: Callable[..., Months], days: int) -> None:
    """Settled days, hours, corrections, shares and posts are what TikTok said, row by row, after trouble every day."""
    life = months()
    for creator in CREATORS:
        life.sandbox.set_account(creator, videos=45, deleted_every=5, hidden_every=7, age_days=100)
    life.consent(*CREATORS)

    live(life, days=days)

    check_all(life, days=days)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param("UPDATE account_days SET likes = likes + 1", id="a figure"),
        pytest.param("DELETE FROM audience_shares WHERE kind = 'age' AND label = '18-24'", id="a hole"),
        pytest.param("UPDATE videos SET reach = NULL", id="a field that vanished"),
    ],
)
@pytest.mark.slow_suite
@pytest.mark.timeout(600)
def test_the_comparison_finds_what_is_spoilt(months: Callable[..., Months], spoil: str) -> None:
    """A wrong figure, a row that is missing, a known value that was erased: none of them passes."""
    life = months()
    for creator in CREATORS:
        life.sandbox.set_account(creator, videos=45, deleted_every=5, hidden_every=7, age_days=100)
    life.consent(*CREATORS)
    live(life, days=2)
    life.services.store.transact(lambda connection: connection.exec_driver_sql(spoil), writes=True)

    with pytest.raises((AssertionError, KeyError)):
        check_all(life, days=2)


def test_a_whole_account_takes_as_many_requests_as_its_pages(months: Callable[..., Months]) -> None:
    """Two hundred posts are ten pages of twenty: with the account eleven requests, and no other."""
    life = months()
    for creator in CREATORS:
        life.sandbox.set_account(creator, videos=200, deleted_every=0, hidden_every=0, comments=0)
    life.consent(*CREATORS)

    life.pull()

    calls = life.sandbox.stats()["calls"]
    assert sum(calls[ACCOUNT.call].values()) == len(CREATORS)
    pages = sum(calls[VIDEOS.call].values())
    assert pages == sum(-(-len(life.rows("videos", creator)) // 20) for creator in CREATORS)
