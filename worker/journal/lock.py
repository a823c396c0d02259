"""Locks on journal files: they tell the segments of living processes from those of dead ones."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from worker.errors import JournalError
from worker.journal.folder import fail

OPEN_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def lock_existing(path: Path) -> int | None:
    """Open and lock a file that a process left behind.

    Returns:
        A descriptor, or None where a living process holds the lock, or the file has just been removed.

    Raises:
        JournalError: the file cannot be opened, or is a link or no plain file.
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
    # The lock is won only after the open: a process that replayed the file meanwhile has unlinked it.
    if lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    """Open a file, on a disk that has become read-only for reading alone: what it holds can still be stored."""
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


def lock(descriptor: int) -> bool:
    """Lock an open file for as long as it is open; return False where another has it or the file is unlinked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(descriptor).st_nlink > 0
