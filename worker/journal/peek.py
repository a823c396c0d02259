"""Looking into every segment of a folder without its lock: which attempts' answers wait, also with living processes."""

from __future__ import annotations

from collections.abc import Iterator

from worker.errors import JournalError, SealError
from worker.journal.entry import JournalEntry
from worker.journal.folder import JournalFolder, fail
from worker.journal.segment import HEADER_BYTES, SUFFIX, Frame, place_of, scan, segment_id_of
from worker.vault.sealing import Sealer


def waiting_attempts(folder: JournalFolder, sealer: Sealer) -> Iterator[tuple[int | None, int | None, int | None]]:
    """Yield grant, consent and generation of every waiting record that opens; nothing is changed and nothing is told.

    Raises:
        JournalError: the folder or a file cannot be read.
    """
    for path in folder.files(SUFFIX):
        if not path.is_file():  # a pipe would be waited for; the replay tells of what is no journal
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise fail("a journal file cannot be read:", path, error) from None
        segment_id = segment_id_of(data[:HEADER_BYTES])
        if segment_id is None:
            continue
        for part in scan(data):
            if isinstance(part, Frame) and not part.released:
                try:
                    entry = JournalEntry.from_bytes(sealer.open(part.sealed, place_of(segment_id, part.number)))
                except (SealError, JournalError):
                    continue
                yield entry.grant_id, entry.consent, entry.generation
