"""The journal: a sealed, synced local file that holds each received answer until the database has it.

Every byte string that a token call brings, whatever its status and however short, becomes one sealed record, on disk
before anything reads it. A process writes its own segments (see `segment`) and holds each segment's lock while it
lives; any other process with the same folder replays the records of a dead one. Replay also removes the records of old
keys, so records are never sealed again. A release is a flag that is not synced: if it is lost, the replay stores again
what is stored already. A record that does not open is never deleted: it stays, or it is copied under `set-aside/`, and
an alarm reports it.

One idea: writing, releasing and replaying share the segments of this process and one lock over them.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from worker.errors import JournalError, SealError
from worker.journal.aside import AsideFolder
from worker.journal.dead import DeadSegments, aside_name, waiting_attempts, waiting_keys
from worker.journal.entry import JournalEntry, Orphan, RecordId
from worker.journal.file import SegmentFile
from worker.journal.folder import JournalFolder, fail
from worker.journal.segment import FRAME_BYTES, HEADER_BYTES, SEGMENT_ID_BYTES, SUFFIX, Header, place_of
from worker.vault.sealing import Sealer

SEGMENT_BYTES: Final = 8 * 2**20
FLOOR_BYTES: Final = 64 * 2**20
RESERVE_SHARE: Final = 4
"""A segment with less room than this part of its size is replaced: all answers in flight must fit in it."""
GATHER_SECONDS: Final = 0.001
"""Records that are written within this time share a sync: a sync costs about as much for one as for fifty."""
SEAL_BYTES: Final = 64
"""More bytes than sealing adds to a plaintext."""


@dataclass(frozen=True)
class Written:
    """A record that is written and may not be on disk yet.

    Attributes:
        plaintext: what to write again if the file's sync fails.
    """

    record: RecordId
    plaintext: bytes = field(repr=False)


class Journal:
    """The journal of one process; thread-safe. Opens nothing before it is first used, and again after `close`."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        *,
        owner: str,
        namespace: str | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        floor_bytes: int = FLOOR_BYTES,
        failpoint: Callable[[str], object] = lambda name: None,  # noqa: ARG005 - takes a name and does nothing
        alarm: Callable[[str], None] = lambda text: None,  # noqa: ARG005 - takes a text and does nothing
    ) -> None:
        """Open nothing yet.

        Args:
            directory: the journal's folder; made with mode 0700 at the first use.
            sealer: seals and opens the records.
            owner: the worker's name, for the header.
            namespace: whose answers the folder holds; a folder of another namespace is refused.
            segment_bytes: size of one segment.
            floor_bytes: least free bytes on the disk; below that `ready` refuses.
            failpoint: called with `pre_journal`, `post_write` (written, not synced) and `post_fsync`.
            alarm: called with a sentence, without secrets, about something that a person must look at.
        """
        self._folder = JournalFolder(directory, namespace)
        self._sealer = sealer
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._floor_bytes = floor_bytes
        self._failpoint = failpoint
        self._alarm = alarm
        self._dead = DeadSegments(self._folder, sealer, alarm)
        self.aside = AsideFolder(self._folder, sealer)
        self._begin()

    def _begin(self) -> None:
        """Begin without segments: at the start, and again in a forked child."""
        self._pid = os.getpid()
        self._lock = threading.RLock()  # guards the segments; only the sync runs outside it, so that writers share it
        self._replaying = threading.Lock()
        self._current: SegmentFile | None = None
        self._own: dict[str, SegmentFile] = {}
        self._taken_over: dict[str, SegmentFile] = {}
        self._syncer = Syncer(self._sync_all)

    def ready(self) -> None:
        """Refuse if the next answers could not be kept; call it before anything is sent.

        When it has returned, the disk space for all answers in flight is reserved, even if the disk fills up.

        Raises:
            JournalError: the folder is missing, open to others, not writable, or its disk is nearly full.
        """
        self._notice_fork()
        if self._own:
            self._folder.check()
        else:
            self._folder.prepare()
        self._folder.check_space(self._floor_bytes)
        with self._lock:
            current = self._current
            if current is not None and not current.in_place():
                current.broken = True
                self._alarm(f"the journal file {current.path} was removed while in use; a new one is started")
            try:
                self._segment_with(self._segment_bytes // RESERVE_SHARE)
            except OSError as error:
                raise fail("a journal file cannot be made in", self._folder.path, error) from None

    def probe(self) -> bool:
        """Refuse what `ready` would refuse, and change nothing.

        Returns:
            False if the folder is not there yet, and can be made.

        Raises:
            JournalError: what `ready` raises it for.
        """
        if not self._folder.probe():
            return False
        self._folder.check_space(self._floor_bytes)
        try:
            SegmentFile.probe(self._folder.path, size=self._segment_bytes)
        except OSError as error:
            raise fail("a journal file cannot be made in", self._folder.path, error) from None
        return True

    def append(self, entry: JournalEntry) -> RecordId:
        """Write an answer and sync it; it is on disk when this returns.

        Raises:
            JournalError: it could not be kept; the caller still tries the database.
        """
        return self.sync(self._write(entry))

    def write(self, entry: JournalEntry) -> Written:
        """Write an answer; it is on disk some milliseconds later, or when `sync` returns.

        The answer must not be read before `sync` has returned.

        Raises:
            JournalError: it could not be written; the caller still tries the database.
        """
        written = self._write(entry)
        self._syncer.notice()
        return written

    def sync(self, written: Written) -> RecordId:
        """Return once a written answer is on disk; if its file fails, it is written again, to a new segment.

        Returns:
            The record that is on disk.

        Raises:
            JournalError: it could not be kept; the caller still tries the database.
        """
        record = written.record
        try:
            self._sync(record)
        except OSError:
            record = self._sealed(written.plaintext)
            try:
                self._sync(record)
            except OSError as error:
                raise fail("an answer could not be journaled in", self._folder.path, error) from None
            self.release(written.record)
        self._failpoint("post_fsync")
        return record

    def release(self, record: RecordId) -> None:
        """Release a record, because the database has what it brought; a second call does nothing."""
        self._notice_fork()
        with self._lock:
            segment = self._own.get(record.segment) or self._taken_over.get(record.segment)
            if segment is None:
                return
            try:
                segment.release(record.number)
            except OSError as error:  # a flag that cannot be written only causes a harmless replay
                self._alarm(str(fail("a journal record could not be released in", segment.path, error)))
            if not segment.pending and (segment is not self._current or segment.broken):
                self._drop(segment)

    def renew(self) -> None:
        """Begin another file, so that the bytes of released answers go from the disk with the one before.

        Raises:
            JournalError: it cannot be made; the one before goes on.
        """
        self._notice_fork()
        with self._lock:
            if self._current is None or self._current.next_number == 1:
                return
            try:
                self._next_segment(self._segment_bytes)
            except OSError as error:
                raise fail("a journal file cannot be made in", self._folder.path, error) from None

    def set_aside(self, record: RecordId) -> None:
        """Keep a copy of a record under `set-aside/` for a person, raise an alarm, and release the record.

        If the copy is moved up into the journal's folder, it is replayed again.

        Raises:
            JournalError: the copy could not be made; the record goes on waiting.
        """
        self._notice_fork()
        with self._lock:
            segment = self._own.get(record.segment) or self._taken_over.get(record.segment)
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
        """Return how many records wait in the folder, also of living processes; errors are those of `key_usage`."""
        return sum(self.key_usage().values())

    def key_usage(self) -> dict[int, int]:
        """Return how many records wait in the whole folder by the id of the key that sealed them.

        Raises:
            JournalError: the folder cannot be read.
        """
        return waiting_keys(self._folder)

    def load(self) -> tuple[float, float, float]:
        """Return how much waits, for metrics; this raises nothing.

        Returns:
            The records that wait in the folder and the bytes of its files, also of other processes, or NaN if it cannot
            be read; and the seconds for which this process has known the oldest record that waits in its own files
            or in those of dead processes that it took over, 0 if none waits.
        """
        with self._lock:
            known = [spot.known_at for each in (*self._own.values(), *self._taken_over.values())
                     for spot in each.pending.values()]  # fmt: skip
        oldest = time.monotonic() - min(known) if known else 0.0
        try:
            return self.waiting(), sum(path.stat().st_size for path in self._folder.files(SUFFIX)), oldest
        except (JournalError, OSError):
            return math.nan, math.nan, oldest

    def holds(self, grant_id: int, consent: int, generations: Collection[int]) -> bool:
        """Return True if an answer to one of these attempts waits in the folder; errors are those of `key_usage`."""
        wanted = {(grant_id, consent, generation) for generation in generations}
        return not wanted.isdisjoint(waiting_attempts(self._folder, self._sealer))

    def warnings(self) -> list[str]:
        """Return what weakens the journal's safety without stopping it, in sentences for a person."""
        return self._folder.warnings()

    def orphans(self) -> Iterator[Orphan]:
        """Yield the waiting records of dead processes; a file is removed when all its records are released.

        Only one iteration runs at a time in a process; another thread waits for its end. A record that is not released
        is yielded again by the next call, in this process until `close`, then in any process.

        Raises:
            JournalError: the folder cannot be read, or belongs to another namespace.
        """
        self._notice_fork()
        self._folder.refuse_others()
        with self._replaying:
            self._dead.sweep()
            for segment in list(self._taken_over.values()):
                yield from self._entries(segment)
            for path in self._folder.files(SUFFIX):
                if path.name in self._own or path.name in self._taken_over:
                    continue
                taken = self._dead.take_over(path)
                if taken is not None:
                    with self._lock:
                        self._taken_over[taken.name] = taken
                    yield from self._entries(taken)

    def unreleased(self, older_than_seconds: float = 0.0) -> Iterator[Orphan]:
        """Yield this process's own waiting records, including those in flight.

        Args:
            older_than_seconds: least age of a record.
        """
        self._notice_fork()
        with self._lock:
            segments = list(self._own.values())
        for segment in segments:
            yield from self._entries(segment, older_than_seconds)

    def close(self) -> None:
        """Remove the files in which nothing waits, and unlock the others, so that another process replays them."""
        self._notice_fork()
        self._syncer.close()
        with self._lock:
            for segment in [*self._own.values(), *self._taken_over.values()]:
                self._drop(segment)

    def _write(self, entry: JournalEntry) -> Written:
        self._notice_fork()
        self._failpoint("pre_journal")
        plaintext = entry.to_bytes()
        written = Written(self._sealed(plaintext), plaintext)
        self._failpoint("post_write")
        return written

    def _sealed(self, plaintext: bytes) -> RecordId:
        """Seal and write a record, without a sync; if that fails, try once more in a new segment.

        Raises:
            JournalError: neither attempt succeeded.
        """
        try:
            return self._sealed_once(plaintext)
        except OSError:
            try:
                return self._sealed_once(plaintext)
            except OSError as error:
                raise fail("an answer could not be journaled in", self._folder.path, error) from None

    def _sealed_once(self, plaintext: bytes) -> RecordId:
        with self._lock:
            segment = self._segment_with(len(plaintext) + FRAME_BYTES + SEAL_BYTES)
            sealed = self._sealer.seal(plaintext, place_of(segment.segment_id, segment.next_number))
            return RecordId(segment.name, segment.write(sealed))

    def _sync(self, record: RecordId) -> None:
        with self._lock:
            segment = self._own.get(record.segment)
        if segment is not None:  # else all its records were released: the database has what they brought
            segment.sync(record.number)

    def _sync_all(self) -> None:
        """Sync everything that was written; a failed file is left to the thread that waits for one of its records."""
        with self._lock:
            segments = list(self._own.values())
        for segment in segments:
            with suppress(OSError):
                segment.sync(segment.next_number - 1)

    def _segment_with(self, room: int) -> SegmentFile:
        """Return the current segment if it has this room, else a new one."""
        current = self._current
        if current is not None and not current.broken and current.room >= room:
            return current
        return self._next_segment(max(self._segment_bytes, HEADER_BYTES + room))

    def _next_segment(self, size: int) -> SegmentFile:
        """Make the segment that takes the next records; the one before is removed once nothing in it waits."""
        current = self._current
        self._folder.prepare()
        header = Header(
            segment_id=secrets.token_bytes(SEGMENT_ID_BYTES),
            owner=self._owner,
            host=socket.gethostname(),
            pid=self._pid,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        made = SegmentFile.make(self._folder.path, header, size=size)
        self._own[made.name], self._current = made, made
        if current is not None and not current.pending:
            self._drop(current)
        return made

    def _drop(self, segment: SegmentFile) -> None:
        """Close a segment, and remove it if nothing in it waits. A failure is reported."""
        self._own.pop(segment.name, None)
        self._taken_over.pop(segment.name, None)
        if segment is self._current:
            self._current = None
        try:
            segment.close()
        except (OSError, JournalError) as error:
            self._alarm(f"the journal file {segment.path} could not be closed: {error}")

    def _entries(self, segment: SegmentFile, older_than_seconds: float = 0.0) -> Iterator[Orphan]:
        with self._lock:
            known = sorted((number, spot.known_at) for number, spot in segment.pending.items())
        for number, known_at in known:
            if time.monotonic() - known_at >= older_than_seconds:
                record = RecordId(segment.name, number)
                entry = self._open(segment, record)
                if entry is not None:
                    yield Orphan(entry, record, self.release, self.set_aside)

    def _open(self, segment: SegmentFile, record: RecordId) -> JournalEntry | None:
        """Return a record's entry; None if it was released meanwhile, or does not open and is set aside."""
        with self._lock:
            if record.number not in segment.pending:
                return None
            try:
                sealed = segment.read(record.number)
            except OSError as error:
                raise fail("a journal record cannot be read in", segment.path, error) from None
        try:
            return JournalEntry.from_bytes(self._sealer.open(sealed, place_of(segment.segment_id, record.number)))
        except (SealError, JournalError) as error:
            self._alarm(f"record {record.number} of the journal file {segment.path} cannot be read: {error}")
            self.set_aside(record)
            return None

    def _notice_fork(self) -> None:
        """Begin again in a forked child, whose segments and locks are its parent's."""
        if self._pid != os.getpid():
            for segment in [*self._own.values(), *self._taken_over.values()]:
                segment.forget()
            self._begin()


class Syncer:
    """Syncs what was written a moment ago, so that no record stays unsynced until somebody wants to read it.

    Its thread starts with the first record, and sleeps while nothing is written.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._news, self._closing = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def notice(self) -> None:
        """Schedule a sync for a record that was written."""
        if not self._news.is_set():
            self._news.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._closing.clear()
                    self._thread = threading.Thread(target=self._run, name="journal-syncer", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """End the thread; the next record starts another."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            self._news.set()
            thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._closing.wait(GATHER_SECONDS)
            self._news.clear()
            self._sync()
