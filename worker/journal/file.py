"""One open segment: written, synced once for many writers, flagged, and locked as long as it is open.

The lock distinguishes the segments of living processes from those of dead ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Final, Self

from worker.errors import JournalError
from worker.journal.folder import FILE_MODE, fail, sync_folder
from worker.journal.segment import (
    FLAG_OFFSET,
    FRAME_BYTES,
    HEADER_BYTES,
    RELEASED,
    UNFINISHED_SUFFIX,
    Frame,
    Header,
    frame_of,
)

OPEN_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MADE_TRIES: Final = 5
ZEROS: Final = bytes(2**20)
BLOCK: Final = 2**16
_sync_data = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True)
class Spot:
    """The position of a waiting record, and when this process learned of it, on the monotonic clock."""

    offset: int
    length: int
    known_at: float


class SegmentFile:
    """An open segment whose lock this process holds. Several threads may call `sync` at once, but no other method."""

    def __init__(self, path: Path, descriptor: int, segment_id: bytes, *, size: int) -> None:
        self.path = path
        self.segment_id = segment_id
        self.pending: dict[int, Spot] = {}
        self.broken = False
        self.keep = False
        """True if the file holds something that must outlive its records: it is never unlinked."""
        self._descriptor = descriptor
        self._end = HEADER_BYTES
        self._size = size
        self._number = 0
        self._synced = 0
        self._syncing = threading.Lock()
        self._closed = False

    @classmethod
    def make(cls, folder: Path, header: Header, *, size: int) -> Self:
        """Make a segment: it is locked and preallocated before it gets its name, so nobody finds it unfinished.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        unfinished = folder / (header.file_name + UNFINISHED_SUFFIX)
        path = folder / header.file_name
        for _ in range(MADE_TRIES):
            descriptor = os.open(unfinished, OPEN_FLAGS | os.O_CREAT, FILE_MODE)
            try:
                if not lock(descriptor):
                    os.close(descriptor)
                    continue
                _reserve(descriptor, size)
                _write_all(descriptor, header.to_bytes(), 0)
                os.fsync(descriptor)
                unfinished.rename(path)
                sync_folder(folder)
            except OSError:
                os.close(descriptor)
                unfinished.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise
            return cls(path, descriptor, header.segment_id, size=size)
        raise BlockingIOError("another process keeps sweeping the new file away")

    @staticmethod
    def probe(folder: Path, *, size: int) -> None:
        """Reserve a segment's space in a file without a name, and give it back.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        with tempfile.TemporaryFile(dir=folder, prefix=".probe-") as file:
            _reserve(file.fileno(), size)

    @property
    def name(self) -> str:
        """The file's name, which is a part of record ids."""
        return self.path.name

    @property
    def next_number(self) -> int:
        """The number that the next record gets."""
        return self._number + 1

    @property
    def room(self) -> int:
        """Bytes left for records and their frames."""
        return self._size - self._end

    def in_place(self) -> bool:
        """Return False if somebody removed or replaced the file."""
        try:
            there = self.path.lstat()
        except OSError:
            return False
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def write(self, sealed: bytes) -> int:
        """Write the next record behind the last one, without a sync, and return its number.

        Raises:
            OSError: it could not be written; the segment is broken and takes no more records.
        """
        frame = frame_of(self.next_number, sealed)
        try:
            _write_all(self._descriptor, frame, self._end)
        except OSError:
            self.broken = True
            raise
        self._number += 1
        self.pending[self._number] = Spot(self._end + FRAME_BYTES, len(sealed), time.monotonic())
        self._end += len(frame)
        return self._number

    def sync(self, number: int) -> None:
        """Return once this record is on disk; threads that arrive meanwhile share the next sync.

        Raises:
            OSError: the disk failed; what was not synced before may be lost with the machine.
        """
        with self._syncing:
            if self._closed or self._synced >= number:
                return
            if self.broken:
                # After one failed sync the next may report success falsely: the kernel may have dropped the data.
                raise OSError("an earlier write or sync of this file failed")
            written = self._number
            try:
                _sync_data(self._descriptor)
            except OSError:
                self.broken = True
                raise
            self._synced = written

    def learn(self, frame: Frame) -> None:
        """Take over a waiting record that another process wrote."""
        self.pending[frame.number] = Spot(frame.offset + FRAME_BYTES, len(frame.sealed), 0.0)

    def read(self, number: int) -> bytes:
        """Return a waiting record's sealed bytes.

        Raises:
            OSError: the disk failed.
        """
        spot = self.pending[number]
        return os.pread(self._descriptor, spot.length, spot.offset)

    def copy_of(self, number: int) -> bytes:
        """Return header and frame of a waiting record, which make a small segment.

        Raises:
            OSError: the disk failed.
        """
        spot = self.pending[number]
        return self.with_header(spot.offset - FRAME_BYTES, FRAME_BYTES + spot.length)

    def with_header(self, offset: int, length: int) -> bytes:
        """Return the header and a part of the file.

        Raises:
            OSError: the disk failed.
        """
        return os.pread(self._descriptor, HEADER_BYTES, 0) + os.pread(self._descriptor, length, offset)

    def release(self, number: int) -> None:
        """Flag a record as released, without a sync: a lost flag only causes a harmless replay."""
        spot = self.pending.pop(number, None)
        if spot is not None:
            os.pwrite(self._descriptor, RELEASED, spot.offset - FRAME_BYTES + FLAG_OFFSET)

    def close(self) -> None:
        """Release the lock, and remove the file if nothing in it waits.

        Raises:
            OSError: the file could not be removed or synced; it is closed all the same.
        """
        with self._syncing:
            if self._closed:
                return
            self._closed = True
            try:
                if self.pending or self.keep:
                    _sync_data(self._descriptor)
                    self._synced = self._number
                elif self.in_place():
                    self.path.unlink()
            finally:
                os.close(self._descriptor)

    def forget(self) -> None:
        """Close the descriptor in a forked child, whose parent owns file and lock."""
        os.close(self._descriptor)


def _reserve(descriptor: int, size: int) -> None:
    """Reserve the disk space now, so that our records fit even if the disk fills up later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    written = 0
    while written < size:
        written += os.pwrite(descriptor, ZEROS[: size - written], written)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def lock_existing(path: Path) -> int | None:
    """Open and lock a file that a process left behind.

    Returns:
        A descriptor, or None if a living process holds the lock, or the file has just been removed.

    Raises:
        JournalError: the file cannot be opened, or is a link or not a plain file.
    """
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise fail("a journal file cannot be opened:", path, error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise JournalError(f"{path} lies in the journal's folder and is no plain file")
    # The lock comes only after the open: a process that replayed the file in between has unlinked it.
    if lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    """Open a file; on a disk that has become read-only only for reading, since its records can still be stored."""
    try:
        return os.open(path, OPEN_FLAGS)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    return os.open(path, OPEN_FLAGS & ~os.O_RDWR)


def read_whole(descriptor: int) -> bytes:
    """Return all bytes of an open file.

    Raises:
        OSError: the disk failed.
    """
    size, data = os.fstat(descriptor).st_size, bytearray()
    while len(data) < size and (part := os.pread(descriptor, size - len(data), len(data))):
        data += part
    return bytes(data)


@contextmanager
def mapped(path: Path) -> Iterator[bytes | mmap]:
    """Give memory with a file's bytes up to the zeros at its end, of which it has as many as a record could end with.

    The memory goes back to the system at the end; the heaps of the threads that look would keep it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        whole = end = os.fstat(file.fileno()).st_size
        while end and os.pread(file.fileno(), min(end, BLOCK), max(end - BLOCK, 0)) == ZEROS[: min(end, BLOCK)]:
            end -= min(end, BLOCK)
        if not end:
            yield b""
            return
        done = 0
        with mmap(-1, min(end + BLOCK, whole)) as memory:
            with memoryview(memory) as view:
                while done < end and (count := file.readinto(view[done:])):
                    done += count
            yield memory


def lock(descriptor: int) -> bool:
    """Lock an open file as long as it is open; return False if another process has it or the file is unlinked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
