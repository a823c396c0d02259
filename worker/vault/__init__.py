"""Secrets at rest and in memory: the token type, the keyring, sealing, and redaction."""

from worker.vault.keyring import Keyring
from worker.vault.sealing import PairPlace, SealedPair, Sealer
from worker.vault.token import Token, use_fingerprint_key

__all__ = [
    "Keyring",
    "PairPlace",
    "SealedPair",
    "Sealer",
    "Token",
    "use_fingerprint_key",
]
