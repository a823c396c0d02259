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
