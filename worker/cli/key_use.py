"""Which sealing key is used for what, and whether the keyring opens what it sealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from worker.errors import SealError

if TYPE_CHECKING:
    from worker.services import Services
    from worker.store import StoredPair

PAGE: Final = 500
MOST_PAGES: Final = 20
"""Pages of pairs that are searched for one pair of each key; a key whose pairs lie deeper is not tried."""


@dataclass(frozen=True)
class KeyUse:
    """One key as it is used.

    Attributes:
        state: `active` seals new pairs, `older` only opens, `missing` is not in the keyring.
        pairs: stored pairs that it sealed.
        opens: whether its sentinel and one of its pairs open with this keyring; None where neither was found.
        remark: what is wrong, or empty.
    """

    key_id: int
    state: Literal["active", "older", "missing"]
    pairs: int
    opens: bool | None
    remark: str


def key_rows(services: Services) -> list[KeyUse]:
    """Return every key that the keyring holds or that sealed something, by id.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    usage = services.store.key_usage()
    sentinels = services.store.sentinels()
    samples = _samples(services, {key_id for key_id, pairs in usage.items() if pairs})
    return [
        _use(services, key_id, usage.get(key_id, 0), samples.get(key_id), sentinels.get(key_id))
        for key_id in sorted(set(services.keyring.keys) | set(usage))
    ]


def _samples(services: Services, wanted: set[int]) -> dict[int, StoredPair]:
    """Return one stored pair of each key, as far as the first pages have one."""
    found: dict[int, StoredPair] = {}
    after = (0, 0, 0)
    for _ in range(MOST_PAGES):
        if set(found) >= wanted:
            break
        page = services.store.all_pairs(after, PAGE)
        for stored in page:
            found.setdefault(stored.sealed.key_id, stored)
        if len(page) < PAGE:
            break
        after = page[-1].key
    return found


def _use(services: Services, key_id: int, pairs: int, sample: StoredPair | None, sentinel: bytes | None) -> KeyUse:
    from worker.preflight import SENTINEL_PLACE  # noqa: PLC0415 - Celery loads the commands on every start
    from worker.vault import PairPlace  # noqa: PLC0415 - as above

    keyring = services.keyring
    if key_id not in keyring.keys:
        return KeyUse(key_id, "missing", pairs, opens=False, remark="the keyring lacks this key")
    state: Literal["active", "older"] = "active" if key_id == keyring.active else "older"
    try:
        if sentinel is not None:
            services.sealer.open(sentinel, SENTINEL_PLACE)
        if sample is not None:
            services.sealer.open_access(sample.sealed, PairPlace(sample.creator_id, sample.consent, sample.generation))
    except SealError:
        return KeyUse(key_id, state, pairs, opens=False, remark="the keyring holds other bytes under this id")
    tried = sentinel is not None or sample is not None
    return KeyUse(key_id, state, pairs, opens=True if tried else None, remark="")
