"""The helps of groups, at the width of a usual terminal."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from celery.bin.celery import celery

from tests.support.daemon import plain_environ
from tests.support.warm import server_for

OURS = sorted(
    name
    for name, command in celery.commands.items()
    if isinstance(command, click.Group) and (command.callback.__module__ or "").startswith("worker.")
)


def test_our_groups_are_found() -> None:
    """The look at all groups does not pass over them."""
    assert {"authorize", "capacity", "db", "grants", "keys", "sandbox"} <= set(OURS)


def test_no_short_help_of_a_command_is_cut(tmp_path: Path) -> None:
    """At 80 columns, where a person sees it, each command's first sentence is wrapped and not cut."""
    environ = plain_environ() | {"COLUMNS": "80"}
    done = server_for(environ).run(
        ["-m", "worker.cli.console", "--help"], environ=environ, folder=tmp_path, text=None, seconds=60
    )

    assert done.returncode == 0, done.stderr
    assert_whole(done.stdout)


@pytest.mark.parametrize("group", OURS)
def test_no_short_help_in_a_group_is_cut(group: str) -> None:
    """At 80 columns each command's first sentence is wrapped, and ends before its second."""
    command = celery.commands[group]

    assert_whole(command.get_help(click.Context(command, info_name=group, terminal_width=80)))


def assert_whole(text: str) -> None:
    """Assert that the commands of a help are listed and none of their sentences is cut."""
    listed = text.partition("Commands:")[2]
    assert len(listed.splitlines()) > 1
    assert "..." not in listed
    assert max(map(len, listed.splitlines())) <= 80
