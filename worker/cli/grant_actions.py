"""The `grants` commands that act on one creator: refresh, pull, revoke and forget."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from worker.cli import output
from worker.cli.grants_where import refresh_where
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.accounts.pull import PullResult
    from worker.refresh.results import Result

Done = TypeVar("Done", bound="Result | PullResult")
REFRESH_TASK: Final = "tasks.refresh.refresh_grants"
PULL_TASK: Final = "tasks.pull.pull_account"
LONGEST_WAIT_SECONDS: Final = 10.0
"""How long `--now` waits for a permit of the quota."""


@click.command(cls=output.CreatorCommand)
@click.argument("creator", required=False)
@click.option("--now", "at_once", is_flag=True, help="Refresh in this process and print the outcome.")
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Many grants instead of one: state, reference, ends-within (6h) or ends-before; several must all hold.",
)
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="With --where: at most this many."
)
@click.option("--dry-run", is_flag=True, help="With --where: change nothing, and print which grants are meant.")
@output.json_option
@click.pass_context
def refresh(
    ctx: click.Context,
    creator: str | None,
    *,
    at_once: bool,
    where: tuple[str, ...],
    limit: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Refresh early: mark a grant due and hand it to the workers, or with --now refresh it in this process.

    With --where many grants are made due, those whose tokens end first; the next scan hands them to the workers. Quota,
    brake and pauses hold for them as for all, and a grant that failed before keeps the time of its next attempt.
    """
    if where:
        if creator is not None or at_once:
            raise UsageError("--where means many grants: leave out CREATOR and --now")
        refresh_where(where, limit=limit, dry_run=dry_run, as_json=as_json)
        return
    if creator is None or dry_run:
        raise UsageError("name the grant, CREATOR, or name many with --where, which --dry-run needs")
    with output.services(changes_pairs=at_once) as services:
        grant_id = services.store.request_refresh(creator)
        if at_once:
            done = with_permit(lambda: services.refresher.refresh(grant_id, force=True))
            _print_outcome(creator, done, good="refreshed", as_json=as_json)
            return
    _publish(ctx, REFRESH_TASK, [[grant_id]], creator, grant_id, as_json=as_json)


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--now", "at_once", is_flag=True, help="Pull in this process and print the outcome.")
@output.json_option
@click.pass_context
def pull(ctx: click.Context, creator: str, *, at_once: bool, as_json: bool) -> None:
    """Pull one creator's account data: hand it to the workers, or with --now pull in this process."""
    with output.services(changes_pairs=at_once) as services:
        grant_id = services.store.request_pull(creator)
        if at_once:
            done = with_permit(lambda: services.puller.pull(grant_id))
            _print_outcome(creator, done, good="pulled", as_json=as_json)
            return
    _publish(ctx, PULL_TASK, [grant_id], creator, grant_id, as_json=as_json)


HERE_ONLY: Final = click.option(
    "--here-only",
    is_flag=True,
    help="Say nothing to TikTok, where the consent then lives on.",
)


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--yes", is_flag=True, help="Do not ask.")
@HERE_ONLY
@output.json_option
def revoke(creator: str, *, yes: bool, here_only: bool, as_json: bool) -> None:
    """End a creator's consent at TikTok, and wipe the tokens here; only a new authorization brings it back.

    From the first moment nobody is served or refreshes the grant. If TikTok does not confirm, the exit status is 1, and
    workers try again until it does. A second call does nothing, or finishes what the first could not.
    """
    with output.services(changes_pairs=True) as services:
        services.store.grant(creator)
        if not yes:
            click.confirm(f"revoke the consent of creator {creator}?", abort=True, err=True)
        at_tiktok = services.revocation.revoke(creator, here_only=here_only)
    if as_json:
        output.print_json({"creator_id": creator, "status": "revoked", "at_tiktok": at_tiktok})
    elif at_tiktok is None:
        output.say(f"creator {creator} was revoked before, and the tokens are wiped")
    else:
        output.say(f"creator {creator} is revoked{_where(at_tiktok, here_only=here_only)}, and the tokens are wiped")


@click.command(cls=output.CreatorCommand)
@click.argument("creator")
@click.option("--yes", is_flag=True, help="Do not ask.")
@HERE_ONLY
@output.json_option
def forget(creator: str, *, yes: bool, here_only: bool, as_json: bool) -> None:
    """Revoke a creator's grant and remove all that is kept of the creator; a tombstone without the id stays.

    What goes: tokens, history, account data, links, notices, and answers in the journals of all hosts. If TikTok does
    not confirm the revocation, the exit status is 1, and workers go on when it does. A second call does nothing, or
    finishes what the first could not.
    """
    with output.services(changes_pairs=True) as services:
        if not yes:
            click.confirm(f"remove all that is kept of creator {creator}, for good?", abort=True, err=True)
        at_tiktok = services.forgetting.forget(creator, here_only=here_only)
    if as_json:
        output.print_json({"creator_id": creator, "status": "forgotten", "at_tiktok": at_tiktok})
    elif at_tiktok is None:
        output.say(f"creator {creator} is forgotten; there was nothing to revoke")
    else:
        output.say(f"creator {creator} is forgotten, and revoked{_where(at_tiktok, here_only=here_only)}")


def _where(at_tiktok: bool, *, here_only: bool) -> str:
    if at_tiktok:
        return ""
    why = "as you wished" if here_only else "because the tokens belong to another creator"
    return f" here (TikTok was not told, {why})"


def with_permit(act: Callable[[], Done]) -> Done:
    """Run a use case; if the quota is spent, wait for a permit for at most `LONGEST_WAIT_SECONDS`."""
    from worker.accounts.pull import NoPermit  # noqa: PLC0415 - Celery loads this module on every start
    from worker.refresh.results import Denied  # noqa: PLC0415 - as above

    end = time.monotonic() + LONGEST_WAIT_SECONDS
    while isinstance(done := act(), Denied | NoPermit) and time.monotonic() + done.wait_seconds < end:
        time.sleep(done.wait_seconds)
    return done


def _print_outcome(creator: str, done: Result | PullResult, *, good: str, as_json: bool) -> None:
    if as_json:
        output.print_json({"creator_id": creator, "kind": done.kind} | asdict(done))
    else:
        output.say(f"creator {creator}: {done.kind}" + (f" ({done.reason})" if done.reason else ""))
    if done.kind != good:
        sys.exit(output.FINDING)


def _publish(ctx: click.Context, task: str, args: list[Any], creator: str, grant_id: int, *, as_json: bool) -> None:
    """Hand a task to the workers; the row is marked already, so if Redis is away it only takes longer."""
    from kombu.exceptions import OperationalError  # noqa: PLC0415 - Celery loads this module on every start

    try:
        task_id = ctx.obj.app.send_task(task, args=args, retry=False).id
    except OperationalError:
        task_id = None
    if as_json:
        output.print_json({"creator_id": creator, "grant_id": grant_id, "task": task, "task_id": task_id})
    elif task_id is None:
        output.say(f"creator {creator} is marked; Redis does not answer, so the next scan hands it to a worker")
    else:
        output.say(f"creator {creator} is handed to the workers as {task} {task_id}")
