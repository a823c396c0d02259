"""Segments of other processes: those of dead processes are taken over, and any segment is read for counts.

A segment that is taken over is locked and read; whatever in it is not a good record is kept and reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from worker.errors import JournalError, SealError
from worker.journal.entry import JournalEntry
from worker.journal.file import SegmentFile, lock_existing, mapped, read_whole
from worker.journal.folder import JournalFolder, fail
from worker.journal.segment import (
    HEADER_BYTES,
    SUFFIX,
    UNFINISHED_SUFFIX,
    Damage,
    Frame,
    place_of,
    scan,
    segment_id_of,
    segment_id_of_name,
)
from worker.vault.sealing import Sealer, key_id_of

Alarm = Callable[[str], None]


def aside_name(segment: SegmentFile, mark: str, suffix: str) -> str:
    """Return the file name for a part that is set aside; move a `.segment` back to have it replayed again."""
    return f"aside-{segment.segment_id.hex()}.{mark}{suffix}"


class DeadSegments:
    """Takes over the segments of dead processes in a folder; each goes to one process at a time."""

    def __init__(self, folder: JournalFolder, sealer: Sealer, alarm: Alarm) -> None:
        self._folder = folder
        self._sealer = sealer
        self._alarm = alarm
        self._alarmed: set[tuple[str, str]] = set()

    def take_over(self, path: Path) -> SegmentFile | None:
        """Lock and read a segment.

        Returns:
            The segment with the records that open with this keyring's keys; None if a living process has it or
            nothing in it waits for this process.

        Raises:
            JournalError: the disk failed.
        """
        try:
            descriptor = lock_existing(path)
        except JournalError as error:
            self._alarm_once(path, str(error))
            return None
        if descriptor is None:
            return None
        try:
            data = read_whole(descriptor)
        except OSError as error:
            SegmentFile(path, descriptor, b"", size=0).forget()
            raise fail("a journal file cannot be read:", path, error) from None
        segment_id = segment_id_of(data[:HEADER_BYTES])
        if segment_id is None and data.strip(b"\0"):
            segment_id = segment_id_of_name(path.name)
            if segment_id is None:
                self._give_up(SegmentFile(path, descriptor, b"", size=0))
                return None
            self._alarm_once(
                path, f"the header of the journal file {path} is damaged; its records are replayed by its name"
            )
        segment = SegmentFile(path, descriptor, segment_id or b"", size=len(data))
        for part in scan(data):
            self._learn(segment, part)
        if segment.pending:
            return segment
        self._close(segment)
        return None

    def sweep(self) -> None:
        """Remove unfinished files of processes that died while making a segment; they never held a record.

        Raises:
            JournalError: the folder cannot be read.
        """
        for path in self._folder.files(UNFINISHED_SUFFIX):
            try:
                descriptor = lock_existing(path)
            except JournalError as error:
                self._alarm_once(path, str(error))
                continue
            if descriptor is not None:
                self._close(SegmentFile(path, descriptor, b"", size=0))

    def _learn(self, segment: SegmentFile, part: Frame | Damage) -> None:
        if isinstance(part, Damage):
            self._keep_damage(segment, part)
            return
        if part.released:
            return
        try:
            key_id = key_id_of(part.sealed)
        except SealError as error:
            segment.keep = True
            self._alarm_once(segment.path, f"the journal file {segment.path} keeps records of an unknown form: {error}")
            return
        if key_id in self._sealer.keyring.keys:
            segment.learn(part)
            return
        segment.keep = True
        self._alarm_once(
            segment.path,
            f"the journal file {segment.path} keeps records sealed with key {key_id}, which the keyring lacks; "
            "bring that key back and they are replayed",
        )

    def _keep_damage(self, segment: SegmentFile, damage: Damage) -> None:
        where = "behind the last whole record" if damage.tail else "between whole records"
        name = aside_name(segment, f"at{damage.offset}", ".damaged")
        try:
            new = self._folder.set_aside(name, segment.with_header(damage.offset, len(damage.raw)))
        except (JournalError, OSError) as error:
            segment.keep = True
            self._alarm_once(segment.path, f"damage in the journal file {segment.path} could not be set aside: {error}")
            return
        if new:
            self._alarm(
                f"the journal file {segment.path} holds {len(damage.raw)} damaged bytes {where}; "
                f"they are set aside as {name}, and the other records are replayed"
            )

    def _give_up(self, segment: SegmentFile) -> None:
        """Set a whole file aside if neither its header nor its name has the id that its records are sealed to."""
        try:
            self._folder.take_aside(segment.path)
        except JournalError as error:
            self._alarm_once(segment.path, str(error))
        else:
            self._alarm(f"the journal file {segment.path} is damaged beyond reading and is set aside whole")
        segment.forget()

    def _close(self, segment: SegmentFile) -> None:
        try:
            segment.close()
        except OSError as error:
            self._alarm_once(segment.path, str(fail("a journal file could not be removed:", segment.path, error)))

    def _alarm_once(self, path: Path, text: str) -> None:
        """Raise one alarm in this process for the same trouble of the same file."""
        if (path.name, text) not in self._alarmed:
            self._alarmed.add((path.name, text))
            self._alarm(text)


def waiting_keys(folder: JournalFolder) -> dict[int, int]:
    """Return how many records wait in all segments of a folder, by key id; 0 stands for an unknown form.

    Raises:
        JournalError: the folder or a file cannot be read.
    """
    return Counter(_key_of(frame.sealed) for _, frame in _waiting(folder))


def waiting_attempts(folder: JournalFolder, sealer: Sealer) -> Iterator[tuple[int | None, int | None, int | None]]:
    """Yield grant, consent and generation of every waiting record that opens; nothing is changed or reported.

    Raises:
        JournalError: the folder or a file cannot be read.
    """
    for segment_id, frame in _waiting(folder):
        if segment_id is None:
            continue
        try:
            entry = JournalEntry.from_bytes(sealer.open(frame.sealed, place_of(segment_id, frame.number)))
        except (SealError, JournalError):
            continue
        yield entry.grant_id, entry.consent, entry.generation


def _waiting(folder: JournalFolder) -> Iterator[tuple[bytes | None, Frame]]:
    """Yield the waiting records of every segment in a folder, also of living processes, without taking their locks."""
    for path in folder.files(SUFFIX):
        if not path.is_file():  # reading a pipe would block; the replay reports what is not a journal
            continue
        try:
            with mapped(path) as data:
                segment_id = segment_id_of(data[:HEADER_BYTES])
                waiting = [part for part in scan(data) if isinstance(part, Frame) and not part.released]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise fail("a journal file cannot be read:", path, error) from None
        for frame in waiting:
            yield segment_id, frame


def _key_of(sealed: bytes) -> int:
    try:
        return key_id_of(sealed)
    except SealError:
        return 0
