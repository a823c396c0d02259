"""When each resource of a creator is read, and when the next pull is wanted; every decision is pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Final

from worker.accounts.resources import ACCOUNT, BENCHMARK, VIDEOS, Resource
from worker.policy import readings
from worker.store import EVERYTHING, AccountState, Narrowed, Progress

DAYS: Final = "days:"
"""Beginning of the field of a narrowing that holds the longest span of days that TikTok takes."""
JUST_READ: Final = timedelta(minutes=10)
"""A pull that goes on after a pause does not read the account again within this time."""
STALE_PASS: Final = timedelta(days=2)
"""A pass begins again if it was left alone for longer; one that goes on day by day may take any time."""
SOON: Final = timedelta(hours=1)
"""When the rest of a list is read that was longer than the budget of one pull, and what TikTok answered in part."""
MOST_LOOKS: Final = 4
"""Readings of one UTC day that ask for another one soon for the sake of a day that TikTok no longer gives tomorrow."""
LACKS: Final = "something in the answers could not be read: see the quarantine"
READ_SOON: Final = f"{LACKS}; it is read again soon"
LEAST: Final = timedelta(minutes=5)
"""The shortest pause before what TikTok answered in part is asked for again, however near the end of the day is."""


@dataclass(frozen=True)
class Choice:
    """What the operator has chosen.

    Attributes:
        resources: names of the resources that are pulled.
        categories: categories of the benchmark.
        budget: most requests for one creator and UTC day.
        pull_seconds: longest time between two pulls; None for the schedule alone.
    """

    resources: frozenset[str]
    categories: tuple[str, ...]
    budget: int
    pull_seconds: float | None


def chosen(resources: Iterable[Resource], choice: Choice) -> list[Resource]:
    """Return the resources that the operator has chosen; the account is always one of them."""
    return [
        resource
        for resource in resources
        if resource.name in choice.resources or resource is ACCOUNT or (resource is BENCHMARK and choice.categories)
    ]


def allowed(
    resources: Iterable[Resource], choice: Choice, *, scopes: Collection[str], narrowed: Collection[Narrowed]
) -> list[Resource]:
    """Return the resources that are chosen and that the creator's scopes allow, the most important first."""
    refused = {each.resource for each in narrowed if each.field == EVERYTHING and each.fresh}
    return [
        resource
        for resource in chosen(resources, choice)
        if (resource.needs is None or resource.needs in scopes) and resource.name not in refused
    ]


def due(resources: Iterable[Resource], state: AccountState, *, wanted_at: datetime) -> list[Resource]:
    """Return the resources to read now, the most important first.

    The account is read whenever somebody wants a pull, such as a refresh. A pull that this schedule planned for another
    resource, or that goes on with one, reads that one alone.

    Args:
        resources: those that are allowed.
        state: what is known of the creator.
        wanted_at: the time for which the pull was wanted.
    """
    resources = list(resources)
    others = [
        progress
        for resource in resources
        if resource is not ACCOUNT and (progress := state.progress.get(resource.name)) is not None
    ]
    account = state.progress.get(ACCOUNT.name, Progress(ACCOUNT.name))
    read_at, next_at = account.finished_at, account.next_at
    goes_on = any(other.is_open and _is_time(other.next_at, state) for other in others)
    rests = (
        read_at is not None
        and next_at is not None
        and next_at > state.now
        and (any(other.next_at == wanted_at for other in others) or (goes_on and state.now - read_at <= JUST_READ))
    )
    return [
        resource
        for resource in resources
        if (not rests if resource is ACCOUNT else _is_due(state.progress.get(resource.name), state))
    ]


def _is_due(progress: Progress | None, state: AccountState) -> bool:
    return progress is None or _is_time(progress.next_at, state)


def _is_time(at: datetime | None, state: AccountState) -> bool:
    return at is None or at <= state.now


def begin(resource: Resource, state: AccountState) -> Progress:
    """Return the progress of a pass that goes on where it was cut off, or of a new one."""
    known = state.progress.get(resource.name, Progress(resource.name))
    since = max((at for at in (known.started_at, known.next_at) if at is not None), default=state.now)
    if known.is_open and state.now - since <= STALE_PASS:
        return known
    whole = readings.reads_whole_list(known.whole_at, now=state.now) and not _had_its_looks(resource, known, state.now)
    return replace(
        known, started_at=state.now, whole=whole, clean=True, target=None, cursor=None, pages=0, next_at=state.now
    )


def end(
    resource: Resource, progress: Progress, state: AccountState, *, newest: datetime | None, lacks: bool = False
) -> Progress:
    """Return the progress of a pass that is over.

    Args:
        resource: what was read.
        progress: the pass.
        state: what was known when the pull began.
        newest: when the creator's newest video was posted.
        lacks: True if something of a clean pass could not be read, for which nothing is asked for again soon.
    """
    pause = readings.video_pause(newest, now=state.now) if resource is VIDEOS else resource.every
    slot = readings.next_slot(state.now, anchor=state.first_read_at or state.now, pause=pause)
    return replace(
        progress,
        cursor=None,
        target=None,
        finished_at=state.now,
        whole_at=_whole_at(resource, progress, lacks=lacks),
        next_at=slot if progress.clean else min(slot, state.now + soon(state.now)),
        failures=0 if progress.clean else 1 + looks_today(progress, now=state.now),
        problem=_problem(progress, state.now, lacks=lacks),
    )


def _had_its_looks(resource: Resource, known: Progress, now: datetime) -> bool:
    """Return True if a whole list, which has many pages, was read on this UTC day and is not to be read again soon."""
    return resource is not ACCOUNT and known.whole and known.problem != READ_SOON and not is_first_today(known, now=now)


def _problem(progress: Progress, now: datetime, *, lacks: bool) -> str | None:
    if not progress.clean and is_first_today(progress, now=now):
        return READ_SOON
    return LACKS if lacks or not progress.clean else None


def is_first_today(progress: Progress, *, now: datetime) -> bool:
    """Return True if no pass before this one has ended on this UTC day: then it may ask for another one soon.

    More than one would be asked for every hour, where TikTok never sends something as it should.
    """
    return progress.finished_at is None or progress.finished_at.date() < now.date()


def looks_today(progress: Progress, *, now: datetime) -> int:
    """Return how many passes of this UTC day in a row have lacked something, or failed."""
    return 0 if is_first_today(progress, now=now) else progress.failures


def _whole_at(resource: Resource, progress: Progress, *, lacks: bool) -> datetime | None:
    """Return when all was read last, which a pass that lacked something leaves as it was: it is made again.

    The oldest day, and what TikTok gives of a video for some days only, may be gone on the next day. All days of an
    account cost one request as the last ones do, so they are asked for until they come. A list has many pages: it is
    read to its end on each day of a week, after which what TikTok gives for seven days is gone.
    """
    if not progress.whole or progress.started_at is None:
        return progress.whole_at
    if not lacks and progress.clean:
        return progress.started_at
    if resource is ACCOUNT:
        return progress.whole_at
    known = progress.whole_at or progress.started_at - timedelta(days=readings.AGAIN_DAYS)
    days = (progress.started_at.date() - known.date()).days
    return known if days < 2 * readings.AGAIN_DAYS else progress.started_at


def soon(now: datetime) -> timedelta:
    """Return when an answer that lacked something is asked for again: on the same UTC day while that lasts.

    Shares of the audience and readings are kept by the day of the pull, so what a day lacks no later day brings.
    """
    return max(min(SOON, (tomorrow(now) - now) / 2), LEAST)


def put_off(progress: Progress, *, until: datetime, problem: str, failed: bool) -> Progress:
    """Return the progress of a resource that could not be read; its pass stays open."""
    return replace(progress, next_at=until, problem=problem[:300], failures=progress.failures + int(failed))


def days_to_read(state: AccountState, progress: Progress) -> tuple[date, date]:
    """Return the first and the last day to ask for."""
    today = state.now.date()
    first = readings.first_day(today=today, whole=progress.whole, unsettled=state.unsettled, known=state.days)
    return first, today - timedelta(days=1)


def longest_span(narrowed: Collection[Narrowed]) -> int:
    """Return how many days TikTok takes in one request."""
    spans = [int(each.field.removeprefix(DAYS)) for each in narrowed if each.fresh and each.field.startswith(DAYS)]
    return min([readings.LOOK_BACK_DAYS, *spans])


def next_pull_at(
    resources: Iterable[Resource], progress: Mapping[str, Progress], choice: Choice, *, now: datetime
) -> datetime:
    """Return when the next pull is wanted: at the first resource that is due, or after the longest time of all."""
    times = [now + resource.every for resource in resources if resource.name not in progress]
    times += [
        max(now, at)
        for resource in resources
        if (known := progress.get(resource.name)) is not None and (at := known.next_at) is not None
    ]
    if choice.pull_seconds is not None:
        times.append(now + timedelta(seconds=choice.pull_seconds))
    return min(times, default=now + ACCOUNT.every)


def tomorrow(now: datetime) -> datetime:
    """Return the beginning of the next UTC day, when a new budget begins."""
    return datetime.combine(now.date() + timedelta(days=1), time.min, tzinfo=now.tzinfo)
