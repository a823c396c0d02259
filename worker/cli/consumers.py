"""`celery -A worker consumers`: the neighbours that get tokens over HTTP, their keys, and what was handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli import output

if TYPE_CHECKING:
    from worker.store import ConsumerView

LARGEST_ID: Final = 2**63 - 1


@click.group(cls=output.Group)
def consumers() -> None:
    """Manage the neighbours that get tokens over HTTP."""


@consumers.command(cls=output.Command)
@click.argument("name")
@click.option("--creator", "creators", multiple=True, metavar="CREATOR", help="A creator that it may ask about.")
@click.option(
    "--reference", "references", multiple=True, help="A reference, or shop7-* for all that begin so; repeatable."
)
@click.option("--all", "everyone", is_flag=True, help="It may ask about every creator.")
@output.json_option
def add(name: str, *, creators: tuple[str, ...], references: tuple[str, ...], everyone: bool, as_json: bool) -> None:
    """Add a consumer and print its key once; only a hash of the key is stored."""
    from worker.policy.scope import read_scope  # noqa: PLC0415 - Celery loads this module on every start
    from worker.telemetry import Fact  # noqa: PLC0415 - as above
    from worker.tokens.consumers import add_consumer  # noqa: PLC0415 - as above

    scope = read_scope(everyone=everyone, creators=creators, references=references)
    with output.services() as services:
        added, key = add_consumer(services.store, name, scope)
        services.hook(Fact("consumer.added", {"consumer": added.name, "handle": added.handle}))
    if as_json:
        output.print_json(_shown(added) | {"key": key.reveal()})
        return
    click.echo(key.reveal())
    output.note(f"the key of {added.name}, which gets {_scope(added)}; it is not shown again")


@consumers.command("list", cls=output.Command)
@click.option("--revoked", is_flag=True, help="Also those whose keys were revoked.")
@output.json_option
def list_(*, revoked: bool, as_json: bool) -> None:
    """List consumers by name: what each may ask about, and how many tokens it got."""
    with output.services() as services:
        found = services.store.consumers(revoked=revoked)
    if as_json:
        output.print_json({"consumers": [_shown(each) for each in found]})
        return
    output.print_table(
        ("consumer", "key", "gets", "added (UTC)", "tokens", "last one (UTC)", "revoked (UTC)"),
        [
            (
                each.name,
                f"etk_{each.handle}_...",
                _scope(each),
                each.created_at,
                each.handed_out,
                each.last_used_at,
                each.revoked_at,
            )
            for each in found
        ],
    )


@consumers.command(cls=output.Command)
@click.argument("name")
@output.json_option
def revoke(name: str, *, as_json: bool) -> None:
    """Revoke a consumer's key for good, within a second; what it got stays in the audit.

    A token that it has already stays valid until its end.
    """
    from worker.telemetry import Fact  # noqa: PLC0415 - Celery loads this module on every start

    with output.services() as services:
        revoked = services.store.revoke_consumer(name)
        services.hook(Fact("consumer.revoked", {"consumer": revoked.name, "handle": revoked.handle}))
    if as_json:
        output.print_json(_shown(revoked))
    else:
        output.say(f"the key of {revoked.name} is revoked; tokens that it has already are valid until they end")


@consumers.command(cls=output.Command)
@click.option("--consumer", help="Only to this consumer.")
@click.option("--creator", metavar="CREATOR", help="Only tokens of this creator.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="How many at most.")
@click.option("--before", type=click.IntRange(1, LARGEST_ID), help="Go on before this number; the last page named it.")
@output.json_option
def audit(*, consumer: str | None, creator: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """List which tokens were handed out to whom, newest first; rows are kept for 90 days."""
    with output.services() as services:
        found = services.store.hand_outs(consumer=consumer, creator_id=creator, before_id=before, limit=limit)
    more = found[-1].hand_out_id if len(found) == limit else None
    if as_json:
        output.print_json({"hand_outs": found, "next_before": more})
        return
    output.print_table(
        ("number", "at (UTC)", "consumer", "creator", "consent", "generation"),
        [(row.hand_out_id, row.at, row.consumer, row.creator_id, row.consent, row.generation) for row in found],
    )
    if more is not None:
        output.note(f"there may be more: --before {more}")


def _scope(consumer: ConsumerView) -> str:
    """Return in words what a consumer may ask about."""
    if consumer.scope.everyone:
        return "all creators"
    parts = [f"reference {each}" for each in sorted(consumer.scope.references)]
    parts += [f"creator {each}" for each in sorted(consumer.scope.creators)]
    return ", ".join(parts)


def _shown(consumer: ConsumerView) -> dict[str, Any]:
    return {
        "name": consumer.name,
        "handle": consumer.handle,
        "all": consumer.scope.everyone,
        "creators": sorted(consumer.scope.creators),
        "references": sorted(consumer.scope.references),
        "created_at": consumer.created_at,
        "last_used_at": consumer.last_used_at,
        "handed_out": consumer.handed_out,
        "revoked_at": consumer.revoked_at,
    }
