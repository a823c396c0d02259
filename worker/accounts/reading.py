"""Reading one creator: one request after the other, each answer cleaned and stored before the next is asked for.

A pass over a list may be cut off at any page. Its progress is stored with the page, in the same transaction, so the
next pull goes on with the page after it.

One idea: the request, its answer, its page in the tables, and when the resource comes again are one step of a reading.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from worker.accounts import narrowing, schedule
from worker.accounts.cleaning import Cleaned, Cleaner, without_odd
from worker.accounts.resources import ACCOUNT, BENCHMARK, COMMENTS, VIDEOS, Paging, Resource
from worker.errors import EvertokenError, GiveUpError, StopEveryoneError, TikTokError
from worker.ground import Ground
from worker.policy import readings
from worker.store import EVERYTHING, AccountPage, AccountState, Doubt, PageSaved, Progress, PullClaim
from worker.telemetry import Fact, FactValue
from worker.tiktok import ReadAnswer
from worker.vault import Token

ASK_AGAIN: Final = timedelta(days=7)
"""How long a refused field is left out."""
SNAPSHOT_DAYS: Final = 7
"""A snapshot holds the days that a pull without dates would bring, as it always did."""
COMMENT_DAYS: Final = 365
TARGETS: Final = 200
"""Videos or comments that one pull reads the comments or replies of."""
FULL_DAYS: Final = 1
SECOND_LOOK: Final = "most videos were missing from the list: it is read again before they count as vanished"

Parameters = dict[str, "str | int | list[str]"]


class NoPermitError(Exception):
    """The quota gives no permit soon enough; `seconds` until one is likely."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no permit for {seconds:.0f} s")
        self.seconds = seconds


class BudgetSpentError(Exception):
    """The creator's requests of this day, or the resource's of this pull, are spent."""


class LeaseLostError(Exception):
    """Another worker has the pull by now, or the grant was revoked."""


class InterruptedVisitError(Exception):
    """The process ends: no further request is sent; the pages so far are stored."""


class ListCutOffError(EvertokenError):
    """TikTok does not say how a list goes on, or whether it ends; what it held so far is stored."""


class EmptyAnswerError(EvertokenError):
    """TikTok answered with success, and without what was asked for."""


class Visit:
    """The reading of one creator by one pull.

    Attributes:
        progress: how each resource stands by now.
        refused: resources that TikTok refuses this creator altogether.
        requests: requests that were sent.
        waits_until: when what is left may be read; None while nothing stops it.
    """

    def __init__(
        self,
        ground: Ground,
        *,
        claim: PullClaim,
        token: Token,
        state: AccountState,
        choice: schedule.Choice,
        lease_seconds: float,
        snapshots: int,
        keeps_answers: bool,
        patience_seconds: float,
        has_permit: bool,
    ) -> None:
        """Keep the arguments.

        Args:
            ground: what all use cases share.
            claim: the claim of the pull.
            token: the creator's access token.
            state: what is known of the creator.
            choice: what is pulled, and how much.
            lease_seconds: how long the lease lasts after each page.
            snapshots: snapshots kept for each creator.
            keeps_answers: True to keep raw answers.
            patience_seconds: how long to wait for a permit.
            has_permit: True if a permit for the call of the account was taken already.
        """
        self._ground = ground
        self._token = token
        self._choice = choice
        self._lease_seconds = lease_seconds
        self._snapshots = snapshots
        self._keeps_answers = keeps_answers
        self._patience_seconds = patience_seconds
        self._has_permit = has_permit
        self.claim = claim
        self.state = state
        self.scopes = frozenset(scope for scope in claim.pair.scope.split(",") if scope)
        self.progress = dict(state.progress)
        self.refused: set[str] = set()
        self.waits_until: datetime | None = None
        self.requests = self.pages = self.rows = self.doubts = self.corrections = self.fields = 0
        self.request_id: str | None = None
        self._newest = state.newest_video
        self._of_resource = self._uncounted = 0
        self._left_out: dict[str, set[str]] = {}
        for each in state.narrowed:
            if each.fresh:
                self._left_out.setdefault(each.resource, set()).add(each.field)

    def read(self, resource: Resource) -> None:
        """Read a resource to the end of its pass.

        Raises:
            NoPermitError, BudgetSpentError, LeaseLostError, InterruptedVisitError: see the classes; the pages so far
                are stored.
            EmptyAnswerError: the answer lacks what was asked for.
            TikTokError: a request did not succeed.
            StoreUnavailableError: the database did not answer.
        """
        self._of_resource = 0
        progress = schedule.begin(resource, self.state)
        if resource is ACCOUNT:
            self._read_account(progress)
        elif resource is BENCHMARK:
            self._read_benchmark(progress)
        elif resource.per == "creator":
            self._read_list(resource, progress)
        else:
            self._read_targets(resource, progress)

    # What is read, one method each.

    def _read_account(self, progress: Progress) -> None:
        """Read profile, counters, audience and days, in as few requests as TikTok allows."""
        first, last = schedule.days_to_read(self.state, progress)
        all_days = first == self.state.now.date() - timedelta(days=readings.LOOK_BACK_DAYS)
        spans = readings.windows(first, last, schedule.longest_span(self.state.narrowed))
        lacks = False
        while spans:
            start, end = spans.pop(0)
            parameters: Parameters = {"start_date": start.isoformat(), "end_date": end.isoformat()}
            try:
                answer = self._ask(ACCOUNT, parameters)
            except StopEveryoneError as error:
                days = (end - start).days + 1
                if not narrowing.is_of_days(error) or days <= FULL_DAYS:
                    raise
                self._remember_span(days // 2, error)
                spans = [*readings.windows(start, end, days // 2), *spans]
                continue
            cleaned = self._clean(ACCOUNT, answer, days=(start, end))
            another_look = self._is_worth_another_look(cleaned, progress, all_=all_days)
            again = answer.partial or cleaned.in_part or another_look or self._is_last_chance(cleaned, progress, start)
            progress = replace(progress, clean=progress.clean and not again)
            lacks |= cleaned.is_lossy
            over = not spans and not cleaned.missing
            ended = schedule.end(ACCOUNT, progress, self.state, newest=None, lacks=lacks) if over else progress
            self._save(ACCOUNT, answer, cleaned, ended, snapshot=self._snapshot(answer.data) if over else None)
            if cleaned.missing:
                raise EmptyAnswerError("TikTok answered without the account's data")
            self.request_id, self.fields = answer.request_id, self.fields + len(answer.data)

    def _read_list(self, resource: Resource, progress: Progress) -> None:
        """Read a list page by page: to its end, or as far as the videos are young."""
        paging, lossy = _paging(resource), False
        while True:
            answer, cleaned, cursor = self._ask_page(resource, paging, progress, {})
            lossy |= cleaned.is_lossy
            whole_page = not cleaned.doubts or cleaned.items == sum(map(len, cleaned.rows.values()))
            another_look = self._is_worth_another_look(cleaned, progress, all_=progress.whole)
            again = answer.partial or not whole_page or another_look
            progress = replace(progress, pages=progress.pages + 1, clean=progress.clean and not again)
            if cleaned.missing:
                self._save(resource, answer, cleaned, progress)
                raise EmptyAnswerError("TikTok answered without a list")
            self._note_newest(resource, cleaned)
            if cut_off := self._cut_off(resource, paging, cleaned, cursor):
                self._save(resource, answer, cleaned, _from_the_top(progress))
                raise ListCutOffError(f"the list was cut off: {cut_off}")
            endless = bool(cleaned.has_more) and self._is_endless(resource, paging, cleaned, progress)
            progress = replace(progress, clean=progress.clean and not endless)
            at_end = not cleaned.has_more
            if at_end or endless or (not progress.whole and self._is_deep_enough(resource, cleaned)):
                vanish = resource is VIDEOS and at_end and progress.whole and progress.clean
                passed = progress if at_end or endless else replace(progress, whole=False)
                lacks = lossy and passed.whole
                ended = schedule.end(resource, passed, self.state, newest=self._newest, lacks=lacks)
                twice = progress.problem == SECOND_LOOK
                saved = self._save(resource, answer, cleaned, ended, vanish=vanish, seen_twice=twice)
                if saved.missing:
                    self._look_again(resource, progress, missing=saved.missing)
                return
            progress = replace(progress, cursor=str(cleaned.cursor))
            saved = self._save(resource, answer, cleaned, progress)
            progress = replace(progress, clean=saved.progress.clean)

    def _read_targets(self, resource: Resource, progress: Progress) -> None:
        """Read the comments of each video, or the replies to each comment, whose number has changed."""
        targets = self._targets(resource)
        if progress.target is not None and progress.target not in targets:
            targets.insert(0, progress.target)
        for target in targets:
            if progress.target != target:
                progress = replace(progress, target=target, cursor=None, pages=0)
            try:
                progress = self._read_target(resource, progress, target)
            except GiveUpError as error:
                if error.code == narrowing.SCOPE_NOT_GRANTED:
                    raise
                # This video or comment is gone, or closed: the others are not.
                progress = replace(progress, target=None, cursor=None)
                self._store(AccountPage(resource.call, progress, target_done=_id_of(target)))
        rest = len(targets) >= TARGETS
        ended = schedule.end(resource, progress, self.state, newest=None)
        ended = replace(ended, next_at=self.state.now + schedule.SOON) if rest else ended
        self._keep(ended)

    def _read_target(self, resource: Resource, progress: Progress, target: str) -> Progress:
        paging = _paging(resource)
        item_id, _, comment_id = target.partition("/")
        about: Parameters = {"video_id": item_id, "comment_id": comment_id} if comment_id else {"video_id": item_id}
        while True:
            answer, cleaned, cursor = self._ask_page(resource, paging, progress, about, target=target)
            progress = replace(progress, pages=progress.pages + 1)
            cut_off = self._cut_off(resource, paging, cleaned, cursor)
            if not cleaned.has_more or cut_off or self._is_endless(resource, paging, cleaned, progress):
                progress = replace(progress, target=None, cursor=None)
                # An answer without the list, or with a part of it, does not say that the rest was read.
                whole = not cleaned.missing and not answer.partial and not cleaned.in_part and not cut_off
                self._save(resource, answer, cleaned, progress, target_done=_id_of(target) if whole else None)
                return progress
            progress = replace(progress, cursor=str(cleaned.cursor))
            self._save(resource, answer, cleaned, progress)

    def _read_benchmark(self, progress: Progress) -> None:
        """Read each configured category that nobody has read today."""
        store = self._ground.store
        for category in self._choice.categories:
            name = f"{BENCHMARK.name}:{category}"[:40]
            # If this worker dies, another goes on with the pull when the lease has ended, and finds the category free.
            if not store.take_shared(name, until=self.claim.lease_until):
                continue
            shared = Progress(name, started_at=self.state.now, finished_at=self.state.now)
            try:
                answer = self._ask(BENCHMARK, {"business_category": category})
                cleaned = self._clean(BENCHMARK, answer, target=category)
                sure = not cleaned.missing and not cleaned.unsure and not answer.partial
                progress = replace(progress, clean=progress.clean and sure)
                self._save(BENCHMARK, answer, cleaned, progress)
            except Exception:  # whatever it was, another creator's pull may read the category
                store.save_shared(replace(shared, next_at=self.state.now))
                raise
            again = schedule.tomorrow(self.state.now) if sure else self.state.now + schedule.soon(self.state.now)
            store.save_shared(replace(shared, next_at=again))
        ended = schedule.end(BENCHMARK, progress, self.state, newest=None)
        self._keep(ended)

    # One request.

    def _ask_page(
        self, resource: Resource, paging: Paging, progress: Progress, about: Parameters, *, target: str | None = None
    ) -> tuple[ReadAnswer, Cleaned, int | None]:
        """Return a page, what is in it, and the cursor that it was asked with."""
        cursor = None if progress.cursor is None else int(progress.cursor)
        parameters: Parameters = {**resource.query, **about, "max_count": paging.size}
        if cursor is not None:
            parameters["cursor"] = cursor
        answer = self._ask(resource, parameters)
        return answer, self._clean(resource, answer, target=target), cursor

    def _ask(self, resource: Resource, parameters: Parameters) -> ReadAnswer:
        """Send a request with the fields that the creator grants; find out which one is refused, if one is."""
        left_out = self._left_out.get(resource.name, set())
        wanted = [*resource.base, *resource.fields_for(self.scopes)]
        fields = tuple(dict.fromkeys(name for name in wanted if name not in left_out))

        def send(names: tuple[str, ...]) -> ReadAnswer:
            return self._send(resource, parameters | ({"fields": list(names)} if names else {}))

        if not resource.base:
            return send(())
        asked = narrowing.ask(
            resource,
            fields,
            send,
            suspects=lambda: set(self._ground.store.refused_elsewhere(self.claim.pair.creator_id, resource.name)),
        )
        if asked.refused:
            self._remember_refused(resource, asked.refused)
        self._forget_granted(resource, asked.fields)
        return asked.answer

    def _send(self, resource: Resource, parameters: Parameters) -> ReadAnswer:
        if self._ground.stop.is_set():
            raise InterruptedVisitError
        if self.state.requests_today + self.requests >= self._choice.budget or self._of_resource >= resource.budget:
            raise BudgetSpentError
        if self._has_permit and resource is ACCOUNT:
            self._has_permit = False
            while wait := self._ground.limiter.depart():
                time.sleep(wait)
        elif wait := self._ground.limiter.admit(
            lane="pull",
            call=resource.call,
            account=str(self.claim.grant_id),
            patience_seconds=self._patience_seconds,
        ):
            raise NoPermitError(wait)
        self.requests += 1
        self._of_resource += 1
        self._uncounted += 1
        return self._ground.tiktok.read(self._token, resource.call, self.claim.pair.creator_id, parameters)

    def _clean(self, resource: Resource, answer: ReadAnswer, **how: Any) -> Cleaned:
        return Cleaner(resource, answer, creator_id=self.claim.pair.creator_id, now=self.state.now, **how).clean()

    # What is kept.

    def _save(
        self, resource: Resource, answer: ReadAnswer, cleaned: Cleaned, progress: Progress, **more: Any
    ) -> PageSaved:
        """Store a page with its progress."""
        saved = self._store(
            AccountPage(
                call=resource.call,
                progress=progress,
                rows=cleaned.rows,
                lists=cleaned.lists,
                doubts=cleaned.doubts,
                request_id=answer.request_id,
                raw=answer.raw,
                keeps_raw=self._keeps_answers or bool(cleaned.doubts),
                partial=answer.partial,
                unsure=cleaned.unsure,
                **more,
            )
        )
        if saved.doubts:
            self._report("pull.doubts", resource=resource.name, doubts=saved.doubts, level="warning")
        if answer.partial:
            self._report("pull.partial", resource=resource.name, request_id=answer.request_id, level="warning")
        return saved

    def _store(self, page: AccountPage) -> PageSaved:
        page, self._uncounted = replace(page, requests=self._uncounted), 0
        page.prepare()
        saved = self._ground.store.save_page(
            self.claim, page, lease_seconds=self._lease_seconds, snapshots=self._snapshots
        )
        if saved is None:
            raise LeaseLostError
        self.claim = saved.claim
        self.progress[page.progress.resource] = saved.progress
        self.pages += 1
        self.rows += saved.rows
        self.doubts += saved.doubts
        self.corrections += saved.corrections
        if saved.vanished:
            self._report("pull.videos_vanished", videos=saved.vanished)
        return saved

    def _keep(self, progress: Progress) -> None:
        """Store how a resource stands, without a page."""
        if not self._ground.store.save_progress(self.claim, progress, requests=self._uncounted):
            raise LeaseLostError
        self.progress[progress.resource], self._uncounted = progress, 0

    def _snapshot(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the fields as TikTok named them, with the days that a pull without dates would bring."""
        kept: dict[str, Any] = without_odd(data)
        if isinstance(days := kept.get("metrics"), list):
            since = (self.state.now.date() - timedelta(days=SNAPSHOT_DAYS)).isoformat()
            kept["metrics"] = [
                day for day in days if not isinstance(day, dict) or str(day.get("date", since))[:10] >= since
            ]
        return kept

    def _remember_refused(self, resource: Resource, refused: dict[str, int]) -> None:
        scopes = resource.scope_of()
        self._left_out.setdefault(resource.name, set()).update(refused)
        for code in set(refused.values()):
            fields = {name: scopes.get(name) for name, why in refused.items() if why == code}
            self._narrow(resource, fields, code=code)
            if code != narrowing.SCOPE_NOT_GRANTED:
                listed = ", ".join(sorted(fields))
                self._report("pull.fields_refused", resource=resource.name, code=code, fields=listed, level="warning")

    def _remember_span(self, days: int, error: TikTokError) -> None:
        self._narrow(ACCOUNT, {f"{schedule.DAYS}{days}": None}, code=error.code)
        self._report("pull.days_refused", days=days, code=error.code, level="warning")

    def _forget_granted(self, resource: Resource, fields: tuple[str, ...]) -> None:
        """Forget a refusal whose time is over, if TikTok gives the field again."""
        given = [
            each.field
            for each in self.state.narrowed
            if each.resource == resource.name and not each.fresh and each.field in fields
        ]
        if given:
            self._ground.store.widen(self.claim, resource.name, given)

    def refuse_if_scope_is_missing(self, resource: Resource, error: Exception) -> None:
        """Leave a resource out for some days if TikTok says that its scope was not granted."""
        if not isinstance(error, GiveUpError) or error.code != narrowing.SCOPE_NOT_GRANTED:
            return
        self._narrow(resource, {EVERYTHING: resource.needs}, code=error.code)
        self.refused.add(resource.name)

    def _narrow(self, resource: Resource, fields: dict[str, str | None], *, code: int | None) -> None:
        """Remember refused fields; if the creator took scopes back, report each, with one notice for each consent."""
        missing = code == narrowing.SCOPE_NOT_GRANTED
        scopes = sorted({scope for scope in fields.values() if scope is not None}) if missing else []
        lost = {
            scope: f"creator {self.claim.pair.creator_id} no longer grants {scope}, so {resource.name} is pulled "
            "without what needs it; a new authorization with that scope brings it back"
            for scope in scopes
        }
        again_at = self.state.now + ASK_AGAIN
        if not self._ground.store.narrow(self.claim, resource.name, fields, code=code, again_at=again_at, lost=lost):
            raise LeaseLostError
        for scope in scopes:
            self._report("pull.scope_missing", resource=resource.name, scope=scope, level="warning")

    # What waits.

    def put_off(
        self,
        resource: Resource,
        *,
        problem: str,
        seconds: float = 0.0,
        until: datetime | None = None,
        failed: bool = False,
    ) -> None:
        """Store that a resource is read later; its pass goes on where it is."""
        known = self.progress.get(resource.name, Progress(resource.name))
        until = until or self.state.now + timedelta(seconds=seconds)
        later = schedule.put_off(known, until=until, problem=problem, failed=failed)
        self._keep(later)

    def wait_for_others(self, resource: Resource) -> None:
        """Put a resource off because the quota is short: other creators' accounts go first."""
        self.put_off(resource, seconds=schedule.SOON.total_seconds(), problem="the quota is short: accounts go first")
        self._report("pull.waits", resource=resource.name)

    def wait_for_budget(self, resource: Resource) -> None:
        """Put a resource off until its budget is new: on the next day, or with the next pull."""
        of_day = self.state.requests_today + self.requests >= self._choice.budget
        until = schedule.tomorrow(self.state.now) if of_day else self.state.now + schedule.SOON
        if of_day:
            self.waits_until = until
        self.put_off(resource, until=until, problem="the budget of requests is spent")

    def failures(self, resource: Resource) -> int:
        """Return how often in a row a resource has failed."""
        return self.progress[resource.name].failures if resource.name in self.progress else 0

    # How a list ends.

    def _cut_off(self, resource: Resource, paging: Paging, cleaned: Cleaned, cursor: int | None) -> str | None:
        """Return why a list can neither go on nor be at its end; None if it can."""
        if cleaned.missing or cleaned.has_more is False:
            return None
        if cleaned.has_more is None:
            reason = "`has_more` is neither yes nor no"
        elif cleaned.cursor is None or not paging.moves(cursor, cleaned.cursor):
            reason = "a cursor that does not move"
            cleaned.doubts.append(Doubt("data.cursor", reason, str(cleaned.cursor)))
        else:
            return None
        self._report("pull.list_cut_off", resource=resource.name, reason=reason, level="warning")
        return reason

    def _is_endless(self, resource: Resource, paging: Paging, cleaned: Cleaned, progress: Progress) -> bool:
        """Return True if a list has as many pages as are read at most."""
        if progress.pages < paging.most_pages:
            return False
        reason = "a list without an end"
        cleaned.doubts.append(Doubt("data.cursor", reason, str(cleaned.cursor)))
        self._report("pull.list_cut_off", resource=resource.name, reason=reason, level="warning")
        return True

    def _is_worth_another_look(self, cleaned: Cleaned, progress: Progress, *, all_: bool) -> bool:
        """Return True if values could not be read that may be gone tomorrow: some of a pass as deep as TikTok gives."""
        return cleaned.is_lossy and all_ and schedule.is_first_today(progress, now=self.state.now)

    def _is_last_chance(self, cleaned: Cleaned, progress: Progress, start: date) -> bool:
        """Return True if a day could not be read that does not stand and is gone tomorrow, and more looks are left."""
        table, came = "account_days", {row["day"] for row in cleaned.rows.get("account_days", ())}
        return (
            self.state.now.date() - start == timedelta(days=readings.LOOK_BACK_DAYS)
            and start not in self.state.standing
            and ((table, (start,)) in cleaned.unsure or (cleaned.keyless > 0 and start not in came))
            and schedule.looks_today(progress, now=self.state.now) < schedule.MOST_LOOKS
        )

    def _look_again(self, resource: Resource, progress: Progress, *, missing: int) -> None:
        """Read a list again that has lost most of what it held: an outage may look like that for once."""
        again = replace(_from_the_top(progress), next_at=self.state.now + schedule.SOON, problem=SECOND_LOOK)
        self._keep(again)
        self._report("pull.list_shrunk", resource=resource.name, videos=missing, level="warning")

    def _is_deep_enough(self, resource: Resource, cleaned: Cleaned) -> bool:
        """Return True once nothing young can follow: the cursor is the time, in ms, at which the next page begins."""
        if resource is not VIDEOS or not cleaned.cursor:
            return False
        return cleaned.cursor < (self.state.now - timedelta(days=readings.YOUNG_DAYS)).timestamp() * 1000

    def _note_newest(self, resource: Resource, cleaned: Cleaned) -> None:
        if resource is VIDEOS:
            found = [row["created_at"] for row in cleaned.rows.get("videos", ()) if "created_at" in row]
            self._newest = max([*found, *([self._newest] if self._newest else [])], default=None)

    def _targets(self, resource: Resource) -> list[str]:
        creator = self.claim.pair.creator_id
        if resource is COMMENTS:
            since = self.state.now - timedelta(days=COMMENT_DAYS)
            return self._ground.store.videos_to_read_comments_of(creator, since=since, limit=TARGETS)
        pairs = self._ground.store.comments_to_read_replies_of(creator, limit=TARGETS)
        return [f"{item_id}/{comment_id}" for item_id, comment_id in pairs]

    def _report(self, name: str, *, level: str = "info", **fields: FactValue) -> None:
        ids: dict[str, FactValue] = {"grant_id": self.claim.grant_id, "creator_id": self.claim.pair.creator_id}
        self._ground.hook(Fact(name, ids | fields, level=level))


def _from_the_top(progress: Progress) -> Progress:
    """Return the progress of the same pass that begins again at the first page."""
    return replace(progress, cursor=None, pages=0, clean=True)


def _paging(resource: Resource) -> Paging:
    assert resource.paging is not None  # noqa: S101 - only lists come here
    return resource.paging


def _id_of(target: str) -> str:
    """Return the id of a target: of a video, or of a comment."""
    return target.rpartition("/")[2]
