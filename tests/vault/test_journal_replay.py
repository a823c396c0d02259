"""The journal after its process died: replay, torn and damaged files, foreign keys, two replays at once."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.errors import JournalError
from worker.journal import Journal
from worker.journal.segment import FRAME_BYTES, HEADER_BYTES, Damage, Frame, frame_of, place_of, scan, segment_id_of
from worker.vault import Keyring, Sealer

if TYPE_CHECKING:
    from tests.vault.conftest import NewEntry, NewJournal

UNHURRIED = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])

CHILD = Path(__file__).with_name("journal_child.py")
Leave = Callable[..., Path]


def child(folder: Path, keyring: Keyring, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a process that journals, with its keyring."""
    process = subprocess.Popen(
        [sys.executable, str(CHILD), str(folder), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(keyring.to_json().encode() + b"\n")
    process.stdin.flush()
    return process


def grants(journal: Journal) -> list[int | None]:
    """Return the grants whose records wait, in the order in which they come."""
    return [orphan.entry.grant_id for orphan in journal.orphans()]


def aside(folder: Path) -> list[str]:
    """Return the names of what was set aside."""
    return sorted(path.name for path in (folder / "set-aside").glob("*"))


def frames(path: Path) -> list[Frame]:
    """Return the whole records of a file."""
    return [part for part in scan(path.read_bytes()) if isinstance(part, Frame)]


@pytest.mark.parametrize(
    ("failpoint", "kept"), [("pre_journal", []), ("post_write", [1]), ("post_fsync", [1])], ids=str
)
def test_a_killed_process_loses_nothing_that_was_written(
    folder: Path, keyring: Keyring, new_journal: NewJournal, alarms: list[str], *, failpoint: str, kept: list[int]
) -> None:
    """After SIGKILL at each failpoint, whatever reached `write` is replayed, once, and the file goes."""
    with child(folder, keyring, "killed_at", failpoint) as process:
        assert process.wait(30) == -signal.SIGKILL
    journal = new_journal()
    found = list(journal.orphans())

    assert [orphan.entry.grant_id for orphan in found] == kept
    assert all(orphan.entry.body == b"1" * 1_000 for orphan in found)
    for orphan in found:
        orphan.release()
    assert list(folder.glob("*.segment")) == []
    assert alarms == []


def test_a_disk_that_became_read_only_is_replayed_from(
    folder: Path, keyring: Keyring, new_journal: NewJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing disk that the system holds read-only still gives back what a dead process left on it."""
    with child(folder, keyring, "killed_at", "post_fsync") as process:
        process.wait(30)
    journal, really_open = new_journal(), os.open

    def read_only(path: object, flags: int, *args: int, **options: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system")
        return really_open(path, flags, *args, **options)  # type: ignore[arg-type]  # any path that os.open takes

    monkeypatch.setattr(os, "open", read_only)

    assert grants(journal) == [1]


def test_a_living_process_keeps_its_records_until_it_is_killed(
    folder: Path, keyring: Keyring, new_journal: NewJournal
) -> None:
    """The lock shows whether the owner lives: nothing is replayed before the owner is gone."""
    journal = new_journal()
    with child(folder, keyring, "waiting") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"journaled\n"
        assert grants(journal) == []
        assert journal.waiting() == 1
        process.kill()
    assert grants(journal) == [1]


def test_a_disk_that_takes_no_more_is_an_error_and_what_is_kept_stays(
    folder: Path, keyring: Keyring, new_journal: NewJournal
) -> None:
    """With writes refused, append and ready say so; earlier records stay, releases work, and later ones are kept."""
    with child(folder, keyring, "full_disk") as process:
        assert process.stdout is not None
        said = process.stdout.read().decode().splitlines()
        assert process.wait(30) == 0

    assert [line.split(":")[0] for line in said] == ["append", "ready"]
    assert all("File too large" in line for line in said)
    assert sorted(filter(None, grants(new_journal()))) == [2, 4]


def test_a_record_is_replayed_until_it_is_released(dead_segment: Leave, new_journal: NewJournal) -> None:
    """What was not released comes again, also in the same process; the file goes with its last record."""
    path = dead_segment(3)
    journal = new_journal()
    for orphan in journal.orphans():
        if orphan.entry.grant_id == 2:
            orphan.release()
    assert grants(journal) == [1, 3]
    assert journal.waiting() == 2
    journal.close()
    assert path.exists()

    again = new_journal()
    for orphan in again.orphans():
        assert orphan.entry.grant_id in {1, 3}
        orphan.release()
    assert not path.exists()
    assert again.waiting() == 0


def test_two_replays_share_no_record(dead_segment: Leave, new_journal: NewJournal) -> None:
    """While one process replays a segment, another finds nothing; after it gave up, the rest."""
    dead_segment(3)
    first, second = new_journal(), new_journal()
    replay = first.orphans()
    next(replay).release()
    assert grants(second) == []

    replay.close()  # type: ignore[attr-defined] # it is a generator
    first.close()
    assert grants(second) == [2, 3]


def test_a_file_that_was_replayed_meanwhile_is_not_replayed_again(
    dead_segment: Leave, new_journal: NewJournal, folder: Path
) -> None:
    """A process that opened the file before it was unlinked and locks it after finds it gone."""
    from worker.journal.file import lock  # noqa: PLC0415 - the race is played by hand

    path = dead_segment(1)
    descriptor = os.open(path, os.O_RDWR)
    for orphan in new_journal().orphans():
        orphan.release()

    assert not lock(descriptor)
    os.close(descriptor)


def test_a_torn_tail_costs_the_torn_record_alone(dead_segment: Leave) -> None:
    """Cut at every byte of the last record, by length or to zeros, the earlier ones are found, the rest reported."""
    path = dead_segment(3)
    whole = path.read_bytes()
    *earlier, last = frames(path)
    # A record whose last bytes are zeros is whole without them.
    for cut in range(last.offset, last.offset + len(whole[last.offset : last.end].rstrip(b"\0"))):
        torn = whole[last.offset : cut].rstrip(b"\0")
        damage = [Damage(last.offset, torn, tail=True)] if torn else []
        for tail in (b"", bytes(len(whole) - cut)):
            assert list(scan(whole[:cut] + tail)) == [*earlier, *damage], cut


@pytest.mark.parametrize("behind", [0, 1, FRAME_BYTES, FRAME_BYTES + 9, -1])
def test_a_torn_tail_is_set_aside(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str], *, behind: int
) -> None:
    """What a dying process left of its last record is kept and reported; the earlier records are replayed."""
    path = dead_segment(3)
    last = frames(path)[-1]
    cut = last.offset + behind if behind >= 0 else last.end - 1
    damaged(path, last.end - 1)
    os.truncate(path, cut)
    for orphan in new_journal().orphans():
        assert orphan.entry.grant_id in {1, 2}
        orphan.release()

    assert not path.exists()
    assert len(aside(folder)) == bool(behind)
    assert ["behind the last whole record" in alarm for alarm in alarms] == [True] * bool(behind)


def damaged(path: Path, offset: int) -> None:
    """Flip every bit of one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


REGIONS = {"magic": 0, "number": 15, "length": 19, "crc": 21, "key id": FRAME_BYTES + 5, "ciphertext": FRAME_BYTES + 40}


@pytest.mark.parametrize("region", REGIONS)
def test_a_damaged_record_is_set_aside_and_the_following_ones_are_found(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str], region: str
) -> None:
    """A flipped byte anywhere in a record costs this record; its bytes are kept, with the header, and reported once."""
    path = dead_segment(3)
    whole, second = path.read_bytes(), frames(path)[1]
    damaged(path, second.offset + REGIONS[region])
    bad = path.read_bytes()[second.offset : second.end]
    journal = new_journal()
    assert grants(journal) == [1, 3]
    assert grants(journal) == [1, 3]

    (name,) = aside(folder)
    assert (folder / "set-aside" / name).read_bytes() == whole[:HEADER_BYTES] + bad
    assert ["between whole records" in alarm for alarm in alarms] == [True]
    assert len(journal.warnings()) == 1


@pytest.mark.parametrize("byte", range(4, 8))
@pytest.mark.parametrize("released", [True, False])
def test_a_damaged_flag_never_releases_a_record(
    dead_segment: Leave, new_journal: NewJournal, byte: int, *, released: bool
) -> None:
    """One flipped byte of the flag at worst replays a record again."""
    path = dead_segment(2)
    if released:
        journal = new_journal()
        next(iter(journal.orphans())).release()
        journal.close()
    damaged(path, HEADER_BYTES + byte)

    assert grants(new_journal()) == [1, 2]


@pytest.mark.parametrize("offset", [0, 9, 13, 20, 100])
def test_a_damaged_header_costs_no_record(
    dead_segment: Leave, new_journal: NewJournal, alarms: list[str], offset: int
) -> None:
    """The segment id stands in the file's name too, so the records open all the same."""
    damaged(dead_segment(2), offset)

    assert grants(new_journal()) == [1, 2]
    assert ["header" in alarm for alarm in alarms] == [True]


@pytest.mark.parametrize(
    "content",
    [b"[]", b"null", b"7", b'"x"', b"{}", b'{"segment": 7}', b'{"segment": null}', b'{"segment": "xyz"}',
     b'{"segment": "ab"}', b'{"segment": ["ab"]}', b"{", b"\xff\xfe", b"[" * 400],
    ids=str,
)  # fmt: skip
def test_an_odd_header_with_a_good_checksum_ends_no_replay(
    dead_segment: Leave, new_journal: NewJournal, alarms: list[str], tmp_path: Path, content: bytes
) -> None:
    """Whatever JSON it holds, its records and those of other files are replayed, by the files' names."""
    other = dead_segment(1)
    beside = other.rename(tmp_path / other.name)
    path = dead_segment(2)
    beside.rename(other)
    data = path.read_bytes()
    head = struct.pack(">8sII", b"EVTKNJ1\n", len(content), zlib.crc32(content)) + content
    path.write_bytes(head.ljust(HEADER_BYTES, b"\0") + data[HEADER_BYTES:])

    assert segment_id_of(path.read_bytes()[:HEADER_BYTES]) is None
    assert sorted(number or 0 for number in grants(new_journal())) == [1, 1, 2]
    assert ["header" in alarm for alarm in alarms] == [True]


def test_a_renamed_file_is_replayed_by_its_header(dead_segment: Leave, new_journal: NewJournal, folder: Path) -> None:
    """A segment that was restored from elsewhere under another name, in another folder, is still ours."""
    dead_segment(2).rename(folder / "restored.segment")

    assert grants(new_journal()) == [1, 2]


def test_a_file_without_header_and_name_is_set_aside_whole(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str]
) -> None:
    """A file that does not say which segment it is cannot be opened, and is kept."""
    path = dead_segment(2)
    damaged(path, 0)
    whole = path.read_bytes()
    path.rename(folder / "x.segment")

    assert grants(new_journal()) == []
    assert (folder / "set-aside" / "x.segment").read_bytes() == whole
    assert not (folder / "x.segment").exists()
    assert len(alarms) == 1


def test_records_do_not_move_between_numbers_and_segments(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str]
) -> None:
    """Sealed bytes under another number do not open: they are set aside, and reported."""
    path = dead_segment(2)
    first, second = frames(path)
    data = bytearray(path.read_bytes())
    data[first.offset : second.end] = frame_of(1, second.sealed) + frame_of(2, first.sealed)
    path.write_bytes(data)

    assert grants(new_journal()) == []
    assert len(aside(folder)) == 2
    assert not path.exists()
    assert alarms


def test_records_do_not_move_into_another_segment(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str]
) -> None:
    """The same number in another segment does not open it either."""
    one = dead_segment(1)
    bytes_of_one = one.read_bytes()
    one.unlink()
    other = dead_segment(1)
    other.write_bytes(other.read_bytes()[:HEADER_BYTES] + bytes_of_one[HEADER_BYTES:])

    assert grants(new_journal()) == []
    assert len(aside(folder)) == 1
    assert alarms


def test_a_record_that_opens_and_is_no_answer_is_set_aside(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, sealer: Sealer, alarms: list[str]
) -> None:
    """A record of a later form does not stop the others, and is kept."""
    path = dead_segment(1)
    data = bytearray(path.read_bytes())
    segment_id, end = segment_id_of(bytes(data[:HEADER_BYTES])), frames(path)[0].end
    assert segment_id is not None
    odd = frame_of(2, sealer.seal(b'{"form":2}\nKestrel', place_of(segment_id, 2)))
    data[end : end + len(odd)] = odd
    path.write_bytes(data)

    assert grants(new_journal()) == [1]
    assert len(aside(folder)) == 1
    assert not any("Kestrel" in alarm for alarm in alarms)


def test_a_second_replay_in_a_process_waits_for_the_first(dead_segment: Leave, new_journal: NewJournal) -> None:
    """A thread that needs what another one is just replaying goes on only after it."""
    dead_segment(3)
    journal = new_journal()
    replay, found = journal.orphans(), list[int | None]()
    next(replay).release()
    second = threading.Thread(target=lambda: found.extend(grants(journal)))
    second.start()
    second.join(0.1)
    assert second.is_alive()

    replay.close()  # type: ignore[attr-defined] # it is a generator
    second.join(10)
    assert found == [2, 3]


def test_records_of_a_missing_key_stay_until_it_is_back(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, keyring: Keyring, alarms: list[str]
) -> None:
    """Without the key nothing is moved or deleted, one alarm names its id, and other processes may try."""
    path = dead_segment(2)
    whole = path.read_bytes()
    other = Sealer(Keyring(active=2, keys={2: os.urandom(32)}, fingerprint_key=keyring.fingerprint_key))
    poor = new_journal(sealer=other)
    assert (grants(poor), grants(poor)) == ([], [])
    assert path.read_bytes() == whole
    assert ["key 1, which the keyring lacks" in alarm for alarm in alarms] == [True]
    assert poor.key_usage() == {1: 2}

    assert grants(new_journal()) == [1, 2]


def test_records_of_a_foreign_journal_are_set_aside_and_can_come_back(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, keyring: Keyring, alarms: list[str]
) -> None:
    """Another key under the same id opens nothing: each record is kept, and moved back the right one replays it."""
    dead_segment(2)
    foreign = new_journal(sealer=Sealer(Keyring.new()))
    assert grants(foreign) == []
    assert sum("cannot be read" in alarm for alarm in alarms) == 2
    names = aside(folder)
    assert len(names) == 2
    assert list(folder.glob("*.segment")) == []

    for name in names:
        (folder / "set-aside" / name).rename(folder / name)
    assert grants(new_journal()) == [1, 2]


def test_a_misfit_record_is_set_aside_by_its_reader(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str]
) -> None:
    """A replay that cannot place a pair keeps a copy for a person and goes on."""
    path = dead_segment(1)
    for orphan in new_journal().orphans():
        orphan.set_aside()
        orphan.set_aside()

    assert not path.exists()
    assert len(aside(folder)) == 1
    assert (folder / "set-aside").stat().st_mode & 0o777 == 0o700
    assert len(alarms) == 1
    (warning,) = [each for each in new_journal().warnings() if "set-aside" in each]
    assert ": 1; `grants aside` lists them, and `grants place` stores" in warning


def test_an_own_record_can_be_set_aside(folder: Path, new_journal: NewJournal, new_entry: NewEntry) -> None:
    """A living process sets its own record aside by its id."""
    journal = new_journal()
    journal.set_aside(journal.append(new_entry()))

    assert journal.waiting() == 0
    assert len(aside(folder)) == 1


def test_a_copy_that_cannot_be_made_leaves_the_record(
    dead_segment: Leave, new_journal: NewJournal, folder: Path
) -> None:
    """If setting aside fails, the record goes on waiting."""
    path = dead_segment(1)
    (folder / "set-aside").write_text("in the way")
    journal = new_journal()
    for orphan in journal.orphans():
        with pytest.raises(JournalError, match="could not be set aside"):
            orphan.set_aside()
    journal.close()

    assert path.exists()


def test_damage_that_cannot_be_set_aside_keeps_its_file(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, alarms: list[str]
) -> None:
    """Bytes that could not be copied stay in their place, after all good records are released."""
    path = dead_segment(3)
    damaged(path, frames(path)[1].offset)
    (folder / "set-aside").write_text("in the way")
    journal = new_journal()
    for orphan in journal.orphans():
        orphan.release()

    assert path.exists()
    assert any("could not be set aside" in alarm for alarm in alarms)


def test_odd_files_in_the_folder_stop_nothing(
    dead_segment: Leave, new_journal: NewJournal, folder: Path, tmp_path: Path, alarms: list[str]
) -> None:
    """Links, folders and pipes are reported and left; files that never became journals are swept."""
    dead_segment(1)
    (tmp_path / "elsewhere").write_bytes(b"")
    (folder / "link.segment").symlink_to(tmp_path / "elsewhere")
    (folder / "folder.segment").mkdir()
    os.mkfifo(folder / "pipe.segment")
    (folder / "empty.segment").write_bytes(b"")
    (folder / "died.segment.new").write_bytes(b"")
    (folder / "notes.txt").write_text("of a person")
    journal = new_journal()

    assert grants(journal) == [1]
    assert len(alarms) == 3
    assert grants(journal) == [1]
    assert len(alarms) == 3
    assert not (folder / "died.segment.new").exists()
    assert not (folder / "empty.segment").exists()
    assert (folder / "notes.txt").exists()


@UNHURRIED
@given(
    data=st.binary(max_size=600),
    bodies=st.lists(st.binary(min_size=1, max_size=50), max_size=4),
    zeros=st.sampled_from([0, 1, 2**16 - 1, 2**16, 200_000]),
    nothing=st.sampled_from([0, 1, 2**16, 150_000]),
)
def test_any_bytes_can_be_scanned(data: bytes, bodies: list[bytes], zeros: int, nothing: int) -> None:
    """Whatever lies around and in whole records, they are found, and each byte that is not zero is mentioned."""
    bodies = [body + bytes(zeros) for body in bodies]
    records = b"".join(frame_of(number, body) for number, body in enumerate(bodies, 1))
    file = bytes(HEADER_BYTES) + data + bytes(nothing) + records + bytes(nothing) + data
    file += bytes(nothing if zeros else 0)
    parts = list(scan(file))

    assert [part.sealed for part in parts if isinstance(part, Frame)] == bodies
    covered = bytearray(file)
    for part in parts:
        end = part.end if isinstance(part, Frame) else part.offset + len(part.raw)
        covered[part.offset : end] = bytes(end - part.offset)
    assert not any(covered)
