"""`celery -A worker notices`: list notices and their delivery, post them again, and enable addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.addresses import NoticeAddress
    from worker.services import Services
    from worker.store import DeliveryView, NoticeView

LARGEST_ID: Final = 2**63 - 1


@click.group(cls=output.Group)
def notices() -> None:
    """Look at notices and their delivery, and post them again."""


@notices.command("list", cls=output.Command)
@click.option("--kind", "patterns", multiple=True, metavar="KIND", help="Only this kind, such as grant.*; repeatable.")
@click.option("--waiting", is_flag=True, help="Only notices that wait for an address.")
@click.option("--reference", help="Only notices about creators with this reference of yours.")
@click.option("--creator", metavar="CREATOR", help="Only notices about this creator.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
@click.option("--before", type=click.IntRange(1, LARGEST_ID), help="Continue before this number, from the last page.")
@output.json_option
def list_(
    *,
    patterns: tuple[str, ...],
    waiting: bool,
    reference: str | None,
    creator: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List notices, newest first, a page at a time."""
    with output.services() as services:
        found = services.store.notices(
            kinds=_kinds(patterns),
            waiting=waiting,
            reference=reference,
            creator_id=creator,
            before_id=before,
            limit=limit,
        )
        deliveries = _by_notice(services, found)
    rows = [_shown(notice, deliveries[notice.notice_id]) for notice in found]
    more = found[-1].notice_id if len(found) == limit else None
    if as_json:
        output.print_json({"notices": rows, "next_before": more})
        return
    shown = ("number", "created_at", "type", "creator_id", "reference", "state", "detail")
    output.print_table(
        ("number", "written (UTC)", "kind", "creator", "reference", "delivery", "detail"),
        [[row[column] for column in shown] for row in rows],
    )
    if more is not None:
        output.note(f"there may be more: --before {more}")


@notices.command(cls=output.Command)
@click.argument("notice")
@output.json_option
def show(notice: str, *, as_json: bool) -> None:
    """Show one notice by its number or its message id: what is posted, and what each address answered."""
    from worker.notices.delivery import content  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        found = _found(services, notice)
        deliveries = services.store.deliveries([found.notice_id])
    if as_json:
        output.print_json(_shown(found, deliveries) | {"content": content(found)})
        return
    posted = content(found)
    rows = [("number", found.notice_id), ("message id", found.message_id), ("type", posted["type"])]
    rows += [("written (UTC)", found.created_at), ("delivery", _state(found, deliveries))]
    output.print_table(("field", "value"), [*rows, *posted["data"].items()])
    output.print_table(
        ("address", "accepted (UTC)", "failed tries", "next try (UTC)", "last problem"),
        [
            (row.address, row.delivered_at, row.failures, None if row.delivered_at else row.next_try_at, row.problem)
            for row in deliveries
        ],
    )


@notices.command(cls=output.Command)
@click.argument("notice")
@click.option("--address", "names", multiple=True, metavar="NAME", help="Only to this address; repeatable.")
@output.json_option
def resend(notice: str, *, names: tuple[str, ...], as_json: bool) -> None:
    """Post a notice again, under its message id, to the addresses that get its kind or to the named ones.

    The worker's next round posts it. If this command runs twice before that, the notice is posted once.
    """
    from worker.errors import UsageError  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        found = _found(services, notice)
        chosen = [
            address
            for address in _addresses(services, names)
            if names or address.kinds is None or found.kind in address.kinds
        ]
        if not chosen:
            raise UsageError("no address gets this kind of notice; name one with --address")
        again = services.store.resend(found.notice_id, [address.name for address in chosen])
    if as_json:
        posted_to = [address.name for address in chosen]
        output.print_json(
            {"number": found.notice_id, "message_id": found.message_id, "addresses": posted_to, "new": again}
        )
        return
    output.say(f"notice {found.notice_id} is posted again to {', '.join(address.name for address in chosen)}")


@notices.command(cls=output.Command)
@output.json_option
def addresses(*, as_json: bool) -> None:
    """List the addresses of EVERTOKEN_NOTICE_URL by name: kinds, state and how many notices wait for each."""
    from worker.policy.notice_kinds import type_of  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        listed = _addresses(services, ())
        states = services.store.receivers([address.name for address in listed])
        now = services.store.ping()
    shown = []
    for address in listed:
        state = states[address.name]
        word = "disabled" if state.disabled_at else "paused" if (state.paused_until or now) > now else "open"
        kinds = None if address.kinds is None else sorted(type_of(kind) for kind in address.kinds)
        shown.append({"address": address.name, "kinds": kinds, "state": word, **output.plain(state)})
    if as_json:
        output.print_json({"addresses": shown})
        return
    output.print_table(
        ("address", "kinds", "state", "notices that wait"),
        [(row["address"], ", ".join(row["kinds"] or ["all"]), row["state"], row["waiting"]) for row in shown],
    )


@notices.command(cls=output.Command)
@click.argument("address")
@output.json_option
def enable(address: str, *, as_json: bool) -> None:
    """Post again to an address that was disabled because it answered 410 Gone, and send what waits for it."""
    from worker.telemetry import Fact  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        (chosen,) = _addresses(services, (address,))
        enabled = services.store.enable_receiver(chosen.name, f"notices are posted to {chosen.name} again")
        if enabled:
            services.hook(Fact("notice.address_enabled", {"address": chosen.name}))
    if as_json:
        output.print_json({"address": chosen.name, "enabled": enabled})
    else:
        output.say(f"{chosen.name} is enabled" if enabled else f"{chosen.name} was not disabled; nothing was changed")


@notices.command(cls=output.Command)
@output.json_option
def secret(*, as_json: bool) -> None:
    """Print a new secret for EVERTOKEN_NOTICE_SECRET; nothing is stored."""
    from worker.vault.webhooks import new_webhook_secret  # noqa: PLC0415 - Celery loads this module on every start

    made = new_webhook_secret()
    if as_json:
        output.print_json({"secret": made})
    else:
        click.echo(made)


def _kinds(patterns: Sequence[str]) -> frozenset[str] | None:
    from worker.errors import UsageError  # noqa: PLC0415 - Celery loads this module on every start
    from worker.policy.notice_kinds import KINDS, kinds_matching  # noqa: PLC0415 - as above

    for pattern in patterns:
        if not kinds_matching([pattern]):
            raise UsageError(f"no kind of notice is {pattern}; there are {', '.join(sorted(KINDS.values()))}")
    return kinds_matching(patterns) if patterns else None


def _addresses(services: Services, names: Sequence[str]) -> list[NoticeAddress]:
    """Return the addresses of the settings, or those of them that are named."""
    from worker.errors import UsageError  # noqa: PLC0415 - Celery loads this module on every start

    known = {address.name: address for address in services.settings.notice_addresses}
    if not known:
        raise UsageError("EVERTOKEN_NOTICE_URL is not set, so there is no address")
    for name in names:
        if name not in known:
            raise UsageError(f"there is no address {name}; `notices addresses` lists {', '.join(known)}")
    return [known[name] for name in names or known]


def _found(services: Services, name: str) -> NoticeView:
    found = services.store.notice(name)
    if found is None:
        output.fail(f"there is no notice {name}; `notices list` shows those that are kept")
    return found


def _by_notice(services: Services, found: Sequence[NoticeView]) -> dict[int, list[DeliveryView]]:
    grouped: dict[int, list[DeliveryView]] = {notice.notice_id: [] for notice in found}
    for delivery in services.store.deliveries(list(grouped)):
        grouped[delivery.notice_id].append(delivery)
    return grouped


def _state(notice: NoticeView, deliveries: Sequence[DeliveryView]) -> str:
    """Describe the delivery of a notice in words."""
    waiting = [row for row in deliveries if row.delivered_at is None]
    if waiting:
        problem = next((row.problem for row in waiting if row.problem), None)
        return f"waits for {', '.join(row.address for row in waiting)}" + (f": {problem}" if problem else "")
    if deliveries:
        return "delivered"
    return "waits" if notice.delivered_at is None else "no address gets this kind"


def _shown(notice: NoticeView, deliveries: Sequence[DeliveryView]) -> dict[str, Any]:
    from worker.policy.notice_kinds import type_of  # noqa: PLC0415 - Celery loads this module on every start

    return {
        "number": notice.notice_id,
        "message_id": notice.message_id,
        "type": type_of(notice.kind),
        "creator_id": notice.creator_id,
        "reference": notice.reference,
        "detail": notice.detail,
        "state": _state(notice, deliveries),
        "created_at": notice.created_at,
        "delivered_at": notice.delivered_at,
        "deliveries": [output.plain(row) for row in deliveries],
    }
