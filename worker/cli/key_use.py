"""What each sealing key is used for, and whether the keyring opens what the key sealed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from worker.errors import SealError

if TYPE_CHECKING:
    from worker.services import Services
    from worker.store import StoredPair

PAGE: Final = 500
MOST_PAGES: Final = 20
"""Pages that are searched for one pair of each key; a key without a pair in them is not tried."""

DIRECT: Final = "it seals records itself, at most 2^32 of them, and has no key for readers: make a newer key active"


@dataclass(frozen=True)
class KeyUse:
    """One key as it is used.

    Attributes:
        state: `active` seals new pairs, `older` only opens, `missing` is not in the keyring.
        pairs: stored pairs that it sealed.
        journal: records in this host's journal that it sealed.
        held_by: living processes that hold it.
        seals_in: living processes that seal with it.
        opens: whether its sentinel and one of its pairs open with this keyring; None if neither was found.
        remark: what is wrong, or empty.
    """

    key_id: int
    state: Literal["active", "older", "missing"]
    pairs: int
    journal: int
    held_by: int
    seals_in: int
    opens: bool | None
    remark: str


def key_rows(services: Services) -> tuple[list[KeyUse], int]:
    """Return every key that the keyring holds or that is in use, by id, and the number of living processes.

    Raises:
        StoreUnavailableError: the database does not answer.
    """
    from worker.policy.sealing_key import LIVING_SECONDS  # noqa: PLC0415 - Celery loads the commands on every start

    pairs = services.store.key_usage()
    journal = services.journal.key_usage()
    sentinels = services.store.sentinels()
    living = services.store.workers_seen(LIVING_SECONDS)
    samples = _samples(services, {key_id for key_id, count in pairs.items() if count})
    rows = []
    for key_id in sorted(set(services.keyring.keys) | set(pairs) | set(journal) | set(sentinels)):
        state = _state(services, key_id)
        opens, remark = _try(services, key_id, samples.get(key_id), sentinels.get(key_id))
        held_by = sum(key_id in worker.key_ids for worker in living)
        if not remark and state == "active" and living and key_id not in sentinels:
            remark = "no process seals with it yet: all processes must hold it first"
        if not remark and state == "active" and key_id in services.keyring.direct:
            remark = DIRECT
        rows.append(
            KeyUse(
                key_id=key_id,
                state=state,
                pairs=pairs.get(key_id, 0),
                journal=journal.get(key_id, 0),
                held_by=held_by,
                seals_in=sum(worker.sealing_key_id == key_id for worker in living),
                opens=opens,
                remark=remark,
            )
        )
    return rows, len(living)


def _samples(services: Services, wanted: set[int]) -> dict[int, StoredPair]:
    """Return one stored pair of each key, if the first pages have one."""
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


def _state(services: Services, key_id: int) -> Literal["active", "older", "missing"]:
    if key_id not in services.keyring.keys:
        return "missing"
    return "active" if key_id == services.keyring.active else "older"


def _try(services: Services, key_id: int, sample: StoredPair | None, sentinel: bytes | None) -> tuple[bool | None, str]:
    """Open this key's sentinel and its sample; return whether they open and, if not, why."""
    from worker.upkeep.preflight import SENTINEL_PLACE  # noqa: PLC0415 - Celery loads the commands on every start
    from worker.vault import PairPlace  # noqa: PLC0415 - as above

    if key_id not in services.keyring.keys:
        return False, "the keyring lacks this key"
    try:
        if sentinel is not None and not services.keyring.for_readers:
            services.sealer.open(sentinel, SENTINEL_PLACE)
        if sample is not None:
            services.sealer.open_access(sample.sealed, PairPlace(sample.creator_id, sample.consent, sample.generation))
    except SealError:
        return False, "the keyring holds other bytes under this id"
    return (None if sample is None and (sentinel is None or services.keyring.for_readers) else True), ""
