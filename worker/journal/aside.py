"""Records that were set aside for a person: read them, and remove them once the database has them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from worker.errors import JournalError, NotFoundError, SealError
from worker.journal.entry import JournalEntry
from worker.journal.folder import SET_ASIDE, JournalFolder, fail, sync_folder
from worker.journal.segment import HEADER_BYTES, Frame, place_of, scan, segment_id_of, segment_id_of_name
from worker.vault.sealing import Sealer


@dataclass(frozen=True)
class AsideRecord:
    """One file that was set aside.

    Attributes:
        name: its file name.
        entry: the answer in it; None if there is none that can be read.
        fault: why there is none.
    """

    name: str
    entry: JournalEntry | None = None
    fault: str | None = None


class AsideFolder:
    """The folder `set-aside` within the journal's."""

    def __init__(self, folder: JournalFolder, sealer: Sealer) -> None:
        self._path = folder.path / SET_ASIDE
        self._sealer = sealer

    def records(self) -> Iterator[AsideRecord]:
        """Yield the records, by name, without changing anything.

        Raises:
            JournalError: the folder or a file cannot be read.
        """
        for path in JournalFolder(self._path).files(""):
            if path.is_file():
                yield self._read(path.name)

    def record(self, name: str) -> AsideRecord:
        """Return one record.

        Raises:
            NotFoundError: there is no such file.
            JournalError: it cannot be read.
        """
        path = self._path / name
        if path.parent != self._path or path.is_symlink() or not path.is_file():
            raise NotFoundError(f"there is no record {name!r} in {self._path}")
        return self._read(name)

    def remove(self, name: str) -> None:
        """Remove a record that the database has now; a record that is gone already is no error.

        Raises:
            JournalError: it could not be removed.
        """
        path = self._path / name
        try:
            path.unlink(missing_ok=True)
            sync_folder(self._path)
        except OSError as error:
            raise fail("a record that was set aside could not be removed:", path, error) from None

    def _read(self, name: str) -> AsideRecord:
        path = self._path / name
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                data = file.read()
        except OSError as error:
            raise fail("a record that was set aside cannot be read:", path, error) from None
        segment_id = segment_id_of(data[:HEADER_BYTES]) or segment_id_of_name(name)
        frames = [part for part in scan(data) if isinstance(part, Frame)]
        if segment_id is None or not frames:
            return AsideRecord(name, fault="it holds no whole record")
        try:
            place = place_of(segment_id, frames[0].number)
            return AsideRecord(name, entry=JournalEntry.from_bytes(self._sealer.open(frames[0].sealed, place)))
        except (SealError, JournalError) as error:
            return AsideRecord(name, fault=str(error))
