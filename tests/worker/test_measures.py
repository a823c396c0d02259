"""What a process measures of its refreshes, pulls, calls, journal and quota."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.world import World
from worker.policy.quota import usable_rate
from worker.telemetry import begin_series
from worker.telemetry.metrics import REGISTRY
from worker.tiktok import ACCOUNT_CALL, REFRESH_CALL

NewWorld = Callable[..., World]
STAGES = ("permit", "claim", "send", "store")


def counted(name: str, labels: Mapping[str, str]) -> float:
    """Return a series' value; 0 before its first."""
    return REGISTRY.get_sample_value(f"evertoken_{name}", dict(labels)) or 0.0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_stages_and_the_call_of_a_refresh_are_timed(new_world: NewWorld, database_kind: str) -> None:
    """Each stage of a group counts once, and the call by its path, also if its answer is no use."""
    world = new_world(IN_DOUBT_RETRY="never")
    stages = [counted("refresh_stage_seconds_count", {"stage": stage}) for stage in STAGES]
    calls = counted("call_seconds_count", {"call": REFRESH_CALL})

    assert world.services.refresher.refresh(world.creator().grant_id).kind == "refreshed"
    assert [counted("refresh_stage_seconds_count", {"stage": stage}) for stage in STAGES] == [n + 1 for n in stages]
    assert counted("call_seconds_count", {"call": REFRESH_CALL}) == calls + 1

    broken = world.creator()
    world.sandbox.fault("lost", creator=broken.creator_id, call="refresh", times=1, how="rst")
    assert world.services.refresher.refresh(broken.grant_id).kind == "failed"
    assert counted("call_seconds_count", {"call": REFRESH_CALL}) == calls + 2


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_call_that_was_not_sent_is_not_timed(new_world: NewWorld, free_port: int, database_kind: str) -> None:
    """A closed port says nothing about how long TikTok takes."""
    world = new_world(TIKTOK_BASE_URL=f"http://127.0.0.1:{free_port}")
    calls = counted("call_seconds_count", {"call": REFRESH_CALL})

    assert world.services.refresher.refresh(world.creator().grant_id).kind == "failed"
    assert counted("call_seconds_count", {"call": REFRESH_CALL}) == calls


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_each_resource_of_a_pull_counts_by_how_it_ended(new_world: NewWorld, database_kind: str) -> None:
    """What is stored counts for its own resource, and so does what fails; the call is timed."""
    world = new_world()
    saved = counted("pulls_total", {"resource": "account", "outcome": "saved"})
    failed = counted("pulls_total", {"resource": "account", "outcome": "failed"})
    calls = counted("call_seconds_count", {"call": ACCOUNT_CALL})
    world.services.store.request_pull((grant := world.creator()).creator_id)

    assert world.services.puller.pull(grant.grant_id).kind == "pulled"
    assert counted("pulls_total", {"resource": "account", "outcome": "saved"}) == saved + 1
    assert counted("call_seconds_count", {"call": ACCOUNT_CALL}) > calls

    world.services.store.request_pull(grant.creator_id)
    world.sandbox.fault("status", creator=grant.creator_id, call="account", times=1, status=503)
    assert world.services.puller.pull(grant.grant_id).kind == "failed"
    assert counted("pulls_total", {"resource": "account", "outcome": "failed"}) == failed + 1


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_permits_and_denials_are_counted_by_lane(new_world: NewWorld, database_kind: str) -> None:
    """What the quota gave is the requests that were sent; each question that got nothing is one denial."""
    world = new_world(QUOTA_PER_SECOND="2", QUOTA_PER_MINUTE="120")
    limiter = world.services.limiter
    given = denied = 0
    while not denied:
        asked = limiter.permits(lane="pull", call="a/call/", accounts=[str(given)])
        given, denied = given + len(asked.given), denied + (not asked.given)

    assert 0 < given <= math.ceil(3 * usable_rate(per_second=2, per_minute=120))
    assert limiter.counts() == {"refresh": (0, 0), "pull": (given, denied)}


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_pair_that_waits_for_the_database_is_seen_in_the_journals_load(
    new_world: NewWorld, wait_until: Callable[..., None], database_kind: str
) -> None:
    """Records, bytes and age are those of answers that the database does not have; then nothing waits."""
    world = new_world()
    journal, seen = world.services.journal, list[tuple[float, float, float]]()
    save = world.services.store.save_group

    def look_and_save(*args: object, **options: object) -> object:
        wait_until(lambda: journal.load()[2] > 0.01)
        seen.append(journal.load())
        return save(*args, **options)  # type: ignore[arg-type]  # passes on what it was given

    world.services.store.save_group = look_and_save  # type: ignore[method-assign,assignment]  # to look in between
    assert world.services.refresher.refresh(world.creator().grant_id).kind == "refreshed"

    ((records, size, oldest),) = seen
    assert (records, oldest > 0.01) == (1, True)
    assert size > 0
    assert (journal.load()[0], journal.load()[2]) == (0, 0.0)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_journal_that_cannot_be_read_is_not_empty(new_world: NewWorld, tmp_path: Path, database_kind: str) -> None:
    """Its figures are no numbers, rather than zeros that look well."""
    world = new_world(JOURNAL_DIR=str(tmp_path / "file"))
    (tmp_path / "file").write_bytes(b"")

    records, size, _ = world.services.journal.load()
    assert math.isnan(records)
    assert math.isnan(size)


def test_series_are_there_before_the_first_call_and_pull() -> None:
    """A rate over a series that appears with its first failure would miss that failure."""
    begin_series(["a/call/"], ["a resource"])

    assert REGISTRY.get_sample_value("evertoken_call_seconds_count", {"call": "a/call/"}) == 0
    for outcome in ("saved", "failed", "waits"):
        labels = {"resource": "a resource", "outcome": outcome}
        assert REGISTRY.get_sample_value("evertoken_pulls_total", labels) == 0
