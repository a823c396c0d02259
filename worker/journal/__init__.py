"""The journal: sealed, synced local files that hold each received answer until the database has it."""

from worker.journal.aside import AsideRecord
from worker.journal.entry import JournalEntry, Orphan, RecordId
from worker.journal.journal import Journal, Written

__all__ = ["AsideRecord", "Journal", "JournalEntry", "Orphan", "RecordId", "Written"]
