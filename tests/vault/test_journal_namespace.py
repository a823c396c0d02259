"""The journal's folder belongs to one namespace: the answers of one installation never reach another's database."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from worker.errors import JournalError
from worker.journal.folder import JournalFolder

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vault.conftest import NewEntry, NewJournal


@pytest.mark.parametrize(("owner", "other"), [(None, "two"), ("one", None), ("one", "two")])
def test_answers_of_another_namespace_are_neither_replayed_nor_joined(
    owner: str | None, other: str | None, folder: Path, new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """A dead process's answers wait for their own installation, with the same keyring as well."""
    dead = new_journal(namespace=owner)
    dead.append(new_entry(1))
    dead.close()
    stranger = new_journal(namespace=other)

    with pytest.raises(JournalError, match="belongs to"):
        list(stranger.orphans())
    with pytest.raises(JournalError, match="belongs to"):
        stranger.ready()

    assert [orphan.entry.grant_id for orphan in new_journal(namespace=owner).orphans()] == [1]
    assert (folder / "namespace").exists() is (owner is not None)


def test_an_empty_folder_is_marked_once_and_kept(folder: Path, new_journal: NewJournal) -> None:
    """It belongs to the first that comes, also when nothing waits in it, and nothing else is left beside the mark."""
    for _ in range(2):
        journal = new_journal(namespace="one")
        journal.ready()
        journal.close()

    assert [path.name for path in folder.iterdir()] == ["namespace"]
    with pytest.raises(JournalError, match="the namespace 'one', and this process has no namespace"):
        new_journal().ready()


def test_a_record_that_an_installation_set_aside_keeps_the_folder(folder: Path, new_journal: NewJournal) -> None:
    """A person would look for it there, and another installation would count it as its own."""
    (folder / "set-aside").mkdir(parents=True)
    (folder / "set-aside" / "aside-1.segment").touch()
    folder.chmod(0o700)

    with pytest.raises(JournalError, match="an installation without a namespace"):
        new_journal(namespace="one").ready()


def test_of_two_that_mark_a_folder_at_once_the_second_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have found the folder empty; the mark is made in one step, and looked at again."""
    real = os.link

    def link(source: Path, target: Path) -> None:
        (folder / "first").write_text("one\n", encoding="utf-8")
        real(folder / "first", target)
        real(source, target)

    monkeypatch.setattr("worker.journal.folder.os.link", link)

    with pytest.raises(JournalError, match="the namespace 'one', and this process has the namespace 'two'"):
        JournalFolder(folder, "two").prepare()


@pytest.mark.parametrize("there", [True, False])
def test_a_probe_leaves_nothing_behind(folder: Path, new_journal: NewJournal, *, there: bool) -> None:
    """A mistyped namespace that only looks marks no folder, and makes none: the real installation still begins."""
    if there:
        folder.mkdir(0o750)

    assert new_journal(namespace="mistyped").probe() is there

    assert folder.exists() is there
    assert not there or (list(folder.iterdir()), folder.stat().st_mode & 0o777) == ([], 0o750)
    new_journal().ready()


def test_a_probe_refuses_what_a_start_would_refuse(
    folder: Path, new_journal: NewJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's folder, one where no file can be made, and one that cannot be made itself."""
    new_journal(namespace="one").ready()
    with pytest.raises(JournalError, match="belongs to the namespace 'one'"):
        new_journal().probe()
    with pytest.raises(JournalError, match="nearly full"):
        new_journal(namespace="one", floor_bytes=2**62).probe()
    with pytest.raises(JournalError, match="a journal file cannot be made in"):
        new_journal(namespace="one", segment_bytes=2**62).probe()
    with pytest.raises(JournalError, match="Not a directory"):
        new_journal(directory=folder / "namespace" / "below").probe()
    monkeypatch.setattr("worker.journal.folder.os.access", lambda path, _: path != folder)  # root may write everywhere
    with pytest.raises(JournalError, match=r"cannot be made: .*/journal cannot be written"):
        new_journal(directory=folder / "missing" / "below").probe()


def test_the_refusal_names_the_mark_and_when_it_may_go(folder: Path, new_journal: NewJournal) -> None:
    """A mark that was made by mistake is removed by hand, and then the folder is free again."""
    marked = new_journal(namespace="mistyped")
    marked.ready()
    marked.close()

    with pytest.raises(JournalError, match=r"neither a file `\*\.segment` nor .* remove its file `namespace`"):
        new_journal().ready()
    (folder / "namespace").unlink()
    new_journal().ready()
