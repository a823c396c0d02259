"""`celery -A worker grants aside`, `place` and `discard`: list answers that were set aside, store or delete them."""

from __future__ import annotations

import click

from worker.cli import output


@click.command(cls=output.Command)
@output.json_option
def aside(*, as_json: bool) -> None:
    """List what was set aside on this host: who owns each pair, and whether it can be placed."""
    with output.services() as services:
        found = list(services.placing.pairs())
    if as_json:
        output.print_json({"aside": [output.plain(pair) for pair in found]})
        return
    output.print_table(
        ("record", "came (UTC)", "asked for creator", "belongs to creator", "remark"),
        [
            (
                pair.name,
                pair.received_at,
                pair.asked_for,
                pair.creator_id or None,
                pair.fault or ("" if pair.creator_id else "TikTok will be asked who owns it"),
            )
            for pair in found
        ],
    )


@click.command(cls=output.Command)
@click.argument("record")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.json_option
def place(record: str, *, yes: bool, as_json: bool) -> None:
    """Store a pair that was set aside under the creator to whom TikTok gave it; `grants aside` lists the records.

    Run it on the host whose journal has the record. If the creator already has a pair that came later, that one stays.
    The record is removed once the database has the pair.
    """
    with output.services(changes_pairs=True) as services:
        pair = services.placing.look(record)
        if not yes:
            asked = f" (it was asked for creator {pair.asked_for})" if pair.asked_for else ""
            came = output.moment(pair.received_at)
            click.confirm(
                f"store the pair that came at {came} UTC under creator {pair.creator_id}{asked}?", abort=True, err=True
            )
        grant = services.placing.place(pair)
    if as_json:
        output.print_json({"creator_id": grant.creator_id, "grant_id": grant.grant_id, "status": grant.status})
    else:
        click.echo(f"creator {grant.creator_id} has the pair, as consent {grant.consent}; the record is removed")


@click.command(cls=output.Command)
@click.argument("record", required=False)
@click.option("--creator", help="Let this creator's grant wait no more, though its record is lost or on another host.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@output.json_option
def discard(record: str | None, *, creator: str | None, yes: bool, as_json: bool) -> None:
    """Remove a record that was set aside, for good; `grants aside` lists the records.

    A grant that waited for it goes on as any other: TikTok is asked again, and if every pair that is stored is refused,
    the creator is asked to authorize. Run it on the host whose journal has the record; if that host is lost, name the
    creator instead.
    """
    if (record is None) == (creator is None):
        raise click.UsageError("name a record of `grants aside`, or a creator with --creator")
    waits = "a pair in it is lost for good, and its creator may be asked to authorize again"
    with output.services() as services:
        if record is not None:
            services.journal.aside.record(record)
        if not yes:
            what = f"remove {record}" if record else f"let creator {creator} wait for no record any more"
            click.confirm(f"{what}? {waits}", abort=True, err=True)
        if record is not None:
            found = services.placing.discard(record)
            shown: dict[str, object] = {"record": record, "asked_for": found.asked_for}
            text = f"{record} is removed"
        else:
            waited = services.placing.give_up(str(creator))
            shown = {"creator_id": creator, "records": waited}
            text = f"creator {creator} waited for {output.counted(waited, 'record')}, and waits no more"
    if as_json:
        output.print_json(shown)
    else:
        click.echo(text)
