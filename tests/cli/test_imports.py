"""Importing tokens into a real store: what is created, skipped, replaced and told, and in which memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from worker.consent.import_fields import LONGEST_CREATOR_ID
from worker.consent.import_lines import LONGEST_LINE
from worker.consent.importer import BATCH, NOT_REPLACED, UNKNOWN_AGE_SHARE, BadLine, Importer, ImportReport
from worker.errors import UsageError
from worker.store import AttemptOutcome, ConsentResult, GrantStatus, Store
from worker.vault import PairPlace, Sealer

LIFE = timedelta(days=1)


def line(number: int, **change: Any) -> str:
    """Return one JSON line of a creator."""
    fields = {
        "creator_id": f"c{number}",
        "access_token": f"act.{number}",
        "refresh_token": f"rft.{number}",
        "expires_in": 86400,
        "scope": "user.info.basic",
    }
    return json.dumps(fields | change)


class Run:
    """Runs imports into one store and keeps what they told."""

    def __init__(self, store: Store, sealer: Sealer, batch: int = BATCH) -> None:
        self._importer = Importer(store=store, sealer=sealer, renew_at=2 / 3, batch=batch)
        self.bad: list[BadLine] = []
        self.bytes = 0

    def __call__(self, text: str, **options: Any) -> ImportReport:
        """Import a text."""
        report = ImportReport()
        self._importer.run(
            io.BytesIO(text.encode()), report=report, on_bad=self.bad.append, progress=self._count, **options
        )
        return report

    def _count(self, size: int) -> None:
        self.bytes += size


@pytest.fixture
def run(store: Store, sealer: Sealer) -> Run:
    """Return an importer in batches of three, so that small files have several."""
    return Run(store, sealer, batch=3)


def access_token(store: Store, sealer: Sealer, creator_id: str) -> str:
    """Return what is served for a creator now."""
    pair = store.current_pair(creator_id)
    return sealer.open_access(pair.sealed, PairPlace(creator_id, pair.consent, pair.generation)).reveal()


def ago(store: Store, **span: float) -> str:
    """Return an instant of the past as a file has it."""
    return (store.ping() - timedelta(**span)).isoformat()


def test_good_lines_are_stored_and_bad_ones_told(store: Store, sealer: Sealer, run: Run) -> None:
    """Bad lines are told by their number in the file, and every other line becomes a grant."""
    lines = [line(1), "", line(2, refresh_token=None), "nonsense", line(3), "x" * (LONGEST_LINE + 5), line(4), line(5)]
    text = "\ufeff" + "\r\n".join(lines)

    report = run(text)

    assert run.bad == [
        BadLine(3, "refresh_token is missing"),
        BadLine(4, "the line is not JSON"),
        BadLine(6, f"the line is longer than {LONGEST_LINE} bytes"),
    ]
    assert report == ImportReport(lines=7, created=4, bad=3, unknown_age=4)
    assert run.bytes == len(text.encode())
    assert [access_token(store, sealer, f"c{n}") for n in (1, 3, 4, 5)] == ["act.1", "act.3", "act.4", "act.5"]


def test_known_creators_are_skipped(store: Store, sealer: Sealer, run: Run) -> None:
    """An import that is run again changes nothing, so an interrupted one is simply repeated."""
    run("\n".join(line(n) for n in range(4)))

    report = run("\n".join(line(n, access_token="act.other") for n in range(6)))

    assert (report.created, report.skipped, report.replaced) == (2, 4, 0)
    assert access_token(store, sealer, "c3") == "act.3"


def test_known_creators_are_replaced_on_request(store: Store, sealer: Sealer, run: Run) -> None:
    """With `replace` a known creator gets the file's pair as a new consent."""
    run(line(1, issued_at=ago(store, hours=2)))

    report = run(line(1, access_token="act.other", issued_at=ago(store, hours=1)), replace=True)

    assert (report.created, report.skipped, report.replaced) == (0, 0, 1)
    assert access_token(store, sealer, "c1") == "act.other"
    assert store.grant("c1").consent == 2


def test_the_same_file_replaces_nothing(store: Store, run: Run) -> None:
    """A file that is imported again with `replace` leaves every pair where it is."""
    file = line(1, issued_at=ago(store, hours=20))
    run(file)

    report = run(file, replace=True)

    assert (report.skipped, report.replaced, run.bad) == (1, 0, [])
    assert store.grant("c1").consent == 1


@pytest.mark.parametrize("undated", ["nothing", "expires_at"])
def test_a_line_without_an_issue_time_replaces_nothing(store: Store, sealer: Sealer, run: Run, undated: str) -> None:
    """Of two pairs of one creator the newer is not known then: the line is refused with a reason, new ones are not."""
    run(line(1, issued_at=ago(store, hours=20)))
    changes: dict[str, Any] = {"access_token": "act.other"}
    if undated == "expires_at":
        changes |= {"expires_at": (store.ping() + timedelta(hours=4)).isoformat(), "expires_in": None}

    report = run(line(2, **changes) + "\n" + line(1, **changes), replace=True)

    assert (report.created, report.replaced, report.bad) == (1, 0, 1)
    assert run.bad == [BadLine(2, NOT_REPLACED[ConsentResult.UNDATED])]
    assert access_token(store, sealer, "c1") == "act.1"


@pytest.mark.parametrize("outcome", ["under way", "in doubt"])
def test_a_pair_that_a_refresh_may_have_outdated_replaces_nothing(
    store: Store, sealer: Sealer, run: Run, outcome: str
) -> None:
    """What a refresh brings after the file was written stays current; a pair that was issued after it is taken."""
    run(line(1, issued_at=ago(store, hours=20)))
    claim = store.claim(store.grant("c1").grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None
    if outcome == "in doubt":
        soon = store.ping() + timedelta(minutes=1)
        in_doubt = AttemptOutcome.IN_DOUBT
        store.release(claim, outcome=in_doubt, next_refresh_at=soon, reason="no answer", failed=True)

    report = run(line(1, access_token="act.other", issued_at=ago(store, hours=1)), replace=True)

    assert (report.replaced, run.bad) == (0, [BadLine(1, NOT_REPLACED[ConsentResult.BUSY])])
    assert access_token(store, sealer, "c1") == "act.1"
    if outcome == "in doubt":
        assert run(line(1, issued_at=ago(store, seconds=-1)), replace=True).replaced == 1


@pytest.mark.parametrize(
    ("replace", "served"), [pytest.param(False, "act.first", id="first"), pytest.param(True, "act.last", id="last")]
)
@pytest.mark.parametrize("between", [0, 5])
def test_of_a_creators_lines_one_counts(
    store: Store, sealer: Sealer, run: Run, *, replace: bool, served: str, between: int
) -> None:
    """Of several lines of one creator the first counts, or with `replace` the last; near together or far apart."""
    first = line(1, access_token="act.first", issued_at=ago(store, hours=2))
    last = line(1, access_token="act.last", issued_at=ago(store, hours=1))
    run("\n".join([first, *(line(100 + n) for n in range(between)), last]), replace=replace)

    assert access_token(store, sealer, "c1") == served


def test_a_dry_run_checks_every_line_and_stores_nothing(store: Store, run: Run) -> None:
    """A dry run tells the bad lines and leaves the database alone."""
    report = run(line(1) + "\nnonsense\n" + line(2), dry_run=True)

    assert (report.lines, report.bad, report.created) == (3, 1, 0)
    assert store.grants() == []


def test_tokens_of_unknown_age_are_refreshed_soon(store: Store, run: Run) -> None:
    """Without an issue time the first refreshes are spread over an eighth of the life, not put near its end."""
    run("\n".join(line(n) for n in range(60)))

    now = store.ping()
    waits = [(grant.next_refresh_at - now) / (LIFE * UNKNOWN_AGE_SHARE) for grant in store.grants()]
    assert max(waits) <= 1
    assert min(waits) >= -0.01
    assert max(waits) - min(waits) > 0.9


def test_tokens_of_known_age_are_refreshed_within_their_window(store: Store, run: Run) -> None:
    """With an issue time the first refresh comes before the window's begin, and at once where that has passed."""
    now = store.ping()
    ages = {1: timedelta(hours=1), 2: timedelta(hours=23), 3: timedelta(days=3)}
    run("\n".join(line(n, issued_at=(now - age).isoformat()) for n, age in ages.items()))

    young, old, dead = store.grants()
    assert now <= young.next_refresh_at <= now + LIFE * 0.7
    assert old.next_refresh_at <= store.ping()
    assert dead.next_refresh_at <= store.ping()
    assert dead.access_expires_at < now
    assert {grant.status for grant in (young, old, dead)} == {GrantStatus.ACTIVE}


def test_a_creator_with_the_longest_id_is_stored(store: Store, run: Run) -> None:
    """What the reader lets through, the database takes."""
    run(line(1, creator_id="x" * LONGEST_CREATOR_ID))

    assert store.grant("x" * LONGEST_CREATOR_ID).scope == "user.info.basic"


def test_a_wrong_file_is_refused_before_anything_is_stored(store: Store, run: Run) -> None:
    """A JSON array is one long line that no batch comes from."""
    with pytest.raises(UsageError, match="one JSON array"):
        run("[" + line(1) + "]")

    assert store.grants() == []


class _Endless(io.RawIOBase):
    """A file of so many lines that is made as it is read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._lines, "").encode()
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_file_is_read_as_a_stream(store: Store, sealer: Sealer) -> None:
    """No more than one batch of lines is in hand: the first are stored while the later do not exist yet."""
    seen: list[int] = []

    def lines() -> Iterator[str]:
        for number in range(3 * BATCH):
            if number == 2 * BATCH + 100:
                seen.append(store.fleet_status().total)
            yield line(number) + "\n"

    report, bad = ImportReport(), list[BadLine]()
    importer = Importer(store=store, sealer=sealer, renew_at=2 / 3)
    importer.run(io.BufferedReader(_Endless(lines()), 128), report=report, on_bad=bad.append)

    assert report.created == 3 * BATCH
    assert seen == [2 * BATCH]
