"""`celery -A worker grants pause` and `resume`: leave the whole app, a reference or a creator alone for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from worker.cli import output
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.store import PauseView

_F = TypeVar("_F", bound=Callable[..., Any])
WHICH: Final = "name what is meant: CREATOR, --reference REFERENCE, or --all for the whole app; one of them"


def _which(function: _F) -> _F:
    """Add what says which grants are meant."""
    function = click.option("--all", "whole_app", is_flag=True, help="The whole app, with grants that come later.")(
        function
    )
    function = click.option("--reference", help="The grants with this reference of yours, with those that come later.")(
        function
    )
    return click.argument("creator", required=False)(function)


@click.command(cls=output.CreatorCommand)
@_which
@output.json_option
def pause(creator: str | None, *, reference: str | None, whole_app: bool, as_json: bool) -> None:
    """Stop refreshing and pulling: of the whole app, a reference or a creator, until `resume`.

    Schedules and tokens stay, and tokens are handed out until they end. An attempt under way ends as usual. A second
    call changes nothing.
    """
    rule, words = _rule(creator, reference, whole_app=whole_app)
    with output.services() as services:
        found = services.store.pause(**rule)
    if as_json:
        output.print_json(rule | asdict(found))
        return
    again = "" if found.changed else " (as before)"
    output.say(
        f"{words} is paused{again}: {output.counted(found.grants, 'grant')} not refreshed and not pulled, and their "
        f"tokens will end; {found.under_way} being refreshed right now, which ends as usual"
    )


@click.command(cls=output.CreatorCommand)
@_which
@output.json_option
def resume(creator: str | None, *, reference: str | None, whole_app: bool, as_json: bool) -> None:
    """End a pause; what is due goes out with the next scan, as the quota permits. A second call changes nothing.

    A creator or a reference that is neither paused nor known is an error: a mistyped one would leave the pause.
    """
    rule, words = _rule(creator, reference, whole_app=whole_app)
    with output.services() as services:
        found = services.store.resume(**rule)
        others = services.store.pauses() if found.still_paused else []
    if as_json:
        output.print_json(rule | asdict(found))
        return
    ended = "is resumed" if found.changed else "was not paused"
    going = found.grants - found.still_paused
    output.say(f"{words} {ended}: {output.counted(going, 'grant')} refreshed and pulled when due")
    if found.still_paused:
        named = ", ".join(named_pause(each) for each in others)
        output.say(f"{output.counted(found.still_paused, 'grant')} paused all the same, by another pause: {named}")


def named_pause(pause: PauseView) -> str:
    """Return what a pause covers, for people."""
    if pause.creator_id:
        return f"creator {pause.creator_id}"
    return f"reference {pause.reference}" if pause.reference else "the whole app"


def _rule(creator: str | None, reference: str | None, *, whole_app: bool) -> tuple[dict[str, str], str]:
    """Return the rule that is meant, and its name for people.

    Raises:
        UsageError: none is named, or more than one.
    """
    if sum((bool(creator), bool(reference), whole_app)) != 1:
        raise UsageError(WHICH)
    rule = {"reference": reference or "", "creator_id": creator or ""}
    if creator:
        return rule, f"creator {creator}"
    return rule, f"reference {reference}" if reference else "the whole app"
