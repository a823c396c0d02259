"""`grants pause` and `grants resume`: what they print, and what the other commands say meanwhile."""

from __future__ import annotations

import pytest

from tests.cli.test_commands import Cli, Visit, cli, creator, environment
from worker.cli.grants import grants

__all__ = ["Visit", "cli", "creator", "environment"]


def test_a_pause_is_told_by_every_command_that_looks_at_grants(cli: Cli, creator: str) -> None:
    """`pause` twice, then show, list, status, explain, refresh and pull; `resume` twice."""
    assert "creator creator-1 is paused: 1 grant not refreshed" in cli(grants, "pause", creator).stdout
    assert "is paused (as before)" in cli(grants, "pause", creator).stdout

    assert cli.json(grants, "show", creator)["paused_since"]
    assert "paused" in cli(grants, "list", "--status", "paused").stdout
    assert cli.json(grants, "status")["paused"] == 1
    assert "next refresh: paused since" in cli(grants, "explain", creator).stdout
    for act in ("refresh", "pull"):
        refused = cli(grants, act, creator)
        assert (refused.exit_code, "is paused since" in refused.stderr) == (1, True)

    assert cli.json(grants, "resume", creator) == {
        "creator_id": creator,
        "reference": "",
        "changed": True,
        "grants": 1,
        "still_paused": 0,
        "under_way": 0,
    }
    assert "was not paused" in cli(grants, "resume", creator).stdout
    assert cli.json(grants, "show", creator)["paused_since"] is None


def test_a_paused_grants_token_that_ended_is_an_error_of_its_own(cli: Cli, creator: str) -> None:
    """`grants token --json` says `paused`, and at once."""
    cli(grants, "pause", "--all")

    found = cli.json(grants, "token", creator, "--min-validity", "100000", exit_code=1)

    assert found["error"] == "paused"


def test_another_pause_that_is_left_is_named(cli: Cli, creator: str) -> None:
    """Who resumes a creator while the whole app is paused is told so."""
    cli(grants, "pause", "--all")
    cli(grants, "pause", creator)

    said = cli(grants, "resume", creator).stdout

    assert "0 grants refreshed and pulled when due" in said
    assert "by another pause: the whole app" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nobody",), "error: there is no grant of creator nobody\n"),
        (("--reference", "nothing"), "error: no grant has the reference nothing\n"),
    ],
)
@pytest.mark.parametrize("command", ["pause", "resume"])
def test_what_is_not_known_is_refused(
    cli: Cli, creator: str, command: str, arguments: tuple[str, ...], sentence: str
) -> None:
    """A mistyped name that resumes nothing would leave the pause, and tokens would end."""
    cli(grants, "pause", creator)

    refused = cli(grants, command, *arguments)

    assert (refused.exit_code, refused.stderr) == (1, sentence)
    assert cli.json(grants, "status")["paused"] == 1


@pytest.mark.parametrize("arguments", [(), ("ada", "--all"), ("--all", "--reference", "acme"), ("--reference", "")])
@pytest.mark.parametrize("command", ["pause", "resume"])
def test_which_grants_are_meant_is_said_once(cli: Cli, command: str, arguments: tuple[str, ...]) -> None:
    """Nothing is paused by leaving an argument out."""
    refused = cli(grants, command, *arguments)

    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: name what is meant: CREATOR, --reference REFERENCE, or --all for the whole app; one of them\n"
    )
