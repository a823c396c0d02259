"""A file that a command writes is there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.cli.keyring_file import write_new
from worker.cli.whole_file import whole_file
from worker.errors import EvertokenError, NotFoundError, UsageError


def test_a_file_appears_at_the_end_for_its_owner_alone(tmp_path: Path) -> None:
    """Until then the place has what it had, and a folder that is missing is made."""
    place = tmp_path / "new" / "file"
    with whole_file(place, replaces=False) as part:
        part.write_text("whole")
        assert not place.exists()

    assert place.read_text() == "whole"
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in place.parent.iterdir()] == ["file"]
    with whole_file(place, replaces=True) as part:
        part.write_text("newer")
        assert place.read_text() == "whole"
    assert place.read_text() == "newer"


def test_what_came_there_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """Two commands with one name: the second says so and leaves nothing behind."""
    place = tmp_path / "file"
    with pytest.raises(UsageError, match="file exists"), whole_file(place, replaces=False):
        place.write_text("another's")

    assert place.read_text() == "another's"
    assert list(tmp_path.iterdir()) == [place]


def test_a_full_disk_is_said_with_the_files_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a half file nor one under a name that nobody knows."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(NotFoundError, match="file was not written: No space left on device"),
        whole_file(tmp_path / "file", replaces=False) as part,
    ):
        part.write_text("mine")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "write", [lambda path: whole_file(path, replaces=False).__enter__(), lambda path: write_new(path, "x")]
)
@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("-", "not standard output: name a file"),
        ("/proc/none/file", "/proc/none/file was not written: No such file or directory; make its folder first"),
        ("/sys/file", "/sys/file was not written: .*; name a folder in which you may write"),
        ("x" * 300, "was not written: File name too long; give it a shorter name"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_with_what_to_do(
    write: Callable[[Path], object], place: str, sentence: str
) -> None:
    """Whatever writes a file: a dash makes no file of that name, and a folder that is no good is named."""
    with pytest.raises(EvertokenError, match=sentence):
        write(Path(place))

    assert not Path("-").exists()


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("below", ["file", "deep/file"])
def test_a_file_in_the_place_of_a_folder_is_said(tmp_path: Path, below: str, replaces: bool) -> None:
    """The asked file does not exist, and the sentence does not say that it does."""
    (tmp_path / "taken").write_text("mine")

    with (
        pytest.raises(UsageError, match="was not written: a file has the name of its folder"),
        whole_file(tmp_path / "taken" / below, replaces=replaces),
    ):
        pass

    assert (tmp_path / "taken").read_text() == "mine"
