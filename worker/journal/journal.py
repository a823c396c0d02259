"""The journal: a sealed, synced local file that holds each received answer until the database has it.

Every byte string that a token call brings, whatever its status and however short, becomes one sealed record, on disk
before anything reads it. A process writes its own segment (see `journal_segment`) and holds the segment's lock while
it lives; a record whose process died is replayed by any other process on the folder, and replay drains old keys, so
records are never sealed anew. A release is a flag that is not synced: losing it only replays what is stored already.
Nothing that does not open is ever deleted: it stays, or it is copied under `set-aside/`, and an alarm tells of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from worker.errors import JournalError, SealError
from worker.journal.aside import AsideFolder
from worker.journal.dead import DeadSegments, aside_name, waiting_keys
from worker.journal.entry import JournalEntry, Orphan, RecordId
from worker.journal.file import SegmentFile
from worker.journal.folder import JournalFolder, fail
from worker.journal.peek import waiting_attempts
from worker.journal.segment import SUFFIX, place_of
from worker.journal.writer import JournalWriter, Syncer, Written, close_segment, release_in
from worker.vault.sealing import Sealer

__all__ = ["Journal", "JournalEntry", "Orphan", "RecordId"]

SEGMENT_BYTES: Final = 8 * 2**20
FLOOR_BYTES: Final = 64 * 2**20


class Journal:
    """The journal of one process; thread-safe. Opens nothing before it is first used, and again after `close`."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        *,
        owner: str,
        segment_bytes: int = SEGMENT_BYTES,
        floor_bytes: int = FLOOR_BYTES,
        failpoint: Callable[[str], None] = lambda name: None,  # noqa: ARG005 - takes a name and does nothing
        alarm: Callable[[str], None] = lambda text: None,  # noqa: ARG005 - takes a text and does nothing
    ) -> None:
        """Make a journal.

        Args:
            directory: its folder; made with mode 0700 when first used.
            sealer: seals and opens the records.
            owner: the worker's name, for the header.
            segment_bytes: size of one segment.
            floor_bytes: free bytes on the disk under which `ready` refuses.
            failpoint: called with `pre_journal`, `post_write` (written, not synced) and `post_fsync`.
            alarm: told of everything that a person must look at, in a sentence without secrets.
        """
        self._folder = JournalFolder(directory)
        self._sealer = sealer
        self._floor_bytes = floor_bytes
        self._failpoint = failpoint
        self._alarm = alarm
        self._writer = JournalWriter(self._folder, sealer, owner=owner, segment_bytes=segment_bytes, alarm=alarm)
        self._syncer = Syncer(self._writer.sync_all)
        self._dead = DeadSegments(self._folder, sealer, alarm)
        self.aside = AsideFolder(self._folder, sealer)
        self._taken_over: dict[str, SegmentFile] = {}
        self._replaying = threading.Lock()
        self._pid = os.getpid()

    def ready(self) -> None:
        """Refuse where the next answers could not be kept; to be called before anything is sent.

        After it returned, what is in flight has its disk space, even if the disk fills up.

        Raises:
            JournalError: the folder is missing, open to others, not writable, or its disk is nearly full.
        """
        self._notice_fork()
        if self._writer.segments:
            self._folder.check()
        else:
            self._folder.prepare()
        self._folder.check_space(self._floor_bytes)
        self._writer.secure_room()

    def append(self, entry: JournalEntry) -> RecordId:
        """Put an answer on disk; it is there when this returns.

        Raises:
            JournalError: it could not be kept; the caller still tries the database.
        """
        return self.sync(self._write(entry))

    def write(self, entry: JournalEntry) -> Written:
        """Write an answer, which is on its way to the disk when this returns: within some milliseconds, or by `sync`.

        The answer must not be read before `sync` has returned.

        Raises:
            JournalError: it could not be written; the caller still tries the database.
        """
        written = self._write(entry)
        self._syncer.notice()
        return written

    def sync(self, written: Written) -> RecordId:
        """Return once a written answer is on disk, as the record that is there.

        Raises:
            JournalError: it could not be kept; the caller still tries the database.
        """
        record = self._writer.sync(written)
        self._failpoint("post_fsync")
        return record

    def _write(self, entry: JournalEntry) -> Written:
        self._notice_fork()
        self._failpoint("pre_journal")
        written = self._writer.write(entry.to_bytes())
        self._failpoint("post_write")
        return written

    def release(self, record: RecordId) -> None:
        """Let a record go, because the database has what it brought; a second time, nothing happens."""
        self._notice_fork()
        if self._writer.release(record):
            return
        with self._writer.lock:
            segment = self._taken_over.get(record.segment)
            if segment is not None:
                release_in(segment, record.number, self._alarm)
                if not segment.pending:
                    close_segment(self._taken_over.pop(segment.name), self._alarm)

    def set_aside(self, record: RecordId) -> None:
        """Keep a copy of a record under `set-aside/` for a person, alarm, and let the record go.

        Moved up into the journal's folder, the copy is replayed again.

        Raises:
            JournalError: the copy could not be made; the record waits on.
        """
        self._notice_fork()
        with self._writer.lock:
            segment = self._writer.segments.get(record.segment) or self._taken_over.get(record.segment)
            if segment is None or record.number not in segment.pending:
                return
            name = aside_name(segment, str(record.number), SUFFIX)
            try:
                self._folder.set_aside(name, segment.copy_of(record.number))
            except OSError as error:
                raise fail("a journal record cannot be read in", segment.path, error) from None
            self._alarm(f"a journal record is set aside as {name} in {self._folder.path}; look at it")
            self.release(record)

    def waiting(self) -> int:
        """Return how many records wait in the folder, those of living processes included; raises as `key_usage`."""
        return sum(self.key_usage().values())

    def key_usage(self) -> dict[int, int]:
        """Return how many records wait in the whole folder by the id of the key that sealed them.

        Raises:
            JournalError: the folder cannot be read.
        """
        return waiting_keys(self._folder)

    def holds(self, grant_id: int, consent: int, generations: Collection[int]) -> bool:
        """Return True where an answer to one of these attempts waits in the folder; raises as `key_usage`."""
        wanted = {(grant_id, consent, generation) for generation in generations}
        return not wanted.isdisjoint(waiting_attempts(self._folder, self._sealer))

    def warnings(self) -> list[str]:
        """Return what weakens the journal's promise without stopping it, in sentences for a person."""
        return self._folder.warnings()

    def orphans(self) -> Iterator[Orphan]:
        """Yield the waiting records of dead processes; the file of one goes when all its records are let go.

        One iteration runs at a time in a process; another thread's waits for its end. A record that is not let go
        is yielded again by the next call, in this process until `close`, then in any.

        Raises:
            JournalError: the folder cannot be read.
        """
        self._notice_fork()
        with self._replaying:
            self._dead.sweep()
            for segment in list(self._taken_over.values()):
                yield from self._entries(segment)
            for path in self._folder.files(SUFFIX):
                if path.name in self._writer.segments or path.name in self._taken_over:
                    continue
                taken = self._dead.take_over(path)
                if taken is not None:
                    with self._writer.lock:
                        self._taken_over[taken.name] = taken
                    yield from self._entries(taken)

    def unreleased(self, older_than_seconds: float = 0.0) -> Iterator[Orphan]:
        """Yield this process's own records that still wait, those in flight included.

        Args:
            older_than_seconds: leaves out records that were written less long ago.
        """
        self._notice_fork()
        with self._writer.lock:
            segments = list(self._writer.segments.values())
        for segment in segments:
            yield from self._entries(segment, older_than_seconds)

    def close(self) -> None:
        """Remove the files in which nothing waits, and unlock the others for whoever replays them."""
        self._notice_fork()
        self._syncer.close()
        with self._writer.lock:
            self._writer.close()
            while self._taken_over:
                close_segment(self._taken_over.popitem()[1], self._alarm)

    def _entries(self, segment: SegmentFile, older_than_seconds: float = 0.0) -> Iterator[Orphan]:
        with self._writer.lock:
            known = sorted((number, spot.known_at) for number, spot in segment.pending.items())
        for number, known_at in known:
            if time.monotonic() - known_at >= older_than_seconds:
                record = RecordId(segment.name, number)
                entry = self._open(segment, record)
                if entry is not None:
                    yield Orphan(entry, record, self.release, self.set_aside)

    def _open(self, segment: SegmentFile, record: RecordId) -> JournalEntry | None:
        """Return a record's entry; None where it was let go meanwhile, or does not open and is set aside."""
        with self._writer.lock:
            if record.number not in segment.pending:
                return None
            try:
                sealed = segment.read(record.number)
            except OSError as error:
                raise fail("a journal record cannot be read in", segment.path, error) from None
        try:
            return JournalEntry.from_bytes(self._sealer.open(sealed, place_of(segment.segment_id, record.number)))
        except (SealError, JournalError) as error:
            self._alarm(f"record {record.number} of the journal file {segment.path} is not ours to read: {error}")
            self.set_aside(record)
            return None

    def _notice_fork(self) -> None:
        """Begin anew in a forked child, whose segments and locks are its parent's."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        self._writer.forget()
        self._syncer = Syncer(self._writer.sync_all)
        for segment in self._taken_over.values():
            segment.forget()
        self._taken_over, self._replaying = {}, threading.Lock()
