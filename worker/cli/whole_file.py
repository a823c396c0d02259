"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from worker.errors import NotFoundError, UsageError

ADVICE: Final = {
    errno.EACCES: "name a folder in which you may write",
    errno.EPERM: "name a folder in which you may write",
    errno.EROFS: "name a folder in which you may write",
    errno.ENOENT: "make its folder first, or name another one",
    errno.ENOSPC: "make room there, or name another folder",
    errno.EDQUOT: "make room there, or name another folder",
    errno.ENAMETOOLONG: "give it a shorter name",
}
STANDARD_OUTPUT: Final = Path("-")


def refuse_dash(place: Path) -> None:
    """Refuse `-`, which elsewhere means standard output and here would become a file of that name.

    Raises:
        UsageError: its text says what to type.
    """
    if place == STANDARD_OUTPUT:
        raise UsageError("- would become a file of that name, not standard output: name a file, such as out.txt")


def unwritten(place: Path, error: OSError) -> str:
    """Return a sentence on a file that could not be written: which, why, and what to do about it."""
    advice = ADVICE.get(error.errno or 0)
    return f"{place} was not written: {error.strerror or type(error).__name__}{f'; {advice}' if advice else ''}"


@contextmanager
def whole_file(place: Path, *, replaces: bool) -> Iterator[Path]:
    """Give the path of a file beside the asked one, for its owner alone; name it at the end.

    What was there before stays until then. If anything goes wrong, nothing is left of the new file.

    Args:
        place: the path of the finished file; its folder is made.
        replaces: True to replace what is there, False to refuse that, also if it came there meanwhile.

    Raises:
        UsageError: the place is taken, or is `-`.
        NotFoundError: the file cannot be written, such as on a full disk.
    """
    refuse_dash(place)
    taken = UsageError(f"{place} exists and is not overwritten: name a new file")
    try:
        if place.is_dir():
            raise UsageError(f"{place} is a folder: name a file")
        if not replaces and place.exists():
            raise taken
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"{place} was not written: a file has the name of its folder") from None
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
        os.close(handle)
        part = Path(name)
        try:
            yield part
            with part.open("rb") as written:
                os.fsync(written.fileno())
            if replaces:
                part.replace(place)
            else:
                place.hardlink_to(part)  # unlike a rename it replaces nothing
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
    except FileExistsError:
        raise taken from None
    except OSError as error:
        raise NotFoundError(unwritten(place, error)) from None
