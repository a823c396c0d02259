"""The journal's disk is full, its files are damaged, or it comes back late with a host that was dead."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.scene import Scene
from worker.journal.segment import FRAME_BYTES, HEADER_BYTES
from worker.store import GrantStatus
from worker.tokens import token_reader

pytestmark = pytest.mark.slow_suite

SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
MEGABYTE = 2**20


def test_a_disk_without_room_for_the_journal_sends_nothing(scene: Scene) -> None:
    """No segment, no call: the grants wait, and refreshing goes on with the next worker that has room."""
    grant = scene.creator()
    worker = scene.worker(
        {"do": "limit", "what": "RLIMIT_FSIZE", "number": MEGABYTE}, {"do": "refresh", "ids": [grant.grant_id]}
    )

    assert scene.kinds(worker) == ["not_ready"]
    assert scene.sent() == 0
    assert scene.judge() == {}


@pytest.mark.parametrize("when", ["at-the-start", "at-run-time"])
def test_a_full_journal_disk_keeps_no_received_pair_from_the_database(scene: Scene, tmp_path: Path, when: str) -> None:
    """A process without room claims nothing and stores what a dead one had received, before another host asks again."""
    grant, other = scene.creators(2)
    scene.refresh(grant, at="pre_commit:kill").ended()
    step = {"do": "enter"} if when == "at-the-start" else {"do": "refresh", "ids": [other.grant_id]}
    worker = scene.worker({"do": "limit", "what": "RLIMIT_FSIZE", "number": MEGABYTE}, step)
    worker.ended()

    assert [note.kind for note in scene.notes() if note.pid == worker.pid and note.what == "done"] == [
        "JournalError" if when == "at-the-start" else "not_ready"
    ]
    assert scene.look(grant).pair_generation == 2
    scene.end_leases()
    scene.refresh(other, grant, JOURNAL_DIR=str(tmp_path / "other-host")).ended()
    assert scene.sent() == 2
    assert scene.judge() == {}
    assert scene.look(grant).status is GrantStatus.ACTIVE


def test_a_log_that_cannot_be_written_stops_nothing(scene: Scene) -> None:
    """The disk of the log is full: the refresh does not care."""
    grant = scene.creator()
    worker = scene.worker({"do": "refresh", "ids": [grant.grant_id]}, log="/dev/full")

    assert scene.kinds(worker) == ["refreshed"]
    assert scene.judge() == {}


@SQLITE
def test_a_full_disk_of_the_database_keeps_the_pair_in_the_journal(
    scene: Scene, wait_until: Callable[..., None]
) -> None:
    """The answer is there and SQLite has no room: the pair waits, and is stored when there is room again."""
    grant = scene.creator()
    worker = scene.worker(
        {"do": "refresh", "ids": [grant.grant_id]}, {"do": "serve", "threads": 1}, at="post_fsync:stop@1"
    )
    worker.stopped()
    unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (4096, unlimited[1]))
    worker.resume()
    scene.wait_for("left_over")
    assert scene.look(grant).pair_generation == 1
    assert len(scene.kept()) == 1
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)
    wait_until(lambda: scene.look(grant).pair_generation == 2)
    worker.finish()

    assert scene.judge() == {}


def test_a_damaged_record_is_set_aside_and_the_others_are_replayed(scene: Scene) -> None:
    """One bit is flipped in one dead worker's journal: that record is kept for a person, the other pair is stored."""
    damaged, whole = scene.creators(2)
    scene.refresh(damaged, at="pre_commit:kill").ended()
    (path,) = scene.journal_dir.glob("*.segment")
    content = bytearray(path.read_bytes())
    content[HEADER_BYTES + FRAME_BYTES + 40] ^= 1
    path.write_bytes(content)
    scene.refresh(whole, at="pre_commit:kill").ended()

    replay = scene.worker({"do": "replay"})
    replay.ended()

    assert [scene.look(grant).pair_generation for grant in (damaged, whole)] == [1, 2]
    assert len(list((scene.journal_dir / "set-aside").iterdir())) == 1
    assert "journal.alarm" in replay.said()
    found = scene.judge()
    assert list(found) == ["V1 lost"], "the oracle calls damaged bytes lost, and nothing else is wrong"
    assert len(found["V1 lost"]) == 1


def test_a_nameless_pair_in_a_dead_workers_journal_is_kept_aside(scene: Scene) -> None:
    """Its worker died before it could ask; the replay stores nothing under a guess and lets nothing go."""
    grant = scene.creator()
    scene.sandbox.fault("extra", creator=grant.creator_id, call="refresh", times=1, fields={"open_id": None})
    scene.refresh(grant, at="post_fsync:kill").ended()

    scene.worker({"do": "replay"}).ended()

    assert scene.look(grant).pair_generation == 1
    assert len(list((scene.journal_dir / "set-aside").iterdir())) == 1


def test_a_dead_hosts_journal_that_comes_back_late_revives_its_grants(scene: Scene, tmp_path: Path) -> None:
    """Until then the grant is suspect and its old access token is served; nobody has been asked."""
    grant = scene.creator()
    scene.refresh(grant, at="pre_commit:kill").ended()
    shutil.move(scene.journal_dir, tmp_path / "dead-host")
    scene.end_leases()

    assert scene.kinds(scene.refresh(grant)) == ["failed"]
    assert scene.look(grant).status is GrantStatus.SUSPECT
    assert token_reader(scene.world.services).access_token(grant.creator_id, min_validity=60)
    assert scene.store.undelivered_notices() == []

    scene.worker({"do": "replay"}, JOURNAL_DIR=str(tmp_path / "dead-host")).ended()
    assert scene.look(grant).status is GrantStatus.ACTIVE
    assert scene.judge() == {}


def test_a_dead_hosts_journal_that_never_comes_back_ends_with_one_question(scene: Scene, tmp_path: Path) -> None:
    """The pair is gone with its disk: the creator is asked once, after the access token has ended."""
    grant = scene.creator()
    scene.refresh(grant, at="pre_commit:kill").ended()
    shutil.rmtree(scene.journal_dir)
    found = scene.judge()

    assert scene.look(grant).status is GrantStatus.NEEDS_REAUTH
    assert list(found) == ["V1 lost"], "the pair was on that disk alone, and the oracle says so"


def test_a_replay_after_the_creator_was_asked_revives_the_grant_and_withdraws_the_question(
    scene: Scene, tmp_path: Path
) -> None:
    """The journal comes back after all: the pair is good, so the question that nobody has read yet is taken back."""
    grant = scene.creator()
    scene.refresh(grant, at="pre_commit:kill").ended()
    shutil.move(scene.journal_dir, tmp_path / "dead-host")
    scene.drain()
    assert scene.look(grant).status is GrantStatus.NEEDS_REAUTH

    scene.worker({"do": "replay"}, JOURNAL_DIR=str(tmp_path / "dead-host")).ended()

    assert scene.look(grant).status is GrantStatus.ACTIVE
    assert scene.store.undelivered_notices() == []
    assert scene.judge() == {}


def test_a_worker_without_file_descriptors_loses_nothing(scene: Scene) -> None:
    """It cannot connect, or cannot journal: nothing is sent that could not be kept."""
    grants = scene.creators(2)
    ids = [grant.grant_id for grant in grants]
    worker = scene.worker(
        {"do": "refresh", "ids": ids[:1]},
        {"do": "limit", "what": "RLIMIT_NOFILE", "number": 3},
        {"do": "refresh", "ids": ids[1:]},
    )

    assert "refreshed" not in scene.kinds(worker)[1:]
    assert scene.sent() == 1
    assert scene.judge() == {}
