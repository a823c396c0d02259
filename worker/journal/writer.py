"""The writing side of the journal: this process's own segments, begun, filled, synced and let go."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from worker.errors import JournalError
from worker.journal.entry import RecordId
from worker.journal.file import SegmentFile
from worker.journal.folder import JournalFolder, fail
from worker.journal.segment import FRAME_BYTES, HEADER_BYTES, SEGMENT_ID_BYTES, Header, place_of
from worker.vault.sealing import Sealer, key_id_of

RESERVE_SHARE: Final = 4
"""A segment with less than this part of its size left is not started into: what is in flight must fit in it."""
GATHER_SECONDS: Final = 0.005
"""Records that are written within this time share a sync: a sync costs about as much for one as for fifty."""
SEAL_BYTES: Final = 64
"""More than what sealing adds to a plaintext."""


@dataclass(frozen=True)
class Written:
    """A record that is written and may not be on disk yet.

    Attributes:
        plaintext: what to write again where the file's sync fails.
    """

    record: RecordId
    plaintext: bytes = field(repr=False)


class Syncer:
    """Syncs what was written a moment ago, so that no record waits for the disk until somebody wants to read it.

    Its thread starts with the first record, and sleeps while nothing is written.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._news, self._closing = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def notice(self) -> None:
        """Take notice of a record that was written."""
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


class JournalWriter:
    """This process's segments: one that takes records, and earlier ones in which records still wait.

    Attributes:
        lock: guards the segments; only the sync runs outside it, so that writers share it.
        segments: this process's open segments by name.
    """

    def __init__(
        self,
        folder: JournalFolder,
        sealer: Sealer,
        *,
        owner: str,
        segment_bytes: int,
        alarm: Callable[[str], None],
    ) -> None:
        self.lock = threading.RLock()
        self.segments: dict[str, SegmentFile] = {}
        self._folder = folder
        self._sealer = sealer
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._alarm = alarm
        self._current: SegmentFile | None = None

    def secure_room(self) -> None:
        """Have a segment in place with room for what may be in flight.

        Raises:
            JournalError: none can be made.
        """
        with self.lock:
            current = self._current
            if current is not None and not current.in_place():
                current.broken = True
                self._alarm(f"the journal file {current.path} was removed while in use; a new one is begun")
            try:
                self._segment_with(self._segment_bytes // RESERVE_SHARE)
            except OSError as error:
                raise fail("a journal file cannot be made in", self._folder.path, error) from None

    def write(self, plaintext: bytes) -> Written:
        """Seal and write a record, which may not be on disk yet; after a failure once more, in a new segment.

        Raises:
            JournalError: no file took it.
        """
        try:
            record = self._write_once(plaintext)
        except OSError:
            try:
                record = self._write_once(plaintext)
            except OSError as error:
                raise fail("an answer could not be journaled in", self._folder.path, error) from None
        return Written(record, plaintext)

    def sync(self, written: Written) -> RecordId:
        """Return once a record is on disk; where its file fails it is written again, to a new segment.

        Returns:
            The record that is on disk.

        Raises:
            JournalError: no disk took it.
        """
        try:
            self._sync(written.record)
        except OSError:
            again = self.write(written.plaintext).record
        else:
            return written.record
        try:
            self._sync(again)
        except OSError as error:
            raise fail("an answer could not be journaled in", self._folder.path, error) from None
        self.release(written.record)
        return again

    def sync_all(self) -> None:
        """Sync whatever was written; a file that fails is left to whoever waits for one of its records."""
        with self.lock:
            segments = list(self.segments.values())
        for segment in segments:
            with suppress(OSError):
                segment.sync(segment.next_number - 1)

    def release(self, record: RecordId) -> bool:
        """Release a record of this process; return False where it is not one."""
        with self.lock:
            segment = self.segments.get(record.segment)
            if segment is None:
                return False
            release_in(segment, record.number, self._alarm)
            if not segment.pending and (segment is not self._current or segment.broken):
                self._drop(segment)
            return True

    def close(self) -> None:
        """Close every segment; those without waiting records go."""
        with self.lock:
            for segment in list(self.segments.values()):
                self._drop(segment)

    def forget(self) -> None:
        """Begin anew in a forked child: segments and lock are the parent's."""
        for segment in self.segments.values():
            segment.forget()
        self.lock, self.segments, self._current = threading.RLock(), {}, None

    def _write_once(self, plaintext: bytes) -> RecordId:
        with self.lock:
            segment = self._segment_with(len(plaintext) + FRAME_BYTES + SEAL_BYTES)
            sealed = self._sealer.seal(plaintext, place_of(segment.segment_id, segment.next_number))
            return RecordId(segment.name, segment.write(sealed, key_id_of(sealed)))

    def _sync(self, record: RecordId) -> None:
        with self.lock:
            segment = self.segments.get(record.segment)
        if segment is not None:  # else all its records were released: the database has what they brought
            segment.sync(record.number)

    def _segment_with(self, room: int) -> SegmentFile:
        """Return the current segment where it has this room, else a new one."""
        current = self._current
        if current is not None and not current.broken and current.room >= room:
            return current
        self._folder.prepare()
        header = Header(
            segment_id=secrets.token_bytes(SEGMENT_ID_BYTES),
            owner=self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        size = max(self._segment_bytes, HEADER_BYTES + room)
        made = SegmentFile.make(self._folder.path, header, size=size)
        self.segments[made.name], self._current = made, made
        if current is not None and not current.pending:
            self._drop(current)
        return made

    def _drop(self, segment: SegmentFile) -> None:
        del self.segments[segment.name]
        if segment is self._current:
            self._current = None
        close_segment(segment, self._alarm)


def release_in(segment: SegmentFile, number: int, alarm: Callable[[str], None]) -> None:
    """Flag a record; a flag that cannot be written only brings a harmless replay."""
    try:
        segment.release(number)
    except OSError as error:
        alarm(str(fail("a journal record could not be released in", segment.path, error)))


def close_segment(segment: SegmentFile, alarm: Callable[[str], None]) -> None:
    """Close a segment; what cannot be removed or synced is told."""
    try:
        segment.close()
    except (OSError, JournalError) as error:
        alarm(f"the journal file {segment.path} could not be closed: {error}")
