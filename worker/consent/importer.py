"""Importing existing tokens: a stream of JSON lines or CSV becomes grants, in batches and in bounded memory.

A bad line is told by its number and a reason that holds nothing of its content; the others are imported. Batches
that were stored stay stored when the import is interrupted: run it again, and known creators are skipped.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final

from worker.consent.import_fields import BadLineError, ImportedPair
from worker.consent.import_lines import Format, LineReader, numbered_lines
from worker.policy.renewal import draw_jitter, first_refresh
from worker.store import ConsentResult, NewConsent, Store
from worker.vault import PairPlace, SealedPair, Sealer

BATCH: Final = 500
NOT_REPLACED: Final = {
    ConsentResult.UNDATED: "the creator is known and the line does not tell when its pair was issued; add issued_at",
    ConsentResult.BUSY: "the creator is known and a refresh that may bring a newer pair is under way or in doubt; "
    "import this line again later",
}
"""Why a line with a known creator was refused although replacing was asked for."""
UNKNOWN_AGE_SHARE: Final = 1 / 8
"""Part of the life over which the first refreshes of tokens of unknown age are spread.

Such a token may end at any moment, so it is refreshed soon and not near the end that its file promises. An eighth of
24 hours is three hours: 100,000 grants then come at 9.3 a second, which TikTok's lowest tier of 10 carries.
"""


_Batch = dict[str, tuple[int, ImportedPair]]
"""Lines to be stored together: their numbers and pairs, by creator."""


@dataclass(frozen=True)
class BadLine:
    """A line that was not imported: its number, from 1, and why; nothing of its content."""

    line: int
    reason: str


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        lines: lines with content, a CSV's header not counted.
        created: grants that are new.
        replaced: known creators whose tokens were replaced.
        skipped: known creators that were left alone, and repeated lines of one creator.
        bad: lines that were refused.
        unknown_age: imported lines that told no issue time.
    """

    lines: int = 0
    created: int = 0
    replaced: int = 0
    skipped: int = 0
    bad: int = 0
    unknown_age: int = 0


class Importer:
    """Stores the tokens of a file as grants."""

    def __init__(self, *, store: Store, sealer: Sealer, renew_at: float, batch: int = BATCH) -> None:
        """Make one.

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
        stream: BinaryIO,
        *,
        report: ImportReport,
        on_bad: Callable[[BadLine], None],
        form: Format | None = None,
        replace: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Import a stream.

        Args:
            stream: the file's bytes, UTF-8.
            report: filled as the import goes, so that it is right after an interruption too.
            on_bad: told of each bad line at once.
            form: how to read the stream; None finds out from its first line.
            replace: True to replace the tokens of known creators, where the file's are surely newer than the stored
                ones. A line of a known creator is bad where that cannot be told.
            dry_run: True to check every line and store nothing; known creators are not looked up.
            progress: told the bytes read since the last call.

        Raises:
            UsageError: the stream as a whole cannot be read: a JSON array, a CSV without the needed columns.
            StoreUnavailableError: the database went away; what was stored before stays.
        """
        now = self._store.ping()
        reader = LineReader(form=form, now=now)
        numbers = itertools.count(secrets.randbits(20))
        batch: _Batch = {}
        for number, size, line in numbered_lines(stream):
            if progress is not None:
                progress(size)
            if line is not None and not line.strip():
                continue
            try:
                pair = reader.read(line)
            except BadLineError as error:
                report.lines += 1
                report.bad += 1
                on_bad(BadLine(number, str(error)))
                continue
            if pair is not None:
                report.lines += 1
                self._put(batch, number, pair, report, replace=replace)
            if len(batch) >= self._batch and not dry_run:
                self._save(batch, numbers, now, report, on_bad, replace=replace)
                batch = {}
        if batch and not dry_run:
            self._save(batch, numbers, now, report, on_bad, replace=replace)

    def _put(self, batch: _Batch, number: int, pair: ImportedPair, report: ImportReport, *, replace: bool) -> None:
        """Add a pair to the batch; of one creator's lines the first counts, or with `replace` the last."""
        report.unknown_age += not pair.age_known
        if pair.creator_id in batch:
            report.skipped += 1
            if not replace:
                return
        batch[pair.creator_id] = (number, pair)

    def _save(
        self,
        batch: _Batch,
        numbers: Iterator[int],
        now: datetime,
        report: ImportReport,
        on_bad: Callable[[BadLine], None],
        *,
        replace: bool,
    ) -> None:
        consents = [self._consent(pair, next(numbers), now) for _, pair in batch.values()]

        def seal(item: NewConsent, consent: int, generation: int) -> SealedPair:
            _, pair = batch[item.creator_id]
            place = PairPlace(item.creator_id, consent, generation)
            return self._sealer.seal_pair(pair.access_token, pair.refresh_token, place)

        results = self._store.save_consents(consents, seal, replace=replace, newer_only=True)
        for (line, _), result in zip(batch.values(), results, strict=True):
            report.created += result is ConsentResult.CREATED
            report.replaced += result is ConsentResult.REPLACED
            report.skipped += result is ConsentResult.SKIPPED
            if result in NOT_REPLACED:
                report.bad += 1
                on_bad(BadLine(line, NOT_REPLACED[result]))

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
        )
