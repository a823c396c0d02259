"""`celery -A worker authorize`: make a consent link, and turn a pasted redirect into a grant."""

from __future__ import annotations

import sys

import click

from worker.cli import output
from worker.errors import UsageError

LONGEST_INPUT = 65_536
LONGEST_REFERENCE = 255
"""Characters; the width of the column."""


def _checked_reference(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Refuse a reference that cannot be searched for or shown."""
    if value is None:
        return None
    if not value.strip() or value != value.strip() or not value.isprintable() or len(value) > LONGEST_REFERENCE:
        raise click.BadParameter(
            f"a reference has 1 to {LONGEST_REFERENCE} printable characters and no space at its ends"
        )
    return value


@click.group(cls=output.Group)
def authorize() -> None:
    """Have a creator authorize the app."""


@authorize.command(cls=output.Command)
@click.option("--reference", callback=_checked_reference, help="Your own name for the creator, such as user-42.")
@click.option("--creator", metavar="CREATOR", help="Accept only the consent of this creator.")
@click.option("--days", type=output.Number(0.01, 30), help="Days it works; EVERTOKEN_STATE_SECONDS by default.")
@output.json_option
def url(*, reference: str | None, creator: str | None, days: float | None, as_json: bool) -> None:
    """Print a consent link to send to a creator; it works once, within EVERTOKEN_STATE_SECONDS unless --days says so.

    With EVERTOKEN_DESK_URL it leads to the desk's page, which explains and leads to TikTok's.
    """
    with output.services() as services:
        services.preflight.check_keyring()  # with another keyring the exchange would be refused
        seconds = services.settings.state_seconds if days is None else round(days * 86_400)
        link = services.authorizer.url(reference=reference, creator_id=creator, life_seconds=seconds)
    if as_json:
        output.print_json({"url": link, "valid_seconds": seconds, "reference": reference, "creator_id": creator})
    else:
        click.echo(link)
        ends = (
            "the desk takes the creator's answer, and nothing is to be pasted"
            if services.settings.desk_url
            else "paste the address it ends at into `authorize exchange -`"
        )
        output.note(f"valid for {output.span(seconds)}; {ends}")


@authorize.command(cls=output.Command)
@click.argument("redirect_url", metavar="REDIRECT_URL")
@output.json_option
def exchange(redirect_url: str, *, as_json: bool) -> None:
    """Turn the address that the browser ended at into a grant.

    REDIRECT_URL is the whole address or its query. With `-` it is read from standard input, so that the code in it
    lands neither in the shell's history nor in the list of processes.
    """
    if redirect_url == "-":
        redirect_url = _read_input()
    with output.services(changes_pairs=True) as services:
        grant = services.authorizer.exchange(redirect_url)
    if as_json:
        output.print_json(grant)
        return
    output.say(f"creator {grant.creator_id} authorized (consent {grant.consent}), scopes {grant.scope or 'unknown'}")
    click.echo(f"access token until {output.moment(grant.access_expires_at)} UTC, ", nl=False)
    click.echo(f"first refresh at {output.moment(grant.next_refresh_at)} UTC")


def _read_input() -> str:
    if sys.stdin.isatty():
        output.note("paste the address and press Enter:")
        return sys.stdin.readline(LONGEST_INPUT)
    text = sys.stdin.read(LONGEST_INPUT)
    if not text.strip():
        raise UsageError("standard input is empty; give the address that the browser ended at")
    return text
