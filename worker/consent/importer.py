"""Importing existing tokens: a file of JSON or CSV becomes grants, in batches.

The file is read twice. The first reading checks every line and chooses one line for each creator; nothing is stored if
the file as a whole is damaged. The second stores batch after batch. In between, a few hundred bytes are remembered for
each line, and no token. A line that is not imported is counted under a reason that holds nothing of its content. If an
import is interrupted, the batches that were stored stay: run it again.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

from worker.consent.import_fields import ImportedPair
from worker.consent.import_lines import Source
from worker.errors import SealError
from worker.policy import creator_id as creator_ids
from worker.policy.renewal import draw_jitter, first_refresh
from worker.store import ConsentResult, Likeness, NewConsent, PairVersion, Store
from worker.vault import PairPlace, SealedPair, Sealer

BATCH: Final = 500
LISTED_LINES: Final = 10_000
"""A report lists at most this many line numbers for one reason; it counts all."""
UNKNOWN_AGE_SHARE: Final = 1 / 8
"""Part of the life over which the first refreshes of tokens of unknown age are spread.

Such a token may end at any time, so it is refreshed soon and not near the end that its file promises. An eighth of
24 hours is three hours: 100,000 grants are then due at 9.3 a second, which TikTok's lowest tier of 10 carries.
"""

What = Literal["new", "replaced", "skipped", "bad"]
"""`skipped`: rightly left alone; `bad`: not imported, and a person has to look."""
RESULTS: Final[dict[ConsentResult, tuple[What, str]]] = {
    ConsentResult.CREATED: ("new", ""),
    ConsentResult.REPLACED: ("replaced", ""),
    ConsentResult.SAME: ("skipped", "this very pair is stored already"),
    ConsentResult.OLDER: ("skipped", "a pair as new or newer is stored"),
    ConsentResult.KNOWN: (
        "bad",
        "the creator is known with another pair; --replace stores the file's pair if it is newer",
    ),
    ConsentResult.UNDATED: (
        "bad",
        "the creator is known and the line does not say when its pair was issued; add issued_at",
    ),
    ConsentResult.BUSY: (
        "bad",
        "the creator is known and a refresh that may bring a newer pair is under way or in doubt; import again later",
    ),
    ConsentResult.DEAD: ("bad", "TikTok refused this pair before; the creator must authorize again, or bring another"),
    ConsentResult.REVOKED: ("bad", "the creator was revoked here after this pair was issued"),
    ConsentResult.FORGOTTEN: (
        "bad",
        "the creator was forgotten here, and the line does not say that its pair was issued since (issued_at)",
    ),
    ConsentResult.FOREIGN: ("bad", "TikTok says that this pair belongs to another creator"),
}
"""What was done with a line, and the reason for people."""
TWICE: Final = "another line of this creator has the same pair"
OUTDATED: Final = "another line of this creator has a newer pair"
UNCLEAR: Final = (
    "another line of this creator has another pair, and their issue times do not show which is newer; add issued_at, "
    "or leave only one line"
)
ROUNDED: Final = (
    "the creator's id is a number of fifteen digits and zeros, as on other lines: a spreadsheet has rounded them; "
    "export this column as text"
)
ROUNDED_BY_CHANCE: Final = 1 / 5
"""Part of the long numbers among ids that may end in zeros by chance; of those with sixteen digits a tenth do."""
LEAST_ROUNDED: Final = 2
"""So few ids may end in zeros in any file."""
SHARED: Final = "a line of another creator has the same token, so one of the two ids is wrong"


@dataclass
class ImportReport:
    """What an import did, or would do.

    Attributes:
        lines: entries of the file; a CSV's header is none.
        lines_of: line numbers by what was done and why; at most `LISTED_LINES` each.
        counts: numbers of lines by what was done and why.
        unknown_age: imported lines without an issue time.
        unknown_life: imported lines that do not say when their access token ends.
        unusual: imported lines with a token that does not begin as TikTok's do.
        zoneless: imported lines with a time that names no zone, and was read as UTC.
        read_columns: the column that each field was read from.
        unread_columns: columns that were not read.
    """

    lines: int = 0
    lines_of: dict[tuple[What, str], list[int]] = field(default_factory=dict)
    counts: dict[tuple[What, str], int] = field(default_factory=dict)
    unknown_age: int = 0
    unknown_life: int = 0
    unusual: int = 0
    zoneless: int = 0
    read_columns: dict[str, str] = field(default_factory=dict)
    unread_columns: list[str] = field(default_factory=list)

    def add(self, what: What, reason: str, line: int) -> None:
        """Count a line."""
        self.counts[what, reason] = self.counts.get((what, reason), 0) + 1
        listed = self.lines_of.setdefault((what, reason), [])
        if len(listed) < LISTED_LINES:
            listed.append(line)

    def count(self, what: What) -> int:
        """Return with how many lines this was done."""
        return sum(count for (done, _), count in self.counts.items() if done == what)

    @property
    def created(self) -> int:
        """Grants that are new."""
        return self.count("new")

    @property
    def replaced(self) -> int:
        """Known creators whose pairs were replaced."""
        return self.count("replaced")

    @property
    def skipped(self) -> int:
        """Lines that were rightly left alone."""
        return self.count("skipped")

    @property
    def bad(self) -> int:
        """Lines that were not imported and need a person."""
        return self.count("bad")


class _Seen(NamedTuple):
    """What is remembered of an entry: hashes, salted in each process, and the issue time, if any, in milliseconds."""

    number: int
    line: int
    refresh: int
    access: int
    issued: int | None


_Batch = dict[str, tuple[int, ImportedPair]]
"""Lines to be stored together: their numbers and pairs, by creator."""


class Importer:
    """Stores the tokens of a file as grants."""

    def __init__(self, *, store: Store, sealer: Sealer, renew_at: float, batch: int = BATCH) -> None:
        """Take what an import needs.

        Args:
            store: where grants go.
            sealer: seals the tokens.
            renew_at: fraction of an access token's life at which its renewal window begins.
            batch: lines stored in one transaction.
        """
        self._store = store
        self._sealer = sealer
        self._renew_at = renew_at
        self._batch = batch

    def run(
        self,
        source: Source,
        *,
        report: ImportReport,
        replace: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Import a file.

        Args:
            source: the file.
            report: filled as the import goes, so that it is correct after an interruption too.
            replace: True to replace the pairs of known creators if the file's are surely newer than the stored ones.
            dry_run: True to store nothing and report what would be done.
            progress: called with the bytes read since the last call; all bytes are read twice.

        Raises:
            UsageError: the file as a whole cannot be read, such as a CSV without the needed columns.
            StoreUnavailableError: the database went away; what was stored before stays.
        """
        now = self._store.ping()
        try:
            left_out = _choose(source, now, report, progress)
        finally:
            report.read_columns, report.unread_columns = source.read_columns, source.unread_columns
        numbers = itertools.count(secrets.randbits(20))
        batch: _Batch = {}
        for number, entry in enumerate(source.entries(now)):
            if progress is not None:
                progress(entry.size)
            if entry.pair is None or number in left_out:
                continue
            batch[entry.pair.creator_id] = (entry.line, entry.pair)
            if len(batch) >= self._batch:
                self._finish(batch, numbers, now, report, replace=replace, dry_run=dry_run)
                batch = {}
        self._finish(batch, numbers, now, report, replace=replace, dry_run=dry_run)

    def _finish(
        self,
        batch: _Batch,
        numbers: Iterator[int],
        now: datetime,
        report: ImportReport,
        *,
        replace: bool,
        dry_run: bool,
    ) -> None:
        consents = [self._consent(pair, next(numbers), now) for _, pair in batch.values()]

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            _, pair = batch[item.creator_id]
            place = PairPlace(item.creator_id, consent, generation)
            return self._sealer.seal_pair(pair.access_token, pair.refresh_token, place)

        def compare(item: NewConsent, current: int, versions: Sequence[PairVersion]) -> Likeness:
            return self._likeness(batch[item.creator_id][1], current, versions)

        if dry_run:
            results = self._store.judge_consents(consents, compare, replace=replace)
        else:
            results = self._store.save_consents(consents, seal, replace=replace, compare=compare)
        for (line, pair), result in zip(batch.values(), results, strict=True):
            what, reason = RESULTS[result]
            report.add(what, reason, line)
            if what in {"new", "replaced"}:
                report.unknown_age += not pair.age_known
                report.unknown_life += not pair.life_known
                report.unusual += not pair.usual
                report.zoneless += pair.zoneless

    def _likeness(self, pair: ImportedPair, current: int, versions: Sequence[PairVersion]) -> Likeness:
        kin = earlier = False
        for version in versions:
            place = PairPlace(pair.creator_id, version.consent, version.generation)
            try:
                if self._sealer.open_refresh(version.sealed, place) != pair.refresh_token:
                    continue
                if version.generation != current:
                    earlier = True
                elif self._sealer.open_access(version.sealed, place) == pair.access_token:
                    return Likeness.SAME
                else:
                    kin = True
            except SealError:  # it cannot be compared; using it raises the grant's alarm
                continue
        return Likeness.KIN if kin else Likeness.EARLIER if earlier else Likeness.OTHER

    def _consent(self, pair: ImportedPair, number: int, now: datetime) -> NewConsent:
        jitter = draw_jitter(number)
        if pair.age_known:
            planned = first_refresh(
                issued_at=pair.issued_at,
                expires_at=pair.access_expires_at,
                now=now,
                renew_at=self._renew_at,
                jitter=jitter,
            ).at
        else:
            planned = now + (pair.access_expires_at - now) * UNKNOWN_AGE_SHARE * jitter
        return NewConsent(
            creator_id=pair.creator_id,
            scope=pair.scope,
            issued_at=pair.issued_at,
            access_expires_at=pair.access_expires_at,
            refresh_expires_at=pair.refresh_expires_at,
            next_refresh_at=planned,
            jitter=jitter,
            dated=pair.dated,
            unproven=True,
            reference=pair.reference,
        )


class _LongNumbers:
    """The ids of a file that are long numbers, and those among them that a spreadsheet may have rounded."""

    def __init__(self) -> None:
        self._count = 0
        self._rounded: list[tuple[int, int]] = []

    def look(self, number: int, line: int, creator_id: str) -> None:
        """Look at an entry's id."""
        self._count += creator_ids.is_long_number(creator_id)
        if creator_ids.may_be_rounded(creator_id):
            self._rounded.append((number, line))

    def leave_out(self, report: ImportReport) -> set[int]:
        """Report entries whose ids were rounded and return their numbers: none, if that may be chance."""
        if len(self._rounded) <= LEAST_ROUNDED + ROUNDED_BY_CHANCE * self._count:
            return set()
        for _, line in self._rounded:
            report.add("bad", ROUNDED, line)
        return {number for number, _ in self._rounded}


def _choose(source: Source, now: datetime, report: ImportReport, progress: Callable[[int], None] | None) -> set[int]:
    """Read a file, report what is wrong with its entries, and return the numbers of those that are left out."""
    creators: dict[int, list[_Seen]] = {}
    first_with: dict[int, tuple[int, int]] = {}
    shared: set[int] = set()
    numbers = _LongNumbers()
    for number, entry in enumerate(source.entries(now)):
        if progress is not None:
            progress(entry.size)
        if entry.blank:
            continue
        report.lines += 1
        if entry.pair is None:
            report.add("bad", entry.fault or "", entry.line)
            continue
        numbers.look(number, entry.line, entry.pair.creator_id)
        seen = _remember(number, entry.line, entry.pair)
        creator = hash(entry.pair.creator_id)
        creators.setdefault(creator, []).append(seen)
        for token in (seen.refresh, seen.access):
            other, its_number = first_with.setdefault(token, (creator, number))
            if other != creator:
                shared |= {number, its_number}
    left_out = numbers.leave_out(report)
    for lines in creators.values():
        for seen, what, reason in _left_out([seen for seen in lines if seen.number not in left_out], shared):
            report.add(what, reason, seen.line)
            left_out.add(seen.number)
    return left_out


def _remember(number: int, line: int, pair: ImportedPair) -> _Seen:
    return _Seen(
        number,
        line,
        hash(pair.refresh_token.reveal()),
        hash(pair.access_token.reveal()),
        round(pair.issued_at.timestamp() * 1000) if pair.dated else None,
    )


def _left_out(lines: list[_Seen], shared: set[int]) -> Iterator[tuple[_Seen, What, str]]:
    """Yield a creator's entries that are left out, each with its reason; the order in the file does not matter."""
    for seen in lines:
        if seen.number in shared:
            yield seen, "bad", SHARED
    lines = [seen for seen in lines if seen.number not in shared]
    if len(lines) <= 1:
        return
    dates: dict[tuple[int, int], int | None] = {}
    for seen in lines:
        pair = (seen.refresh, seen.access)
        known = [at for at in (dates.get(pair), seen.issued) if at is not None]
        dates[pair] = max(known, default=None)
    newest = max((at for at in dates.values() if at is not None), default=None)
    best = [pair for pair, at in dates.items() if at == newest]
    if len(dates) > 1 and (None in dates.values() or len(best) > 1):
        for seen in lines:
            yield seen, "bad", UNCLEAR
        return
    kept = next(seen for seen in lines if (seen.refresh, seen.access) == best[0] and seen.issued == newest)
    for seen in lines:
        if seen is not kept:
            yield seen, "skipped", TWICE if (seen.refresh, seen.access) == best[0] else OUTDATED
