"""Importing tokens into a real store: what is created, skipped, replaced and reported, and in which memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.claims import claim_one
from worker.consent.import_lines import LONGEST_LINE, Source
from worker.consent.importer import (
    BATCH,
    OUTDATED,
    RESULTS,
    ROUNDED,
    SHARED,
    TWICE,
    UNCLEAR,
    UNKNOWN_AGE_SHARE,
    Importer,
    ImportReport,
)
from worker.errors import UsageError
from worker.policy.creator_id import LONGEST
from worker.policy.verdicts import AttemptOutcome
from worker.store import ConsentResult, GrantStatus, Store
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


def other(number: int, **change: Any) -> str:
    """Return a line of the same creator with another pair."""
    return line(number, **{"access_token": f"act.other{number}", "refresh_token": f"rft.other{number}"} | change)


class Run:
    """Runs imports into one store."""

    def __init__(self, store: Store, sealer: Sealer, batch: int = BATCH) -> None:
        self._importer = Importer(store=store, sealer=sealer, renew_at=2 / 3, batch=batch)
        self.bytes = 0

    def __call__(self, *lines: str, **options: Any) -> ImportReport:
        """Import lines."""
        report = ImportReport()
        source = Source(io.BytesIO("\n".join(lines).encode()))
        self._importer.run(source, report=report, progress=self._count, **options)
        return report

    def _count(self, size: int) -> None:
        self.bytes += size


def reasons(report: ImportReport) -> dict[str, list[int]]:
    """Return the lines that were not taken, by reason."""
    return {reason: lines for (what, reason), lines in report.lines_of.items() if what in {"bad", "skipped"}}


def why(result: ConsentResult) -> str:
    """Return the reason of a result in words."""
    return RESULTS[result][1]


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


def test_good_lines_are_stored_and_bad_ones_reported(store: Store, sealer: Sealer, run: Run) -> None:
    """Bad lines are reported by their number in the file, and every other line becomes a grant."""
    lines = [line(1), "", line(2, refresh_token=None), "nonsense", line(3), "x" * (LONGEST_LINE + 5), line(4), line(5)]
    text = "\ufeff" + "\r\n".join(lines)

    report = run(text)

    assert reasons(report) == {
        "refresh_token is missing": [3],
        "the line is not JSON": [4],
        f"the line is longer than {LONGEST_LINE} bytes": [6],
    }
    assert (report.lines, report.created, report.bad, report.unknown_age) == (7, 4, 3, 4)
    assert run.bytes == 2 * len(text.encode())
    assert [access_token(store, sealer, f"c{n}") for n in (1, 3, 4, 5)] == ["act.1", "act.3", "act.4", "act.5"]


@pytest.mark.parametrize("form", ["[{}]", '{{"data": [\n{}]}}'])
def test_entries_of_a_json_document_in_one_line_are_counted(run: Run, form: str) -> None:
    """The number of the line would be the same for all of them."""
    report = run(form.format(", ".join([line(1), line(2, refresh_token=None), line(3), line(4, refresh_token=None)])))

    assert reasons(report) == {"refresh_token is missing": [2, 4]}
    assert report.created == 2


def test_an_import_that_is_run_again_changes_nothing(store: Store, run: Run) -> None:
    """An interrupted import is simply repeated: what it stored is there, and nobody has to do anything."""
    run(*(line(n) for n in range(4)))

    report = run(*(line(n) for n in range(6)))

    assert (report.created, report.skipped, report.replaced, report.bad) == (2, 4, 0, 0)
    assert reasons(report) == {why(ConsentResult.SAME): [1, 2, 3, 4]}


def test_another_pair_of_a_known_creator_is_reported_and_left(store: Store, sealer: Sealer, run: Run) -> None:
    """Without `replace` it is not taken; somebody has to look, because one of the two may be newer."""
    run(line(1, issued_at=ago(store, hours=2)), line(2))

    report = run(other(1, issued_at=ago(store, hours=1)), other(2))

    assert (report.bad, reasons(report)) == (2, {why(ConsentResult.KNOWN): [1, 2]})
    assert access_token(store, sealer, "c1") == "act.1"


def test_known_creators_are_replaced_on_request(store: Store, sealer: Sealer, run: Run) -> None:
    """With `replace` a known creator gets the file's pair as a new consent."""
    run(line(1, issued_at=ago(store, hours=2)))

    report = run(other(1, issued_at=ago(store, hours=1)), replace=True)

    assert (report.created, report.skipped, report.replaced) == (0, 0, 1)
    assert access_token(store, sealer, "c1") == "act.other1"
    assert store.grant("c1").consent == 2


@pytest.mark.parametrize("dated", ["microseconds", "whole seconds, rounded up", "later", "not at all"])
def test_the_same_file_replaces_nothing(store: Store, run: Run, dated: str) -> None:
    """A pair that is stored is the same pair, whatever the file says of its age, and to whatever precision."""
    now = store.ping()
    issued = (now - timedelta(hours=20)).replace(microsecond=123_987)
    run(line(1, issued_at=issued.isoformat()))
    again = {
        "microseconds": issued.isoformat(),
        "whole seconds, rounded up": (issued.replace(microsecond=0) + timedelta(seconds=1)).isoformat(),
        "later": now.isoformat(),
        "not at all": None,
    }

    report = run(line(1, issued_at=again[dated]), replace=True)

    assert (report.replaced, report.bad, reasons(report)) == (0, 0, {why(ConsentResult.SAME): [1]})
    assert store.grant("c1").consent == 1


def test_another_pair_of_the_very_same_instant_is_not_newer(store: Store, run: Run) -> None:
    """Microseconds of a file and the database's milliseconds are compared as milliseconds."""
    issued = (store.ping() - timedelta(hours=20)).replace(microsecond=123_987).isoformat()
    run(line(1, issued_at=issued))

    report = run(other(1, issued_at=issued), replace=True)

    assert reasons(report) == {why(ConsentResult.OLDER): [1]}


def test_a_pair_that_was_followed_by_another_is_never_taken_again(store: Store, sealer: Sealer, run: Run) -> None:
    """An old file's pair was used up by the refresh that followed, though its date may say that it is new."""
    run(line(1, issued_at=ago(store, hours=20)))
    run(other(1, issued_at=ago(store, hours=10)), replace=True)

    report = run(line(1, issued_at=ago(store, hours=1)), replace=True)

    assert reasons(report) == {why(ConsentResult.OLDER): [1]}
    assert access_token(store, sealer, "c1") == "act.other1"


def test_a_refresh_token_that_stayed_with_a_newer_access_token_is_taken(store: Store, sealer: Sealer, run: Run) -> None:
    """If TikTok does not rotate, the newer of two pairs with one refresh token is the one with the later date."""
    run(line(1, issued_at=ago(store, hours=20)))

    report = run(line(1, access_token="act.newer", issued_at=ago(store, hours=1)), replace=True)

    assert (report.replaced, access_token(store, sealer, "c1")) == (1, "act.newer")


@pytest.mark.parametrize("undated", ["nothing", "expires_at"])
def test_a_line_without_an_issue_time_replaces_nothing(store: Store, sealer: Sealer, run: Run, undated: str) -> None:
    """Of two pairs of one creator the newer is not known then: the line is refused with a reason, new ones are not."""
    run(line(1, issued_at=ago(store, hours=20)))
    changes: dict[str, Any] = {}
    if undated == "expires_at":
        changes = {"expires_at": (store.ping() + timedelta(hours=4)).isoformat(), "expires_in": None}

    report = run(line(2, **changes), other(1, **changes), replace=True)

    assert (report.created, report.replaced, report.bad) == (1, 0, 1)
    assert reasons(report) == {why(ConsentResult.UNDATED): [2]}
    assert access_token(store, sealer, "c1") == "act.1"


@pytest.mark.parametrize("outcome", ["under way", "in doubt"])
def test_a_pair_that_a_refresh_may_have_outdated_replaces_nothing(
    store: Store, sealer: Sealer, run: Run, outcome: str
) -> None:
    """What a refresh brings after the file was written stays current; a pair that was issued after it is taken."""
    run(line(1, issued_at=ago(store, hours=20)))
    claim = claim_one(store, store.grant("c1").grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None
    if outcome == "in doubt":
        soon = store.ping() + timedelta(minutes=1)
        in_doubt = AttemptOutcome.IN_DOUBT
        store.release(claim, outcome=in_doubt, next_refresh_at=soon, reason="no answer", failed=True)

    report = run(other(1, issued_at=ago(store, hours=1)), replace=True)

    assert (report.replaced, reasons(report)) == (0, {why(ConsentResult.BUSY): [1]})
    assert access_token(store, sealer, "c1") == "act.1"
    if outcome == "in doubt":
        assert run(other(1, issued_at=ago(store, seconds=-1)), replace=True).replaced == 1


def test_a_creator_who_has_to_authorize_takes_any_other_pair(store: Store, sealer: Sealer, run: Run) -> None:
    """The refused pair revives nobody, or the creator would be asked twice; any other may, dated or not."""
    run(line(1, issued_at=ago(store, hours=2)))
    claim = claim_one(store, store.grant("c1").grant_id, owner="a worker", lease_seconds=60, force=True)
    assert claim is not None
    store.ask_reauth(claim, reason="refused 40107")

    dead = [run(line(1, issued_at=at), replace=True) for at in (ago(store, hours=2), ago(store, seconds=1), None)]
    known = run(other(1), replace=False)
    assert store.grant("c1").status is GrantStatus.NEEDS_REAUTH
    taken = run(other(1), replace=True)

    assert [reasons(report) for report in dead] == [{why(ConsentResult.DEAD): [1]}] * 3
    assert reasons(known) == {why(ConsentResult.KNOWN): [1]}
    assert (taken.replaced, store.grant("c1").status) == (1, GrantStatus.ACTIVE)


def test_a_revoked_creator_comes_back_with_a_pair_that_was_issued_after_it(store: Store, run: Run) -> None:
    """An old dump revives nobody whose grant was ended here."""
    run(line(1, issued_at=ago(store, hours=2)))
    store.mark_revoked("c1")

    assert reasons(run(other(1, issued_at=ago(store, hours=1)), replace=True)) == {why(ConsentResult.REVOKED): [1]}
    assert run(other(1, issued_at=ago(store, seconds=-60)), replace=True).replaced == 1


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("between", [0, 5])
def test_of_a_creators_lines_the_latest_counts(
    store: Store, sealer: Sealer, run: Run, *, replace: bool, order: tuple[int, ...], between: int
) -> None:
    """In every order and mode, near together or far apart, the latest issue time wins, and the others are counted."""
    own = [
        line(1, access_token=f"act.{hours}", refresh_token=f"rft.{hours}h", issued_at=ago(store, hours=hours))
        for hours in (30, 20, 10)
    ]
    others = [line(100 + n) for n in range(between)]

    report = run(own[order[0]], *others, own[order[1]], own[order[2]], replace=replace)

    assert access_token(store, sealer, "c1") == "act.10"
    assert (report.created, report.bad, len(reasons(report)[OUTDATED])) == (1 + between, 0, 2)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("dated", [(False, False), (True, False), (False, True), (True, True)])
def test_of_lines_that_do_not_say_which_is_newer_none_counts(
    store: Store, run: Run, *, replace: bool, dated: tuple[bool, bool]
) -> None:
    """If a date is missing, or both dates are equal, both lines are reported and neither is stored."""
    at = ago(store, hours=1)
    first, second = (at if is_dated else None for is_dated in dated)

    report = run(line(1, issued_at=first), line(2), other(1, issued_at=second), replace=replace)

    assert reasons(report) == {UNCLEAR: [1, 3]}
    assert (report.created, report.bad) == (1, 2)


def test_one_pair_on_two_lines_is_one_pair(store: Store, run: Run) -> None:
    """A line that stands twice is counted, and is nobody's trouble; the one with a date is kept."""
    report = run(line(1), line(1, issued_at=ago(store, hours=3)), line(1))

    assert (report.created, report.bad, reasons(report)) == (1, 0, {TWICE: [1, 3]})
    assert report.unknown_age == 0


@pytest.mark.parametrize("token", ["access_token", "refresh_token"])
def test_two_creators_with_one_token_are_both_reported(store: Store, run: Run, token: str) -> None:
    """A cell that was filled down belongs to one of them, and nobody here knows to which."""
    report = run(line(1), line(2, **{token: json.loads(line(1))[token]}), line(3))

    assert reasons(report) == {SHARED: [1, 2]}
    assert report.created == 1


def test_a_dry_run_says_what_would_be_done_and_stores_nothing(store: Store, run: Run) -> None:
    """It counts like the import itself, creators that are known included."""
    run(line(1, issued_at=ago(store, hours=9)), line(2))
    before = store.grants()
    file = (line(1), other(1, issued_at=ago(store, hours=1)), other(2), "nonsense", line(3))

    for replace in (False, True):
        tried = run(*file, replace=replace, dry_run=True)
        assert store.grants() == before
        assert tried.created == 1
    done = run(*file, replace=True)

    assert (tried.counts, tried.lines_of) == (done.counts, done.lines_of)


@pytest.mark.parametrize("text", ['[{"creator_id": "c1"', '{"creator_id":\n "c1"'])
def test_half_a_file_is_refused_before_anything_is_stored(store: Store, run: Run, text: str) -> None:
    """A JSON document that breaks off is no list of creators."""
    with pytest.raises(UsageError, match="breaks off"):
        run(text)

    assert store.grants() == []


def test_tokens_of_unknown_age_are_refreshed_soon(store: Store, run: Run) -> None:
    """Without an issue time the first refreshes are spread over an eighth of the life, not put near its end."""
    run(*(line(n) for n in range(60)))

    now = store.ping()
    waits = [(grant.next_refresh_at - now) / (LIFE * UNKNOWN_AGE_SHARE) for grant in store.grants()]
    assert max(waits) <= 1
    assert min(waits) >= -0.01
    assert max(waits) - min(waits) > 0.9


def test_tokens_of_known_age_are_refreshed_within_their_window(store: Store, run: Run) -> None:
    """With an issue time the first refresh comes before the window's begin, and at once if that has passed."""
    now = store.ping()
    ages = {1: timedelta(hours=1), 2: timedelta(hours=23), 3: timedelta(days=3)}
    run(*(line(n, issued_at=(now - age).isoformat()) for n, age in ages.items()))

    young, old, dead = store.grants()
    assert now <= young.next_refresh_at <= now + LIFE * 0.7
    assert old.next_refresh_at <= store.ping()
    assert dead.next_refresh_at <= store.ping()
    assert dead.access_expires_at < now
    assert {grant.status for grant in (young, old, dead)} == {GrantStatus.ACTIVE}


def test_a_creator_with_the_longest_id_is_stored(store: Store, run: Run) -> None:
    """What the reader lets through, the database takes."""
    run(line(1, creator_id="a" * LONGEST))

    assert store.grant("a" * LONGEST).scope == "user.info.basic"


@pytest.mark.slow_suite
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_large_file_is_not_held_in_memory(store: Store, sealer: Sealer, tmp_path: Path) -> None:
    """Of a file of many lines, little is remembered between its two readings, and no token."""
    path, count = tmp_path / "large.jsonl", 10 * BATCH
    padding = "p" * 4_000
    path.write_text("".join(line(number, note=padding) + "\n" for number in range(count)))
    importer = Importer(store=store, sealer=sealer, renew_at=2 / 3)
    tracemalloc.start()
    with path.open("rb") as stream:
        report = ImportReport()
        importer.run(Source(stream), report=report)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert report.created == count
    assert peak < path.stat().st_size / 2


def test_a_field_that_an_object_names_twice_is_refused(store: Store, sealer: Sealer) -> None:
    """JSON readers keep the last of two; whose token that is, nobody can say."""
    twice = line(1).replace("{", '{"creator_id": "c2", ', 1)

    report = Run(store, sealer)(twice, line(3))

    assert reasons(report) == {"an object names a field twice": [1]}
    with pytest.raises(UsageError, match="names a field twice"):
        Run(store, sealer)("[", twice, "]")
    assert store.fleet_status().total == 1


def test_ids_that_a_spreadsheet_has_rounded_are_refused(store: Store, run: Run) -> None:
    """A spreadsheet keeps fifteen digits; a few ids may end in zeros by chance, and those are taken."""
    rounded = [line(number, creator_id=f"7{number:014}0000") for number in range(1, 6)]
    genuine = [line(number, creator_id=f"71000000000000{number:05}") for number in range(10001, 10010)]
    by_chance = line(77, creator_id="7123456789012340000")

    assert reasons(run(*rounded)) == {ROUNDED: [1, 2, 3, 4, 5]}
    report = run(*genuine, by_chance)
    assert (report.created, report.bad) == (10, 0)


def test_times_without_a_zone_are_counted(store: Store, run: Run) -> None:
    """They are read as UTC, which a person has to know; a local time shows where it lies ahead."""
    now = store.ping()
    past, ahead = (now - timedelta(hours=1)).replace(tzinfo=None), (now + timedelta(hours=1)).replace(tzinfo=None)
    report = run(
        *[
            line(1, issued_at=past.isoformat(" ")),
            line(2, issued_at=past.replace(tzinfo=UTC).isoformat()),
            line(3, issued_at=ahead.isoformat(" ")),
            line(4, issued_at=ahead.replace(tzinfo=UTC).isoformat()),
        ]
    )

    assert (report.created, report.zoneless) == (2, 1)
    future = "the issue time lies in the future"
    assert reasons(report) == {
        f"{future}; it names no time zone and was read as UTC: add the zone, such as +02:00": [3],
        future: [4],
    }
