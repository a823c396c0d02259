"""`celery -A worker grants refresh --where`: many grants are made due at once, by what people know of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from worker.cli import output
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.store import GrantFilter, Wish

SHOWN: Final = 20
"""Grants that the table names; `--json` has all."""
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST: Final = timedelta(days=36_500)
WRONG: Final = (
    "--where takes state=STATE, reference=REFERENCE, ends-within=TIME (such as 90m, 6h or 2d) or ends-before=INSTANT "
    "(ISO 8601, UTC unless it says otherwise), each once"
)
WHY: Final = {
    "ended": "need a new consent, were revoked, or hold another creator's pair",
    "paused": "paused",
    "under_way": "being refreshed right now",
    "failing": "failed before, and the time of their next attempt stays",
    "due": "due already",
}


def refresh_where(where: Sequence[str], *, limit: int, dry_run: bool, as_json: bool) -> None:
    """Make grants due, or with `dry_run` only print which.

    Raises:
        UsageError: a condition cannot be read.
    """
    which = _filter(where)
    with output.services() as services:
        store = services.store
        wish = store.wish(which, limit) if dry_run else store.request_refreshes(which, limit)
        rate = min(services.settings.quota_per_second, services.settings.quota_per_minute / 60)
    seconds = math.ceil(len(wish.chosen) / rate)
    if as_json:
        output.print_json(asdict(wish) | {"dry_run": dry_run, "seconds_of_quota": seconds})
        return
    _print(wish, seconds, dry_run=dry_run)


def _print(wish: Wish, seconds: int, *, dry_run: bool) -> None:
    many = output.counted(len(wish.chosen), "grant")
    done = f"nothing is changed; {many} would be made due" if dry_run else f"{many} made due"
    output.say(
        f"{wish.matching} match: {done}, about {output.span(float(seconds))} of the quota; "
        f"{wish.beyond_limit} beyond --limit"
    )
    for why, count in wish.left_out.items():
        output.say(f"left out: {output.counted(count, 'grant')} {WHY[why.value]}")
    if wish.chosen:
        output.print_table(
            ("id", "creator", "access token ends (UTC)"),
            [(each.grant_id, each.creator_id, each.access_expires_at) for each in wish.chosen[:SHOWN]],
        )
    if len(wish.chosen) > SHOWN:
        output.note(f"and {len(wish.chosen) - SHOWN} more; --json lists all")


def _filter(where: Sequence[str]) -> GrantFilter:
    from worker.store import GrantCondition, GrantFilter, GrantStatus  # noqa: PLC0415 - Celery loads this on every start

    given: dict[str, Any] = {}
    for text in where:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not value or name in given:
            raise UsageError(f"{WRONG}; this is none: {text}")
        given[name] = value
    state = given.pop("state", None)
    statuses, found = {each.value for each in GrantStatus}, {each.value for each in GrantCondition}
    if state is not None and state not in statuses | found:
        raise UsageError(f"--where state= takes {', '.join(sorted(statuses | found))}, and not {state}")
    within, before = given.pop("ends-within", None), given.pop("ends-before", None)
    reference = given.pop("reference", None)
    if given:
        raise UsageError(f"{WRONG}; this is none: {next(iter(given))}")
    return GrantFilter(
        status=GrantStatus(state) if state in statuses else None,
        condition=GrantCondition(state) if state in found else None,
        reference=reference,
        ends_before=None if before is None else _instant(before),
        ends_within=None if within is None else _span(within),
    )


def _instant(text: str) -> datetime:
    try:
        read = datetime.fromisoformat(text)
        return read.replace(tzinfo=read.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"--where ends-before= takes an instant such as 2027-01-31T18:00, and not {text}") from None


def _span(text: str) -> timedelta:
    read = re.fullmatch(r"(\d{1,9})([smhd])", text)
    span = timedelta(seconds=int(read[1]) * UNITS[read[2]]) if read else None
    if span is None or span > LONGEST:
        raise UsageError(f"--where ends-within= takes a time such as 90m, 6h or 2d, and not {text}")
    return span
