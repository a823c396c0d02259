"""`grants refresh --where`: many grants at once, and `--dry-run`, which changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, text

from tests.cli.test_commands import Cli, Visit, cli, creator, environment
from worker.cli.grants import grants

if TYPE_CHECKING:
    from worker.store import Store

__all__ = ["Visit", "cli", "creator", "environment"]


def _rows(store: Store) -> list[tuple[object, ...]]:
    def read(connection: Connection) -> list[tuple[object, ...]]:
        tables = ("grants", "pairs", "attempts", "notices", "pauses")
        return [tuple(row) for table in tables for row in connection.execute(text(f"SELECT * FROM {table}"))]  # noqa: S608 - our own words

    return store.transact(read, writes=False)


def test_a_dry_run_prints_the_same_choice_and_changes_no_row(cli: Cli, creator: str, store: Store) -> None:
    """Count and creators are those of the real run, which makes them due and spends no call."""
    arguments = ("refresh", "--where", "state=fresh", "--where", "ends-within=2d", "--limit", "5")
    before = _rows(store)

    looked = cli.json(grants, *arguments, "--dry-run")

    assert _rows(store) == before
    done = cli.json(grants, *arguments)
    assert (looked.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert done == looked
    assert [each["creator_id"] for each in done["chosen"]] == [creator]
    assert store.due_count() == 1
    assert len(store.attempts(store.grant(creator).grant_id)) == 0


def test_what_is_left_out_is_told_with_its_reason(cli: Cli, creator: str) -> None:
    """A second call finds the grant due already; a person reads why nothing happens."""
    first = cli(grants, "refresh", "--where", "state=active").stdout
    second = cli(grants, "refresh", "--where", "state=active").stdout

    assert "1 match: 1 grant made due" in first
    assert "1 match: 0 grants made due" in second
    assert "left out: 1 grant due already" in second


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--where", "state=well"), "--where state= takes "),
        (("--where", "colour=red"), "this is none: colour"),
        (("--where", "state"), "this is none: state"),
        (("--where", "state=due", "--where", "state=fresh"), "this is none: state=fresh"),
        (("--where", "ends-within=soon"), "takes a time such as 90m"),
        (("--where", "ends-within=999999999d"), "takes a time such as 90m"),
        (("--where", "ends-before=noon"), "takes an instant such as"),
        (("--where", "ends-before=0001-01-01T00:00+14:00"), "takes an instant such as"),
        (("--where", "state=due", "--now"), "leave out CREATOR and --now"),
        (("ada", "--where", "state=due"), "leave out CREATOR and --now"),
        (("ada", "--dry-run"), "which --dry-run needs"),
        ((), "name the grant, CREATOR"),
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_read_changes_nothing(cli: Cli, arguments: tuple[str, ...], sentence: str) -> None:
    """One sentence says what can be given."""
    refused = cli(grants, "refresh", *arguments)

    assert refused.exit_code == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1
