"""The journal while its process lives: appending, releasing, rotating, refusing."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import JournalError
from worker.journal import Journal, JournalEntry, RecordId
from worker.vault import Keyring, Sealer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.vault.conftest import NewEntry, NewJournal

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

INSTANTS = st.datetimes(timezones=st.just(UTC))


def segments(folder: Path) -> list[Path]:
    """Return the journal files of a folder."""
    return sorted(folder.glob("*.segment"))


@UNHURRIED
@given(
    ids=st.tuples(st.integers(), st.text(), st.integers(), st.integers()),
    call=st.text(),
    body=st.binary(),
    status=st.none() | st.integers(),
    texts=st.tuples(st.none() | st.text(), st.none() | st.text()),
    extra=st.dictionaries(st.text(), st.text()),
    instants=st.tuples(INSTANTS, INSTANTS),
)
def test_an_entry_comes_back_as_it_was(
    *,
    ids: tuple[int, str, int, int],
    call: str,
    body: bytes,
    status: int | None,
    texts: tuple[str | None, str | None],
    extra: dict[str, str],
    instants: tuple[datetime, datetime],
) -> None:
    """Every field and every byte of any answer survives the plaintext form."""
    entry = JournalEntry("refresh", *ids, call, status, body, bool(body), *texts, *instants, extra)

    assert JournalEntry.from_bytes(entry.to_bytes()) == entry
    assert entry.attempt() == ids


@pytest.mark.parametrize(
    "fields",
    [{"grant_id": None}, {"generation": None}, {"kind": "other"}, {"sent_at": datetime(2026, 1, 1)}],  # noqa: DTZ001 - a naive instant is the fault
    ids=["no grant", "no generation", "unknown kind", "naive instant"],
)
def test_an_entry_that_could_not_be_replayed_is_refused(new_entry: NewEntry, fields: dict[str, Any]) -> None:
    """What a replay could not use is refused when it is made."""
    with pytest.raises(ValueError):
        new_entry(**fields)


def test_an_exchange_belongs_to_no_attempt(new_entry: NewEntry) -> None:
    """An exchange has no grant yet, and says so if a grant is asked for."""
    entry = new_entry(kind="exchange", grant_id=None, creator_id=None, consent=None, generation=None)

    with pytest.raises(JournalError, match="belongs to no attempt"):
        entry.attempt()


@pytest.mark.parametrize(
    "plaintext", [b"", b"{}\nbody", b'{"form":1}\nbody', b'{"form":2}\n', b"[]\n", b"\xff\n", b"1"]
)
def test_a_plaintext_of_another_form_is_an_error_without_its_bytes(plaintext: bytes) -> None:
    """Whatever opened and is no entry raises one error, and the text holds none of it."""
    with pytest.raises(JournalError) as caught:
        JournalEntry.from_bytes(plaintext)

    assert "body" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_nothing_is_opened_before_the_first_use(folder: Path, new_journal: NewJournal) -> None:
    """A command that never journals leaves no folder behind."""
    journal = new_journal()
    assert (journal.waiting(), list(journal.orphans()), journal.key_usage()) == (0, [], {})
    journal.close()

    assert not folder.exists()


def test_files_are_for_their_owner_alone(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """Folder 0700, file 0600, whatever the umask; the disk space is taken at once."""
    before = os.umask(0)
    try:
        new_journal().append(new_entry())
    finally:
        os.umask(before)

    (path,) = segments(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == 64 * 1024
    assert path.stat().st_blocks * 512 >= 64 * 1024


def test_no_secret_stands_in_the_file_or_in_a_repr(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """The file holds sealed bytes alone, and entry and record print without the body."""
    journal = new_journal()
    journal.append(new_entry(body=b"act.CANARY", extra={"note": "rft.CANARY"}))
    (orphan,) = journal.unreleased()

    assert b"CANARY" not in segments(folder)[0].read_bytes()
    assert b"creator-1" not in segments(folder)[0].read_bytes()
    assert "CANARY" not in repr(orphan)


def test_a_released_record_waits_no_more(new_journal: NewJournal, new_entry: NewEntry) -> None:
    """Release is idempotent, and unknown records are ignored."""
    journal = new_journal()
    first, second = journal.append(new_entry(1)), journal.append(new_entry(2))
    assert journal.waiting() == 2

    for record in (first, first, RecordId("unknown.segment", 1), RecordId(first.segment, 99)):
        journal.release(record)

    assert journal.waiting() == 1
    assert [waiting.record for waiting in journal.unreleased()] == [second]


def test_a_clean_end_leaves_no_file(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """With nothing waiting, `close` removes the file; a second `close` does nothing."""
    journal = new_journal()
    journal.ready()
    journal.release(journal.append(new_entry()))
    journal.close()
    journal.close()

    assert list(folder.iterdir()) == []


def test_a_late_answer_is_kept_after_close(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """An answer that comes while the process ends is worth more than a tidy end."""
    journal = new_journal()
    journal.release(journal.append(new_entry(1)))
    journal.close()

    journal.append(new_entry(2))

    assert journal.waiting() == 1
    assert len(segments(folder)) == 1


def test_full_segments_are_followed_by_new_ones_and_go_when_released(
    folder: Path, new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """Records run over several files; a file goes with its last record, the open one stays."""
    journal = new_journal()
    records = [journal.append(new_entry(number, body=bytes(10_000))) for number in range(1, 21)]
    names = {record.segment for record in records}
    assert len(names) > 2
    assert {path.name for path in segments(folder)} == names

    for record in records:
        journal.release(record)

    assert [path.name for path in segments(folder)] == [records[-1].segment]
    assert [waiting.entry.grant_id for waiting in journal.unreleased()] == []


def test_a_record_may_be_larger_than_a_segment(new_journal: NewJournal, new_entry: NewEntry) -> None:
    """No answer is too long for the journal."""
    journal = new_journal()
    body = os.urandom(300_000)
    journal.append(new_entry(body=body))

    assert [waiting.entry.body for waiting in journal.unreleased()] == [body]


def test_ready_leaves_room_for_what_is_in_flight(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """A segment that is nearly full is followed before the next answer is asked for, not when it comes."""
    journal = new_journal()
    record = journal.append(new_entry(body=bytes(50_000)))
    journal.ready()

    assert journal.append(new_entry(body=bytes(10_000))).segment != record.segment


def test_records_in_flight_can_be_left_out(new_journal: NewJournal, new_entry: NewEntry) -> None:
    """A retry by age leaves out what a thread is just storing."""
    journal = new_journal()
    journal.append(new_entry())

    assert list(journal.unreleased(older_than_seconds=60)) == []
    assert len(list(journal.unreleased())) == 1


def test_threads_that_append_at_once_lose_nothing(new_journal: NewJournal, new_entry: NewEntry, sealer: Sealer) -> None:
    """16 threads share syncs; every record is there, once, under its own number, across segments."""
    journal = new_journal(segment_bytes=32 * 1024)
    start = threading.Barrier(16)
    records: dict[int, RecordId] = {}

    def work(thread: int) -> None:
        start.wait()
        for step in range(25):
            number = thread * 100 + step + 1
            records[number] = journal.append(new_entry(number))
            if step % 2:
                journal.release(records[number])

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(set(records.values())) == 400
    found = {waiting.entry.grant_id: waiting.record for waiting in journal.unreleased()}
    assert found == {number: record for number, record in records.items() if (number - 1) % 100 % 2 == 0}


def test_threads_share_one_sync(new_journal: NewJournal, new_entry: NewEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written while a sync ran goes to disk with the next one, together."""
    import worker.journal.file as module  # noqa: PLC0415 - the system call under it is counted

    syncs, gate, entered = [0], threading.Event(), threading.Event()
    real = module._sync_data

    def counted(descriptor: int) -> None:
        syncs[0] += 1
        entered.set()
        assert gate.wait(10)
        real(descriptor)

    written = threading.Semaphore(0)
    journal = new_journal(failpoint=lambda name: written.release() if name == "post_write" else None)
    monkeypatch.setattr(module, "_sync_data", counted)
    threads = [threading.Thread(target=journal.append, args=(new_entry(number),)) for number in range(1, 9)]
    threads[0].start()
    assert entered.wait(10)
    for each in threads[1:]:
        each.start()
    for _ in threads:
        assert written.acquire(timeout=10)
    gate.set()
    for each in threads:
        each.join()

    assert syncs == [2]
    assert journal.waiting() == 8


def test_a_failed_sync_moves_the_answer_to_a_new_file(
    new_journal: NewJournal, new_entry: NewEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails once costs a file, not the answer; a failed file is trusted no more."""
    import worker.journal.file as module  # noqa: PLC0415 - the system call under it fails

    real, faults = module._sync_data, [OSError(5, "Input/output error")]

    def failing(descriptor: int) -> None:
        if faults:
            raise faults.pop()
        real(descriptor)

    journal = new_journal()
    first = journal.append(new_entry(1))
    monkeypatch.setattr(module, "_sync_data", failing)
    second = journal.append(new_entry(2))

    assert second.segment != first.segment
    assert [waiting.record for waiting in journal.unreleased()] == [first, second]


def test_a_written_answer_is_synced_within_moments_and_by_whoever_waits_for_it(
    new_journal: NewJournal, new_entry: NewEntry, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., None]
) -> None:
    """A sender goes on at once; many records share a sync, and one that nobody asks for is synced all the same."""
    import worker.journal.file as module  # noqa: PLC0415 - the system call under it is counted

    syncs: list[int] = []
    real = module._sync_data

    def counted(descriptor: int) -> None:
        syncs.append(descriptor)
        real(descriptor)

    journal = new_journal()
    journal.ready()
    monkeypatch.setattr(module, "_sync_data", counted)
    written = [journal.write(new_entry(number)) for number in range(1, 51)]
    assert [journal.sync(each) for each in written] == [each.record for each in written]
    assert 1 <= len(syncs) < 50

    before = len(syncs)
    last = journal.write(new_entry(51))
    wait_until(lambda: len(syncs) > before)
    synced = len(syncs)
    assert journal.sync(last) == last.record
    assert len(syncs) == synced
    assert "CANARY" not in repr(journal.write(new_entry(52, body=b"rft.CANARY")))


def test_written_answers_whose_sync_fails_move_to_a_new_file(
    new_journal: NewJournal, new_entry: NewEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is trusted no more: each answer that it may have lost is written again, and waits once."""
    import worker.journal.file as module  # noqa: PLC0415 - the system call under it fails

    real, faults = module._sync_data, [OSError(5, "Input/output error")]

    def failing(descriptor: int) -> None:
        if faults:
            raise faults.pop()
        real(descriptor)

    journal = new_journal()
    synced = journal.append(new_entry(1))
    monkeypatch.setattr(module, "_sync_data", failing)
    written = [journal.write(new_entry(number)) for number in (2, 3)]
    records = [journal.sync(each) for each in written]

    assert not faults
    assert {record.segment for record in records} != {synced.segment}
    found = {waiting.entry.grant_id: waiting.record for waiting in journal.unreleased()}
    assert found == {1: synced, 2: records[0], 3: records[1]}


def test_a_record_that_was_released_before_its_sync_is_no_error(
    folder: Path, new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """The database has it: nobody needs the disk any more, even if the file is closed by now."""
    journal = new_journal()
    written = journal.write(new_entry())
    journal.release(written.record)
    journal.close()

    assert journal.sync(written) == written.record
    assert segments(folder) == []


def test_an_answer_that_no_disk_takes_is_an_error(
    new_journal: NewJournal, new_entry: NewEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If both tries fail, the caller learns it in one sentence and goes to the database."""
    import worker.journal.file as module  # noqa: PLC0415 - the system call under it fails

    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    journal = new_journal()
    monkeypatch.setattr(module, "_sync_data", failing)
    with pytest.raises(JournalError, match="Input/output error") as caught:
        journal.append(new_entry())

    assert caught.value.__cause__ is None
    monkeypatch.undo()


@pytest.mark.parametrize("mode", [0o750, 0o707, 0o777, 0o2770, 0o2775, 0o710])
def test_a_folder_of_ours_open_to_others_is_closed_to_them(new_journal: NewJournal, folder: Path, mode: int) -> None:
    """What fsGroup of Kubernetes opens at each mount is closed again, with one warning."""
    folder.mkdir()
    folder.chmod(mode)

    journal = new_journal()
    journal.ready()

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [warning for warning in journal.warnings() if f"mode {mode:04o}" in warning and "was closed" in warning]
    assert not [warning for warning in new_journal().warnings() if "was closed" in warning]


def test_a_folder_that_cannot_be_closed_to_others_is_refused(
    new_journal: NewJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems keep no modes, and say so or not; the sentence says what to do."""

    def refuse(*_: object) -> None:
        raise PermissionError

    folder.mkdir()
    folder.chmod(0o777)
    for chmod in (refuse, lambda *_: None):
        monkeypatch.setattr("os.fchmod", chmod)
        with pytest.raises(JournalError, match=f"chmod 700 {folder}"):
            new_journal().ready()


def test_a_link_in_place_of_the_folder_is_refused(folder: Path, tmp_path: Path, new_journal: NewJournal) -> None:
    """Nobody can lead the journal elsewhere."""
    (tmp_path / "real").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "real")

    with pytest.raises(JournalError, match="is a link or a file"):
        new_journal().ready()


def test_another_users_folder_is_refused(
    folder: Path, new_journal: NewJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of another owner is refused, for that owner can read and replace what lies in it."""
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)

    with pytest.raises(JournalError, match="belongs to user"):
        new_journal().ready()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, new_journal: NewJournal) -> None:
    """A file in the place of the folder's parent is an error of one sentence, without a traceback."""
    (tmp_path / "file").write_text("")

    with pytest.raises(JournalError, match="Not a directory"):
        new_journal(directory=tmp_path / "file" / "journal").ready()


def test_a_nearly_full_disk_is_refused_and_takes_what_is_in_flight(
    new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """Below the floor nothing new is begun, and an answer that comes all the same is kept."""
    journal = new_journal(floor_bytes=2**62)
    with pytest.raises(JournalError, match="nearly full"):
        journal.ready()
    journal.append(new_entry())

    assert journal.waiting() == 1


def test_a_removed_folder_is_noticed(folder: Path, new_journal: NewJournal) -> None:
    """A folder that vanishes under a living worker stops it from sending."""
    journal = new_journal()
    journal.ready()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    with pytest.raises(JournalError, match="cannot be used"):
        journal.ready()


def test_a_removed_file_is_noticed_and_followed(
    folder: Path, new_journal: NewJournal, new_entry: NewEntry, alarms: list[str]
) -> None:
    """A file that was removed in use is alarmed about; the next answer goes into a new one."""
    journal = new_journal()
    record = journal.append(new_entry(1))
    segments(folder)[0].unlink()
    journal.ready()
    journal.append(new_entry(2))

    assert ["was removed while in use" in alarm for alarm in alarms] == [True]
    assert segments(folder)[0].name != record.segment
    assert journal.waiting() == 1
    assert len(list(journal.unreleased())) == 2


def test_memory_is_warned_about(new_journal: NewJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal in memory works and says that it does not outlive the machine; what was set aside is reported too."""
    import worker.journal.folder as module  # noqa: PLC0415 - the system's list of mounts is replaced

    mounts = tmp_path / "mounts"
    monkeypatch.setattr(module, "MOUNTS", mounts)
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    (warning,) = new_journal().warnings()
    assert "is in memory (tmpfs)" in warning

    mounts.write_text(f"overlay / overlay rw 0 0\ntmpfs {tmp_path}-not tmpfs rw 0 0\n")
    (warning,) = new_journal().warnings()
    assert "container's own layer" in warning

    mounts.write_text("/dev/vda / ext4 rw 0 0\n")
    assert new_journal().warnings() == []
    mounts.unlink()
    assert new_journal().warnings() == []


def test_keys_in_use_are_counted(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """Waiting records are counted by key, in the files of living processes too."""
    old = Keyring.new()
    both = Keyring(active=2, keys={1: old.keys[1], 2: os.urandom(32)}, fingerprint_key=old.fingerprint_key)
    first, second = new_journal(sealer=Sealer(old)), new_journal(sealer=Sealer(both))
    first.append(new_entry(1))
    second.append(new_entry(2))
    second.release(second.append(new_entry(3)))
    second.append(new_entry(4))

    assert Journal(folder, Sealer(both), owner="status").key_usage() == {1: 1, 2: 2}


def test_failpoints_stand_around_the_write(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """`pre_journal` is before, `post_write` and `post_fsync` are after the bytes are in the file."""
    seen: list[tuple[str, int]] = []
    onlooker = new_journal()
    new_journal(failpoint=lambda name: seen.append((name, onlooker.waiting()))).append(new_entry())

    assert seen == [("pre_journal", 0), ("post_write", 1), ("post_fsync", 1)]


def test_a_forked_child_does_not_touch_its_parents_files(
    folder: Path, new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """A child begins a segment of its own; its end leaves the parent's record alone."""
    journal = new_journal()
    journal.append(new_entry(1))
    child = os.fork()
    if child == 0:
        journal.append(new_entry(2))
        journal.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    assert [waiting.entry.grant_id for waiting in journal.unreleased()] == [1]
    assert [waiting.entry.grant_id for waiting in journal.orphans()] == [2]
    assert journal.append(new_entry(3)).number == 2
