"""`grants shadow`: a trial beside another job that sends nothing and stores nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.cli.test_commands import Cli, cli, environment
from worker.cli.grants import grants

__all__ = ["cli", "environment"]

WRITTEN = 1_700_000_000
"""When the first file was written, in seconds since 1970."""


def dump(place: Path, at: int, ages: dict[str, int]) -> str:
    """Write a file of the other job: creators with the age of their pairs in hours."""
    lines = [
        {"creator_id": name, "access_token": f"act.CANARY{name}{at - age * 3600}", "refresh_token": f"rft.CANARY{name}"}
        | {"issued_at": at - age * 3600, "expires_in": 86_400}
        for name, age in ages.items()
    ]
    undated = {"creator_id": "undated", "access_token": "act.CANARYx", "refresh_token": "rft.CANARYy"}
    place.write_text("".join(json.dumps(line) + "\n" for line in [*lines, undated]))
    os.utime(place, (at, at))
    return str(place)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_trial_says_what_would_be_sent_and_what_the_other_job_did(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """Neither TikTok nor the database nor Redis is asked: none of them is there; no token is printed."""
    for name in ("DATABASE_URL", "REDIS_URL", "TIKTOK_BASE_URL"):
        schemes = {"DATABASE_URL": "postgresql://u:p@", "REDIS_URL": "redis://", "TIKTOK_BASE_URL": "http://"}
        monkeypatch.setenv(f"EVERTOKEN_{name}", f"{schemes[name]}127.0.0.1:{free_port}/0")
    first = dump(tmp_path / "first", WRITTEN, {"ada": 20, "bob": 2})
    second = dump(tmp_path / "second", WRITTEN + 8 * 3600, {"ada": 2, "bob": 10})

    found = cli.json(grants, "shadow", first, "--later", second)
    said = cli(grants, "shadow", first, "--later", second).stdout

    assert (found["written_at"], found["left_out"], found["undated"]) == ("2023-11-14T22:13:20.000Z", 2, 2)
    assert "2 lines left out, 2 of them without a time of issue" in said
    ada, bob = found["plan"]
    assert (ada["creator_id"], ada["sent_at"]) == ("ada", found["written_at"])
    assert bob["sent_at"] > "2023-11-15T10"
    of = {each["creator_id"]: each for each in found["compared"]}
    assert (of["ada"]["theirs_without"], of["ada"]["ours_without"]) == (2 * 3600, 0)
    assert of["bob"]["theirs_at"] is None
    assert "the other job refreshed 1, Evertoken would have refreshed 1" in said
    assert "without a valid token there: 1 creator, 2 h at most" in said
    assert "CANARY" not in "".join(cli.said)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_lines_that_cannot_be_read_are_counted_and_lead_to_their_faults(cli: Cli, tmp_path: Path) -> None:
    """A plan for fewer creators than the file has does not look whole."""
    file = dump(tmp_path / "file", WRITTEN, {"ada": 20})
    Path(file).write_text(Path(file).read_text() + "{broken\n")
    os.utime(file, (WRITTEN, WRITTEN))

    answer = cli(grants, "shadow", file)

    assert "2 lines left out, 1 of them without a time of issue" in answer.stdout
    assert "grants import --dry-run" in answer.stderr


def test_a_pipe_says_not_when_it_was_written(cli: Cli) -> None:
    """One sentence asks for the file itself."""
    refused = cli(grants, "shadow", "-", stdin="{}")

    assert refused.exit_code == 2
    assert refused.stderr == (
        "error: give the file by its name, and no pipe: its modification time says when it was written\n"
    )


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_file_with_an_impossible_time_is_refused(cli: Cli, tmp_path: Path) -> None:
    """One sentence and exit 1, for a time of a copy, of a clock that is wrong, and for files that were swapped."""
    first = dump(tmp_path / "first", WRITTEN, {"ada": 20})
    second = dump(tmp_path / "second", WRITTEN + 8 * 3600, {"ada": 2})

    swapped = cli(grants, "shadow", second, "--later", first)
    os.utime(second, (0, 0))
    copied = cli(grants, "shadow", second)
    os.utime(second, (WRITTEN + 4 * 3600,) * 2)
    ahead = cli(grants, "shadow", first, "--later", second)
    os.utime(second, (time.time() + 7200,) * 2)
    future = cli(grants, "shadow", second)

    for refused, words in (
        (swapped, "swap them"),
        (copied, "second says that it was written at 1970-01-01 00:00"),
        (ahead, "and 1 pair in it was issued after that: copy it with its modification time"),
        (future, "which lies in the future"),
    ):
        assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
        assert words in refused.stderr
