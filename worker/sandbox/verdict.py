"""Judge a run: compare the ledger of issued pairs with the pairs that the daemon has stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from worker.sandbox.ledger import LedgerEntry

WHOLE: Final = "sent"
CUT: Final = "cut"
REFRESH_CALL: Final = "tt_user/oauth2/refresh_token/"


@dataclass(frozen=True, slots=True)
class LedgerVerdict:
    """What a run did to the pairs.

    A creator's live pair is the last one issued under the newest consent.

    Attributes:
        creators: how many creators were issued a pair.
        pairs_issued: how many pairs were issued.
        live_stored: how many live pairs are stored.
        lost: creators whose live pair left whole and is not stored.
        lost_cut: creators whose live pair left in a cut answer with everything needed in it, and is not stored.
        unreachable: creators whose live pair is not stored and never left whole.
        double_refreshes: lines of refreshes sent while another was under way, or with a token whose answer was sent.
        doubtful_retries: lines of refreshes with a used token whose answer was not sent completely.
        refused: how many refresh calls were refused, by code.
        seconds_without_token: sum over creators of the time without a valid access token.
        expired_creators: creators that had such a time.
    """

    creators: int
    pairs_issued: int
    live_stored: int
    lost: tuple[str, ...]
    lost_cut: tuple[str, ...]
    unreachable: tuple[str, ...]
    double_refreshes: tuple[int, ...]
    doubtful_retries: tuple[int, ...]
    refused: Mapping[int, int]
    seconds_without_token: float
    expired_creators: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """True if nothing was lost, nothing was refreshed twice and no creator was ever without a valid token."""
        return not (self.lost or self.lost_cut or self.double_refreshes or self.expired_creators)


def judge(
    entries: Iterable[LedgerEntry],
    stored: Mapping[str, Collection[str]],
    *,
    until: float | None = None,
    except_: Collection[str] = (),
) -> LedgerVerdict:
    """Judge a run by its ledger.

    Args:
        entries: the ledger.
        stored: fingerprints of the refresh tokens that are stored, by creator.
        until: end of the run in seconds since the epoch; None for the ledger's last line.
        except_: creators left out, such as those that were revoked on purpose.
    """
    lines = [entry for entry in entries if entry.creator not in except_]
    issued: dict[str, list[LedgerEntry]] = {}
    for entry in lines:
        if entry.creator is not None and entry.fp_new_refresh is not None:
            issued.setdefault(entry.creator, []).append(entry)
    end = until if until is not None else max((entry.time for entry in lines), default=0.0)
    missing = {
        creator: reached for creator, pairs in issued.items() if (reached := _missing(pairs, stored.get(creator, ())))
    }
    gaps = {creator: gap for creator, pairs in issued.items() if (gap := _gap(pairs, end)) > 0}
    return LedgerVerdict(
        creators=len(issued),
        pairs_issued=sum(not entry.again for pairs in issued.values() for entry in pairs),
        live_stored=len(issued) - len(missing),
        lost=tuple(creator for creator, reached in missing.items() if reached == WHOLE),
        lost_cut=tuple(creator for creator, reached in missing.items() if reached == CUT),
        unreachable=tuple(creator for creator, reached in missing.items() if reached not in {WHOLE, CUT}),
        double_refreshes=tuple(entry.seq for entry in lines if entry.under_way or entry.reused_after == WHOLE),
        doubtful_retries=tuple(
            entry.seq for entry in lines if not entry.under_way and entry.reused_after not in {None, WHOLE}
        ),
        refused=dict(Counter(entry.code for entry in lines if entry.call == REFRESH_CALL and entry.code)),
        seconds_without_token=sum(gaps.values()),
        expired_creators=tuple(gaps),
    )


def _missing(pairs: list[LedgerEntry], have: Collection[str]) -> str:
    """Return how a live pair that is not stored left: `sent`, `cut` (salvageable), `no`; empty if it is stored."""
    newest = max(entry.consent for entry in pairs)
    live = [entry for entry in pairs if entry.consent == newest][-1].fp_new_refresh
    if live in have:
        return ""
    ways = [entry for entry in pairs if entry.fp_new_refresh == live]
    if any(entry.answer == WHOLE for entry in ways):
        return WHOLE
    return CUT if any(entry.answer == CUT and entry.salvageable for entry in ways) else "no"


def _gap(pairs: list[LedgerEntry], end: float) -> float:
    """Return the seconds between the first issue and the end in which no issued access token was valid."""
    gap = 0.0
    valid_until = pairs[0].time
    for entry in pairs:
        if not entry.again:
            gap += max(0.0, min(entry.time, end) - valid_until)
            valid_until = max(valid_until, entry.time + (entry.expires_in or 0))
    return gap + max(0.0, end - valid_until)
