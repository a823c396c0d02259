"""Secrets at rest and in memory: the token type, the keyring, sealing, the journal and redaction."""

from worker.vault.journal import Journal, JournalEntry, Orphan, RecordId
from worker.vault.keyring import Keyring
from worker.vault.sealing import PairPlace, SealedPair, Sealer
from worker.vault.token import Token, use_fingerprint_key

__all__ = [
    "Journal",
    "JournalEntry",
    "Keyring",
    "Orphan",
    "PairPlace",
    "RecordId",
    "SealedPair",
    "Sealer",
    "Token",
    "use_fingerprint_key",
]
