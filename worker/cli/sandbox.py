"""`celery -A worker sandbox serve`: the stand-in for TikTok alone, in the foreground."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import click
from celery.bin.base import CeleryCommand

from worker.cli import output
from worker.sandbox.options import OptionsError, SandboxOptions

if TYPE_CHECKING:
    from worker.sandbox.server import Address

WRONG_USE: Final = 2
COMMA_LISTS: Final = frozenset({"scopes"})


@click.group(cls=output.Group)
def sandbox() -> None:
    """A local stand-in for TikTok, for tests and rehearsals."""


def _sandbox_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add one command-line option for each option of the sandbox."""
    for option in reversed(fields(SandboxOptions)):
        name = f"--{option.name.replace('_', '-')}"
        why, choices = option.metadata["why"], option.metadata["choices"]
        kind = str(option.type).removesuffix(" | None")
        if kind == "bool":
            function = click.option(name, is_flag=True, help=why)(function)
            continue
        default = ",".join(option.default) if option.name in COMMA_LISTS else option.default
        shape: Any = click.Choice(choices) if choices else {"int": int, "float": float}.get(kind, str)
        function = click.option(name, type=shape, default=default, show_default=bool(default), help=why)(function)
    return function


@sandbox.command(cls=CeleryCommand)
@_sandbox_options
@click.option("--json", "as_json", is_flag=True, help="Print the address as one line of JSON.")
def serve(*, as_json: bool, **given: Any) -> None:
    """Serve TikTok's token calls, the account read and the authorization page until interrupted."""
    try:
        for name in COMMA_LISTS:
            given[name] = [part.strip() for part in given[name].split(",")]
        options = SandboxOptions.from_json(given)
        asyncio.run(_serve(options, as_json=as_json))
    except OptionsError as error:
        name, _, why = str(error).partition(":")
        _refuse(f"--{name.replace('_', '-')}:{why}")
    except OSError as error:
        _refuse(f"the sandbox cannot start: {error}")


def _refuse(sentence: str) -> None:
    click.echo(f"Error: {sentence}", err=True)
    raise SystemExit(WRONG_USE)


async def _serve(options: SandboxOptions, *, as_json: bool) -> None:
    from worker.sandbox.server import serve as run  # noqa: PLC0415  # celery loads this module at every command

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def ready(address: Address) -> None:
        click.echo(json.dumps(address.to_json()) if as_json else _how_to_use(address, options))

    await run(options, ready=ready, stop=stop)


def _how_to_use(address: Address, options: SandboxOptions) -> str:
    said = address.to_json()
    return "\n".join(
        (
            f"The sandbox listens at {address.origin} (end it with Ctrl-C). To use it:",
            f"  EVERTOKEN_TIKTOK_BASE_URL={said['url']}",
            f"  EVERTOKEN_TIKTOK_AUTHORIZE_URL={said['authorize_url']}",
            f"  EVERTOKEN_TIKTOK_APP_ID={options.app_id}",
            f"  EVERTOKEN_TIKTOK_APP_SECRET={options.app_secret}",
            f"  EVERTOKEN_TIKTOK_REDIRECT_URI={options.redirect_uri}",
            f"Control it at {said['control_url']}; ledger: {options.ledger or 'none'}",
        )
    )
