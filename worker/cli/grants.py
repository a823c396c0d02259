"""`celery -A worker grants`: look at creators' grants, and act on them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

import click

from worker.cli import output
from worker.cli.grant_actions import forget, pull, refresh, revoke
from worker.cli.grants_aside import aside, discard, place
from worker.cli.grants_export import export
from worker.cli.grants_import import import_file
from worker.cli.grants_pause import pause, resume
from worker.cli.grants_shadow import shadow
from worker.cli.recheck import recheck
from worker.tokens import WAIT_SECONDS

if TYPE_CHECKING:
    from worker.errors import NotFoundError
    from worker.store import GrantView

STATUSES: Final = ("active", "suspect", "needs_reauth", "revoked")
CONDITIONS: Final = (
    "fresh",
    "due",
    "overdue",
    "expired",
    "retrying",
    "in_doubt",
    "unproven",
    "held",
    "aside",
    "paused",
)
LARGEST_ID: Final = 2**63 - 1
HISTORY: Final = 50
"""Attempts and snapshots that `explain` shows."""


@click.group(cls=output.Group)
def grants() -> None:
    """Look at creators' grants, and act on them."""


@grants.command("list", cls=output.Command)
@click.option("--status", type=click.Choice(STATUSES + CONDITIONS), help="Only grants that `grants status` counts so.")
@click.option("--reference", help="Only grants with this reference of yours.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="List at most this many.")
@click.option(
    "--after", type=click.IntRange(0, LARGEST_ID), default=0, help="Continue after this id, which the last page named."
)
@output.json_option
def list_(*, status: str | None, reference: str | None, limit: int, after: int, as_json: bool) -> None:
    """List grants in the order of their ids, page by page."""
    from worker.store import GrantCondition, GrantStatus  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        now = services.store.ping()
        rows = services.store.grants(
            status=GrantStatus(status) if status in STATUSES else None,
            condition=GrantCondition(status) if status in CONDITIONS else None,
            reference=reference,
            after_id=after,
            limit=limit,
        )
    more = rows[-1].grant_id if len(rows) == limit else None
    if as_json:
        output.print_json({"grants": [_shown(row, now) for row in rows], "next_after": more})
        return
    output.print_table(
        ("id", "creator", "reference", "status", "access token ends", "next refresh", "failures", "last reason"),
        [
            (
                row.grant_id,
                row.creator_id,
                row.reference,
                row.status,
                _end(row, now),
                _next_refresh(row, now),
                row.failures,
                row.last_reason,
            )
            for row in rows
        ],
    )
    if more is not None:
        output.note(f"there may be more: --after {more}")


@grants.command(cls=output.CreatorCommand)
@click.argument("creator")
@output.json_option
def show(creator: str, *, as_json: bool) -> None:
    """Show one creator's grant and the newest snapshot of the account data."""
    from worker import timeline  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        now = services.store.ping()
        grant = services.store.grant(creator)
        snapshots = services.store.snapshots(grant.grant_id, 1)
        refused = services.store.narrowed_of(creator)
        resources = services.store.progress_of(creator)
    snapshot = snapshots[0] if snapshots else None
    if as_json:
        newest = {"pulled_at": snapshot.pulled_at, "data": snapshot.data} if snapshot else None
        output.print_json(
            _shown(grant, now)
            | {"snapshot": newest}
            | {"refused": [asdict(each) for each in refused], "resources": [asdict(each) for each in resources]}
        )
        return
    # The row keeps the last plan when no refresh follows.
    for_people = {
        "next_refresh_at": timeline.planned_refresh(grant),
        "access token ends": _end(grant, now),
        "next refresh": _next_refresh(grant, now),
    }
    output.print_table(("field", "value"), (asdict(grant) | for_people).items())
    if resources:
        output.print_table(
            ("resource", "read", "next", "failures", "problem"),
            [(each.resource, each.finished_at, each.next_at, each.failures, each.problem) for each in resources],
            title="account data",
        )
    if refused:
        output.print_table(
            ("refused by TikTok", "field", "scope", "code", "tried again"),
            [(each.resource, each.field, each.scope, each.code, each.again_at) for each in refused],
        )
    if snapshot is not None:
        rows = [(name, _short(value)) for name, value in snapshot.data.items()]
        output.print_table(("field", "value"), rows, title=f"account data of {output.moment(snapshot.pulled_at)} UTC")


@grants.command(cls=output.Command)
@output.json_option
def status(*, as_json: bool) -> None:
    """Count fresh, due, overdue, in doubt and needing re-authorization; exit 1 if a token has expired."""
    from worker.planning.reauthorizations import busiest, total_within  # noqa: PLC0415 - as above
    from worker.timeline import verdict_words  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        fleet = services.store.fleet_status()
        verdicts, weeks = services.store.verdict_counts(), services.store.ends_by_week()
    if as_json:
        ends = [{"begins_at": week.begins_at, "grants": week.grants} for week in weeks]
        output.print_json(asdict(fleet) | {"by_verdict": verdicts, "ends_by_week": ends})
    else:
        rows: list[tuple[str, object]] = [("total", fleet.total)]
        rows += [(f"status {name}", count) for name, count in sorted(fleet.by_status.items())]
        rows += [
            ("fresh", fleet.fresh),
            ("due", fleet.due),
            ("overdue (last tenth of the life)", fleet.overdue),
            ("expired", fleet.expired),
            ("last attempt failed, another follows (retrying)", fleet.retrying),
            ("in doubt (in_doubt)", fleet.in_doubt),
            ("creator must authorize again", fleet.needs_reauth),
            ("imported, owner not confirmed yet (unproven)", fleet.unproven),
            ("imported pair of another creator (held)", fleet.held),
            ("unread answer kept aside, the operator decides (aside)", fleet.aside),
            *((f"verdict {verdict_words(name)}", count) for name, count in sorted(verdicts.items())),
            *((f"consents that end within {days} days", total_within(weeks, days)) for days in (7, 28, 91, 364)),
            *((f"most of them in the week from {each.begins_at:%Y-%m-%d}", each.grants) for each in busiest(weeks)),
            ("not refreshed and not pulled, because somebody paused them (paused)", fleet.paused),
            ("first end of an access token", output.until(fleet.least_seconds_left, past="ended {} ago")),
            ("first end of a paused grant's token", output.until(fleet.paused_seconds_left, past="ended {} ago")),
            ("oldest due for", output.span(fleet.oldest_due_seconds)),
        ]
        output.print_table(("grants", "count"), rows)
    if fleet.expired:
        sys.exit(output.FINDING)


@grants.command(cls=output.CreatorCommand)
@click.argument("creator")
@output.json_option
def explain(creator: str, *, as_json: bool) -> None:
    """Print the timeline of decisions about one grant: what was done, why, and what comes next."""
    from worker import timeline  # noqa: PLC0415 - Celery loads this module on every start
    from worker.store import GrantStatus  # noqa: PLC0415 - as above

    with output.services() as services:
        now = services.store.ping()
        grant = services.store.grant(creator)
        attempts = services.store.attempts(grant.grant_id, HISTORY)
        aside = services.store.attempts_aside(grant.grant_id)
        snapshots = services.store.snapshots(grant.grant_id, HISTORY)
        renew_at = services.settings.renew_at
    events = timeline.events(grant, attempts, snapshots)
    following = timeline.what_next(grant, aside, now=now, renew_at=renew_at)
    if as_json:
        head = {"creator_id": grant.creator_id, "status": grant.status, "consent": grant.consent, "now": now}
        output.print_json(head | {"events": [output.plain(event) for event in events], "next": output.plain(following)})
        return
    output.print_table(
        ("UTC", "what", "how and why"),
        [(event.at, event.kind, event.text) for event in events],
        title=f"creator {grant.creator_id}, {grant.status.value}, consent {grant.consent}",
    )
    if grant.status is not GrantStatus.REVOKED:
        left = grant.access_expires_at - now
        click.echo(f"access token {output.until(left, future='ends in {}', past='ended {} ago')}")
    output.say(f"next refresh: {_planned(following.refresh_at)}{following.refresh_why}")
    output.say(f"next pull: {_planned(following.pull_at)}{following.pull_why}")


@grants.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--min-validity", type=output.Number(0), default=0.0, help="Seconds for which it must still be valid.")
@click.option("--newer-than", type=int, help="Generation of a token that TikTok refused; only a later one is printed.")
@click.option("--wait", type=output.Number(0), default=WAIT_SECONDS, help="Seconds to wait for a refresh.")
@output.json_option
def token(creator: str, *, min_validity: float, newer_than: int | None, wait: float, as_json: bool) -> None:
    """Print a valid access token and nothing else; exit 1 if none is valid for that long.

    If the stored token does not suffice, the command requests a refresh and waits for it. --json adds the token's end,
    consent and generation; if there is no token, `error` is unknown, revoked, lost, held, reauth_needed, expired or
    paused.
    """
    from worker.errors import NotFoundError  # noqa: PLC0415 - Celery loads this module on every start
    from worker.tokens import token_reader  # noqa: PLC0415 - as above

    with output.services() as services:
        try:
            found = token_reader(services).serve(
                creator, min_validity=min_validity, newer_than=newer_than, wait_seconds=wait
            )
        except NotFoundError as error:
            if not as_json:
                raise
            output.print_json({"creator_id": creator, "error": _kind_of(error), "detail": str(error)})
            sys.exit(output.FINDING)
    if as_json:
        output.print_json(
            {
                "creator_id": found.creator_id,
                "access_token": found.access_token.reveal(),
                "expires_at": found.expires_at,
                "consent": found.consent,
                "generation": found.generation,
            }
        )
    else:
        click.echo(found.access_token.reveal())


def _kind_of(error: NotFoundError) -> str:
    from worker import errors  # noqa: PLC0415 - Celery loads this module on every start

    kinds = {
        errors.UnknownCreatorError: "unknown",
        errors.RevokedError: "revoked",
        errors.LostError: "lost",
        errors.HeldError: "held",
        errors.ReauthNeededError: "reauth_needed",
        errors.ExpiredError: "expired",
        errors.PausedError: "paused",
    }
    return kinds.get(type(error), "not_found")


def _end(grant: GrantView, now: datetime) -> str:
    """Return for people when a grant's access token ends; a revoked grant has none."""
    from worker.store import GrantStatus  # noqa: PLC0415 - Celery loads this module on every start

    gone = grant.status is GrantStatus.REVOKED
    return output.until(None if gone else grant.access_expires_at - now, past="ended {} ago")


def _next_refresh(grant: GrantView, now: datetime) -> str:
    from worker import timeline  # noqa: PLC0415 - Celery loads this module on every start

    at = timeline.planned_refresh(grant)
    if at is None and grant.paused_since is not None:
        return "paused"
    return output.until(None if at is None else at - now, past="due for {}")


def _planned(at: datetime | None) -> str:
    return "" if at is None else f"{output.moment(at)} - "


def _short(value: object) -> object:
    """Return a text that fits into a cell; `--json` has the whole value."""
    return f"{len(value)} entries" if isinstance(value, list) else value


def _shown(grant: GrantView, now: datetime) -> dict[str, object]:
    left = (grant.access_expires_at - now).total_seconds()
    fields: dict[str, object] = output.plain(grant)
    return fields | {"seconds_left": round(left, 3)}


for command in (
    import_file,
    refresh,
    pull,
    revoke,
    forget,
    recheck,
    aside,
    place,
    discard,
    pause,
    resume,
    export,
    shadow,
):
    grants.add_command(command)
