"""The verdict of a demo: what the sandbox issued against what the daemon has stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.sandbox.ledger import LedgerEntry, fingerprint
from worker.sandbox.verdict import judge
from worker.store import Store
from worker.vault import PairPlace, Sealer

if TYPE_CHECKING:
    from rich.console import Console

REFRESH_CALL: Final = "tt_user/oauth2/refresh_token/"
PAGE: Final = 500


@dataclass(frozen=True)
class DemoVerdict:
    """How a demo ended; the names are those of its JSON form.

    Attributes:
        sound: nothing was lost, nothing was refreshed twice, no token expired and no part died.
        seconds: how long the daemon kept the tokens alive.
        pairs_issued: pairs that the sandbox issued, consents included.
        pairs_stored: those of them that are stored and open with the keyring.
        lost: creators whose valid pair is not stored.
        double_refreshes: refreshes while another was under way, or with a used token.
        seconds_without_token: creator-seconds without a valid access token.
        expired_creators: creators that had such a time.
        fewest_refreshes: refreshes of the creator that had the fewest.
        cpu_seconds: processor time of all parts.
        problems: what went wrong beside the pairs, in sentences.
    """

    sound: bool
    creators: int
    seconds: float
    pairs_issued: int
    pairs_stored: int
    lost: int
    double_refreshes: int
    seconds_without_token: float
    expired_creators: int
    refreshes: int
    refreshes_per_second: float
    fewest_refreshes: int
    pulls: int
    cpu_seconds: float
    interrupted: bool
    broker: str
    problems: tuple[str, ...]


def stored_refresh_tokens(store: Store, sealer: Sealer) -> dict[str, set[str]]:
    """Open every stored pair and return the fingerprints of the refresh tokens by creator.

    Raises:
        SealError: a stored pair does not open.
        StoreUnavailableError: the database does not answer.
    """
    found: dict[str, set[str]] = {}
    batch = store.all_pairs(limit=PAGE)
    while batch:
        for pair in batch:
            place = PairPlace(pair.creator_id, pair.consent, pair.generation)
            token = sealer.open_refresh(pair.sealed, place)
            found.setdefault(pair.creator_id, set()).add(fingerprint(token.reveal()))
        batch = store.all_pairs(after=batch[-1].key, limit=PAGE)
    return found


def reach_verdict(
    entries: Sequence[LedgerEntry],
    stored: dict[str, set[str]],
    *,
    seconds: float,
    until: float,
    pulls: int,
    cpu_seconds: float,
    interrupted: bool,
    broker: str,
    problems: Sequence[str],
) -> DemoVerdict:
    """Judge a demo.

    Args:
        entries: the ledger.
        stored: fingerprints of the stored refresh tokens by creator.
        seconds: how long the run was.
        until: when it ended, in seconds since the epoch.
        pulls: account reads that were answered.
        cpu_seconds: processor time of all parts.
        interrupted: whether a person ended it early.
        broker: which Redis-protocol server it ran on.
        problems: what else went wrong.
    """
    judged = judge(entries, stored, until=until)
    issued = [(entry.creator, entry.fp_new_refresh) for entry in entries if entry.fp_new_refresh and not entry.again]
    refreshed = [entry.creator for entry in entries if entry.call == REFRESH_CALL and entry.code == 0]
    counts = dict.fromkeys((creator for creator, _ in issued), 0)
    for creator in refreshed:
        counts[creator] += 1
    return DemoVerdict(
        sound=judged.sound and not judged.unreachable and not problems,
        creators=judged.creators,
        seconds=round(seconds, 1),
        pairs_issued=judged.pairs_issued,
        pairs_stored=sum(token in stored.get(creator or "", ()) for creator, token in issued),
        lost=len(judged.lost) + len(judged.lost_cut) + len(judged.unreachable),
        double_refreshes=len(judged.double_refreshes),
        seconds_without_token=round(judged.seconds_without_token, 3),
        expired_creators=len(judged.expired_creators),
        refreshes=len(refreshed),
        refreshes_per_second=round(len(refreshed) / seconds, 1) if seconds else 0.0,
        fewest_refreshes=min(counts.values(), default=0),
        pulls=pulls,
        cpu_seconds=round(cpu_seconds, 1),
        interrupted=interrupted,
        broker=broker,
        problems=tuple(problems),
    )


def show_verdict(console: Console, verdict: DemoVerdict) -> None:
    """Print the verdict for people."""
    from rich.table import Table  # noqa: PLC0415 - only a demo needs it
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table.grid(padding=(0, 2))
    for name, value, good in _rows(verdict):
        table.add_row(Text(name), Text(value, style="bold" if good else "bold red", justify="right"))
    console.print()
    console.print(table)
    for problem in verdict.problems:
        console.print(Text(problem, style="red"), soft_wrap=True)
    style = "bold green" if verdict.sound else "bold red"
    console.print(Text(f"\n{_sentence(verdict)}", style=style), soft_wrap=True)


def _sentence(verdict: DemoVerdict) -> str:
    if verdict.sound:
        return "Every pair that was issued is kept, and no creator was without a valid token."
    if verdict.lost or verdict.double_refreshes or verdict.problems:
        return "This run was not sound."
    return (
        f"This run was not sound: no pair was lost, but {verdict.expired_creators} of {verdict.creators} creators were "
        "without a valid token for a time. The tokens of a demo live for seconds; if this machine is slow or busy, run "
        f"it with --creators {max(1, verdict.creators // 4)}."
    )


def _rows(verdict: DemoVerdict) -> list[tuple[str, str, bool]]:
    return [
        ("creators", f"{verdict.creators}", True),
        ("pairs issued by the sandbox", f"{verdict.pairs_issued}", True),
        ("pairs stored", f"{verdict.pairs_stored}", verdict.pairs_stored == verdict.pairs_issued),
        ("pairs lost", f"{verdict.lost}", not verdict.lost),
        ("double refreshes", f"{verdict.double_refreshes}", not verdict.double_refreshes),
        ("creator-seconds without a valid token", f"{verdict.seconds_without_token:g}", not verdict.expired_creators),
        ("refreshes", f"{verdict.refreshes} ({verdict.refreshes_per_second:g} a second)", True),
        ("fewest refreshes of one creator", f"{verdict.fewest_refreshes}", True),
        ("pulls of account data", f"{verdict.pulls}", True),
        ("processor time of all parts", f"{verdict.cpu_seconds:g} s in {verdict.seconds:g} s", True),
    ]
