"""Looking into the journals of living processes: whose answers wait there."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker.journal.file import BLOCK, mapped
from worker.vault import Keyring, Sealer

if TYPE_CHECKING:
    from tests.vault.conftest import NewEntry, NewJournal


def test_an_answer_that_another_process_holds_is_seen_until_it_is_released(
    new_journal: NewJournal, new_entry: NewEntry
) -> None:
    """Grant, consent and generation must all fit; what was released, or never written, is not there."""
    holder, looker = new_journal(), new_journal()
    assert not looker.holds(1, 1, [2])
    record = holder.append(new_entry(1))
    own = looker.append(new_entry(2))

    assert looker.holds(1, 1, [1, 2])
    assert looker.holds(2, 1, [2])
    assert not looker.holds(1, 1, [])
    assert not looker.holds(1, 1, [3])
    assert not looker.holds(1, 2, [2])
    assert not looker.holds(3, 1, [2])

    holder.release(record)
    looker.release(own)
    assert not looker.holds(1, 1, [2])
    assert not looker.holds(2, 1, [2])


def test_what_cannot_be_read_says_nothing(
    new_journal: NewJournal, new_entry: NewEntry, folder: Path, alarms: list[str]
) -> None:
    """A record of another key and a damaged header are no answer, and raise no alarm: the replay reports them."""
    foreign = new_journal(sealer=Sealer(Keyring.new()))
    foreign.append(new_entry(1))
    (folder / "odd.segment").write_bytes(b"no header")

    assert not new_journal().holds(1, 1, [2])
    assert alarms == []


def test_looking_keeps_the_files_out_of_the_heap(new_journal: NewJournal, new_entry: NewEntry) -> None:
    """The heaps of the threads that look never give a file's size back, so no file is read into them."""
    holder, looker = new_journal(segment_bytes=8 * 2**20), new_journal()
    for number in range(50):
        holder.release(holder.append(new_entry(number, body=bytes(20_000))))
    holder.append(new_entry(1))

    tracemalloc.start()
    try:
        assert looker.holds(1, 1, [2])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 5])
def test_a_file_is_mapped_to_its_last_byte_that_is_not_zero(tmp_path: Path, size: int) -> None:
    """Wherever that byte lies; what follows is zeros, as in the file."""
    path = tmp_path / "file"
    for last in {0, 1, size // 2, size - 2, size - 1, size} & set(range(size + 1)):
        content = (bytes(max(last - 1, 0)) + b"x" * min(last, 1)).ljust(size, b"\0")
        path.write_bytes(content)
        with mapped(path) as memory:
            assert content.startswith(memory[:])
            assert not content[len(memory) :].strip(b"\0")
