"""What `doctor` checks of our own: settings, database, clock, keys, journal, grants, brake and notices."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal

from worker.cli import output
from worker.cli.grants_pause import named_pause
from worker.errors import ConfigurationError, EvertokenError, StoreRefusedError, StoreUnavailableError
from worker.policy.notice_kinds import KINDS, NEWS, type_of
from worker.policy.verdicts import BRAKE_WINDOW
from worker.store.faults import KEPT_WAITING
from worker.upkeep.idleness import IDLE_SECONDS

if TYPE_CHECKING:
    from worker.services import Services

State = Literal["ok", "warn", "fail", "skip"]
CLOCK_WARN_SECONDS: Final = 2.0
CLOCK_FAIL_SECONDS: Final = 60.0
NEED_DATABASE: Final = frozenset({
    "rights", "clock", "keyring", "brake", "shortage", "grants", "pauses", "endings", "contract", "capacity", "notices",
    "accounts", "beat",
})  # fmt: skip
BUSY: Final = KEPT_WAITING.partition(":")[0]
"""How the error begins of a database that kept a transaction waiting: it would keep the next one waiting as long."""
NAMED_PAUSES: Final = 5
RECENT_SECONDS: Final = 86_400.0
CONTESTED_CREATORS: Final = 100
CONTRACT_NEWS: Final = timedelta(days=7)
FEW_RIGHTS: Final = 3
SEEN_SECONDS: Final = 120.0
"""A process that ended without a word is taken for a living one for this time."""
SPACE_WARN_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: what was checked.
        state: `fail` makes the doctor exit with a status other than 0.
        detail: what was found, and what to do.
        bad_setting: True if a setting, such as the keyring, is wrong: nothing starts with it.
        hides: later checks that would blame something else for the same cause.
    """

    check: str
    state: State
    detail: str
    bad_setting: bool = False
    hides: frozenset[str] = frozenset()


def guarded(check: str, look: Callable[[], Finding]) -> Finding:
    """Run one check; an error in it becomes its finding, and the other checks go on."""
    try:
        return look()
    except StoreUnavailableError as error:
        refused = isinstance(error, StoreRefusedError) and not str(error).startswith(BUSY)
        return Finding(check, "fail", str(error), hides=frozenset() if refused else NEED_DATABASE)
    except EvertokenError as error:
        return Finding(check, "fail", str(error), bad_setting=isinstance(error, ConfigurationError))
    except Exception as error:  # noqa: BLE001 - a foreign library's text may hold an address with its password
        return Finding(check, "fail", f"did not answer ({type(error).__name__})")


def inner_checks(services: Services) -> Iterator[tuple[str, Callable[[], Finding]]]:
    """Yield the name and function of each check; the caller runs them."""
    yield "database", lambda: database(services)
    yield "rights", lambda: rights(services)
    yield "clock", lambda: clock(services)
    yield "keyring", lambda: keyring(services)
    yield "journal", lambda: journal(services)
    yield "brake", lambda: brake(services)
    yield "shortage", lambda: shortage(services)
    yield "grants", lambda: grants(services)
    yield "pauses", lambda: pauses(services)
    yield "endings", lambda: endings(services)
    yield "contract", lambda: contract(services)
    yield "capacity", lambda: capacity(services)
    yield "notices", lambda: notices(services)
    yield "accounts", lambda: accounts(services)


def capacity(services: Services) -> Finding:
    """Check that the quota carries the fleet with room to spare, with one pull after each refresh."""
    from worker.planning.capacity import WANTED_HEADROOM  # noqa: PLC0415 - Celery loads the doctor on every start

    plan = services.headroom.plan()
    state: State = "ok" if plan.headroom >= WANTED_HEADROOM else "warn" if plan.fits else "fail"
    return Finding("capacity", state, plan.sentence)


def version() -> Finding:
    """Name the versions that run here, so that a report contains them."""
    try:
        ours = metadata.version("evertoken")
    except metadata.PackageNotFoundError:
        return Finding("version", "warn", "Evertoken is not installed as a package, so its version is not known")
    return Finding(
        "version", "ok", f"Evertoken {ours}, Celery {metadata.version('celery')}, Python {platform.python_version()}"
    )


def database(services: Services) -> Finding:
    """Check that the database answers and that this version runs on its tables."""
    services.store.ping()
    state = services.store.schema_state()
    hides = frozenset[str]() if state.runs else NEED_DATABASE
    text = f"answers; {state}" if state.runs else str(state)
    if services.settings.namespace is not None:
        text += f"; looked for the namespace {services.settings.namespace}"
    if state.runs and (others := _other_namespaces(services)):
        names = " and ".join(f"the namespace {name}" if name else "no namespace" for name in others)
        cure = "each needs tables of its own: docs/operations.md, Several installations side by side"
        text = f"processes of an installation with {names} work on these tables too; {cure}"
        return Finding("database", "fail", text, hides=NEED_DATABASE)
    return Finding("database", "ok" if state.runs else "fail", text, hides=hides)


def _other_namespaces(services: Services) -> list[str]:
    """Return the namespaces of living processes on these tables that are not ours; empty for none."""
    ours = services.settings.namespace or ""
    found = {worker.namespace for worker in services.store.workers_seen(SEEN_SECONDS)}
    return sorted(name for name in found if name is not None and name != ours)


def rights(services: Services) -> Finding:
    """Check that our role may do what a worker does, and change no table."""
    found = services.store.rights()
    if found is None:
        return Finding("rights", "ok", "those of the SQLite file")
    if found.lacking:
        few = ", ".join(found.lacking[:FEW_RIGHTS])
        cure = "let the owner of the tables run what `evertoken db roles` prints"
        return Finding(
            "rights", "fail", f"role {found.role} lacks {output.counted(len(found.lacking), 'right')}: {few}; {cure}"
        )
    if found.changes_tables:
        cure = "give workers a role that may not: docs/operations.md, Roles of PostgreSQL"
        return Finding("rights", "warn", f"role {found.role} may change tables; {cure}")
    return Finding("rights", "ok", f"role {found.role} may change rows, and no table")


def clock(services: Services) -> Finding:
    """Compare this host's clock with the database's, whose time counts."""
    before = datetime.now(UTC)
    there = services.store.ping()
    after = datetime.now(UTC)
    apart = abs((there - (before + (after - before) / 2)).total_seconds())
    text = f"this host is {apart:.1f} s away from the database"
    if apart > CLOCK_FAIL_SECONDS:
        return Finding("clock", "fail", f"{text}: set the clocks")
    return Finding("clock", "warn" if apart > CLOCK_WARN_SECONDS else "ok", text)


def keyring(services: Services) -> Finding:
    """Check that the keyring opens what each key in use has sealed."""
    from worker.cli.key_use import DIRECT, key_rows  # noqa: PLC0415 - Celery loads the doctor on every start
    from worker.upkeep.preflight import FOR_READERS  # noqa: PLC0415 - as above

    if services.keyring.for_readers:
        return Finding("keyring", "fail", FOR_READERS)
    rows, _ = key_rows(services)
    closed = [row for row in rows if row.opens is False]
    if closed:
        detail = "; ".join(f"key {row.key_id}: {row.remark}, {row.pairs} pairs" for row in closed)
        return Finding("keyring", "fail", f"{detail}; docs/runbook/keys-lost.md")
    sealed = sum(row.pairs for row in rows)
    many = f"{output.counted(len(rows), 'key')}, {output.counted(sealed, 'pair')}"
    opened = f"active key {services.keyring.active}; opens all of {many}"
    if services.keyring.active in services.keyring.direct:
        return Finding("keyring", "warn", f"{opened}; {DIRECT}")
    return Finding("keyring", "ok", opened)


def journal(services: Services) -> Finding:
    """Check that the journal can be written, what disk it is on, and how many answers are in it."""
    folder = services.settings.journal_dir
    if not services.journal.probe():
        return Finding("journal", "ok", f"{folder} is not there yet, and the first worker on this host makes it")
    free = shutil.disk_usage(folder).free
    text = f"{folder} can be written, {free // 1024 // 1024} MiB free, {services.journal.waiting()} answers in it"
    warnings = services.journal.warnings()
    if free < SPACE_WARN_BYTES:
        warnings.append("free some space")
    return Finding("journal", "warn" if warnings else "ok", "; ".join([text, *warnings]))


def brake(services: Services) -> Finding:
    """Check whether refreshing is stopped for the whole app, and whether creators are asked to authorize."""
    state = services.store.brake()
    if state.stopped:
        since = f"refreshing has been stopped since {output.moment(state.stopped_at)} UTC: {state.reason}"
        go_on = "remove the cause (docs/runbook/app.stopped.md); probes go out, and the first good answer ends the stop"
        return Finding("brake", "fail", f"{since}; {go_on}")
    if state.held_reason is not None:
        since = f"no creator has been asked to authorize since {output.moment(state.held_at)} UTC: {state.held_reason}"
        return Finding("brake", "fail", f"{since}; docs/runbook/refusals.held.md has the steps")
    return Finding("brake", "ok", "off: refreshing goes on")


def shortage(services: Services) -> Finding:
    """Look for refreshes of the last minutes that a host of ours was too short of descriptors or memory to send."""
    short = services.store.evidence(window_seconds=BRAKE_WINDOW.total_seconds()).short
    if not short:
        return Finding("shortage", "ok", "no refresh of the last five minutes lacked a file descriptor or memory")
    lacks = "a worker's host has no file descriptor or memory left; its log has the lines host.short"
    return Finding("shortage", "fail", f"{short} refreshes of the last five minutes were not sent: {lacks}")


def grants(services: Services) -> Finding:
    """Look for grants that are in trouble."""
    fleet = services.store.fleet_status()
    text = (
        f"{output.counted(fleet.total, 'grant')}: {fleet.fresh} fresh, {fleet.due} due, {fleet.overdue} overdue, "
        f"{fleet.expired} expired, {fleet.retrying} to be retried, {fleet.in_doubt} in doubt, "
        f"{fleet.needs_reauth} to authorize again, {fleet.held} with another creator's pair"
    )
    if fleet.aside:
        text += (
            f"; for {output.counted(fleet.aside, 'grant')} an answer that may hold the new pair is kept aside: `grants "
            "list --status aside` names them, `grants explain CREATOR` says what to do"
        )
    others = services.store.of_other_apps()
    for app_id, count in others.items():
        text += (
            f"; {count} more belong to app {app_id} and nobody refreshes them: is EVERTOKEN_TIKTOK_APP_ID right? "
            "If it is, their creators have to authorize again"
        )
    late = fleet.oldest_due_seconds > IDLE_SECONDS
    if late:
        text += f"; the grant that waits longest has been due for {fleet.oldest_due_seconds / 60:.0f} minutes"
    if fleet.expired:
        return Finding("grants", "fail", text)
    for_people = fleet.needs_reauth or fleet.held or fleet.aside
    troubled = late or others or fleet.overdue or fleet.retrying or fleet.in_doubt or for_people
    return Finding("grants", "warn" if troubled else "ok", text)


def pauses(services: Services) -> Finding:
    """Look for grants that a person has paused: nothing but `resume` keeps their tokens alive."""
    rules = services.store.pauses()
    if not rules:
        return Finding("pauses", "ok", "nothing is paused")
    fleet = services.store.fleet_status()
    named = ", ".join(named_pause(each) for each in rules[:NAMED_PAUSES])
    more = f" and {len(rules) - NAMED_PAUSES} more" if len(rules) > NAMED_PAUSES else ""
    text = (
        f"{output.counted(fleet.paused, 'grant')} paused, the first since {output.moment(rules[0].paused_at)} UTC "
        f"({named}{more})"
    )
    if fleet.paused:
        end = output.until(fleet.paused_seconds_left, future="ends in {}", past="ended {} ago")
        text += f"; their tokens will end, and the first {end}"
    return Finding("pauses", "warn", f"{text}: `evertoken grants resume`; docs/runbook/grants-paused.md")


def endings(services: Services) -> Finding:
    """Look for creators who were revoked or are to be forgotten, and are not yet altogether."""
    waiting = services.store.endings_waiting()
    if waiting.oldest_at is None:
        return Finding("endings", "ok", "every revoked grant is revoked at TikTok too, and wiped")
    found = [
        f"{output.counted(count, 'creator')} {what}"
        for count, what in (
            (waiting.revoking, "revoked here, and TikTok has not confirmed"),
            (waiting.forgetting, "not forgotten altogether"),
        )
        if count
    ]
    since = f"{'; '.join(found)}, the longest since {output.moment(waiting.oldest_at)} UTC"
    return Finding("endings", "warn", f"{since}: workers go on by themselves; docs/runbook/grant.revoked.md")


def contract(services: Services) -> Finding:
    """Compare TikTok's contract with what it was a week ago."""
    from worker.policy.contract import ACCESS_LIFE, change_of  # noqa: PLC0415 - Celery loads the doctor on every start

    terms, now = services.store.terms(), services.store.ping()
    if not terms:
        return Finding("contract", "ok", "no refresh has shown it yet")
    news = [
        f"{change_of(name, view.before, view.term.value).told} (since {output.moment(view.changed_at)} UTC)"
        for name, view in sorted(terms.items())
        if view.changed_at is not None and view.before is not None and now - view.changed_at < CONTRACT_NEWS
    ]
    if news:
        return Finding("contract", "warn", f"{'; '.join(news)}; docs/runbook/contract.changed.md")
    life = terms[ACCESS_LIFE].term.value if ACCESS_LIFE in terms else "?"
    return Finding("contract", "ok", f"as known, in {output.counted(len(terms), 'term')}; access tokens live {life} s")


def notices(services: Services) -> Finding:
    """Look for notices that are not delivered yet."""
    addresses = services.settings.notice_addresses
    states = services.store.receivers([address.name for address in addresses])
    found = [
        f"{name} answered 410 Gone at {output.moment(state.disabled_at)} UTC and gets nothing: take it out of "
        f"EVERTOKEN_NOTICE_URL, or run `evertoken notices enable {name}`"
        for name, state in states.items()
        if state.disabled_at is not None
    ]
    gone = bool(found)
    found += [
        f"{output.counted(state.waiting, 'notice')} for {name}, the oldest of {output.moment(state.oldest_at)} UTC"
        for name, state in states.items()
        if state.waiting and state.disabled_at is None
    ]
    without = frozenset[str]() if addresses else NEWS
    oldest = services.store.undelivered_notices(1, without=without)
    if oldest:
        waiting, kind = services.store.undelivered_count(without=without), type_of(oldest[0].kind)
        where = "" if addresses else "; EVERTOKEN_NOTICE_URL is not set, so they wait here"
        found.append(f"{waiting} reached nobody yet, the oldest is {kind}: {oldest[0].detail}{where}")
    remark = ""
    if addresses and all(address.kinds is not None for address in addresses):
        unwanted = KINDS.keys() - frozenset[str]().union(*(address.kinds or () for address in addresses))
        if unwanted:
            remark = f"; no address gets {', '.join(sorted(type_of(kind) for kind in unwanted))}"
    if not addresses and not oldest:
        found.append(
            "EVERTOKEN_NOTICE_URL is not set, so nobody is told that a creator has to authorize again, or that "
            "refreshing has stopped: docs/notices.md"
        )
    state: State = "fail" if gone else "warn" if found else "ok"
    return Finding("notices", state, ("; ".join(found) or "all delivered") + remark)


def accounts(services: Services) -> Finding:
    """Check that account data is up to date, that nothing odd came, and what the contested figures mean."""
    from worker.policy import readings  # noqa: PLC0415 - Celery loads the doctor on every start

    found = [
        f"{late.resource} waits for {output.counted(late.creators, 'creator')}, the longest since "
        f"{output.moment(late.oldest_at)} UTC"
        + (
            f"; its last try failed for {late.failing}: `evertoken grants show CREATOR` says why"
            if late.failing
            else ""
        )
        for late in services.late_pulls()
    ]
    if found:
        found.append("the quota may be short: `evertoken capacity` shows what each resource costs")
    kinds, creators = services.store.doubts_since(seconds=RECENT_SECONDS)
    if kinds:
        found.append(
            f"{output.counted(kinds, 'kind')} of odd values of {output.counted(creators, 'creator')} went into "
            "quarantine in the last day: docs/data.md, Quarantine"
        )
    daily = services.store.contested(creators=CONTESTED_CREATORS)
    meanings = {
        "followers_count of a day": readings.meaning_of_total([(row[0], row[2], row[3], row[4]) for row in daily]),
        "daily_total_followers": readings.meaning_of_total([(row[1], row[2], row[3], row[4]) for row in daily]),
    }
    remarks = [f"{name} reads as {meaning}" for name, meaning in meanings.items() if daily]
    remarks += [
        f"{' and '.join(names)} only of creators who granted {scope}, which EVERTOKEN_TIKTOK_SCOPES does not ask for"
        for scope, names in services.scopes_not_asked.items()
    ]
    text = "; ".join(found) or "up to date, nothing odd in the last day"
    return Finding("accounts", "warn" if found else "ok", "; ".join([text, *remarks]))
