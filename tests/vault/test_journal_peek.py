"""Looking into the journals of living processes: whose answers wait there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
