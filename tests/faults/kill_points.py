"""What becomes of a token whose worker is killed at each point of its way.

`python -m tests.faults.kill_points` runs it and writes `docs/kill_points.md`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import start_redis
from tests.faults.oracle import judge, window_kills
from tests.faults.scene import CANARY, Scene, settings_of
from tests.faults.workers import REPOSITORY, Nursery
from worker.failpoints import NAMES
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import start_sandbox
from worker.store import GrantStatus, GrantView, open_store
from worker.tokens import token_reader
from worker.vault import Keyring

PAGE: Final = REPOSITORY / "docs" / "kill_points.md"
ROTATIONS: Final = ("strict", "grace")
ORDER: Final = (
    ("pre_claim", "before the claim"),
    ("post_claim", "after the claim has committed"),
    ("pre_send", "before the lease is checked for the last time"),
    ("post_send", "after the request has left"),
    ("post_recv", "after the last byte of the answer"),
    ("pre_journal", "before the journal's write"),
    ("post_write", "after the journal's write, before its sync"),
    ("post_fsync", "after the journal's sync"),
    ("pre_commit", "before the database's transaction"),
    ("post_commit", "after it, before the journal record is released"),
)
HEAD: Final = """\
# A worker is killed at each point of a token's way

Written by `python -m tests.faults.kill_points` from a run in which a real process was ended with SIGKILL at each point,
once with a TikTok that refuses a used refresh token (strict rotation) and once with one that answers it again for a
while (grace). `tests/faults/test_kill_points.py` runs the same on SQLite and PostgreSQL and fails if this page says
something else.

"Calls" counts the refreshes that TikTok had received when the process died, and the next column says where the new pair
was at that time. In the rows between the last byte of an answer and the journal's write, the pair is only in the memory
of the killed process: no design that runs in one process can save it. `make chaos` measures how wide that window is. In
every row the old access token is still served right after the kill.

| killed | rotation | calls | the pair at that time | what ended it | the creator |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Fate:
    """What became of one token.

    Attributes:
        calls: refreshes that TikTok had got when the process died.
        place: where TikTok's new pair was when the process died.
        ended_by: what brought the grant to its end.
        asked: True if the creator had to authorize again.
    """

    point: str
    rotation: str
    calls: int
    place: str
    ended_by: str
    asked: bool

    @property
    def row(self) -> str:
        """The page's line."""
        what = dict(ORDER)[self.point]
        creator = "asked to authorize again, once" if self.asked else "notices nothing"
        return (
            f"| `{self.point}`: {what} | {self.rotation} | {self.calls} | {self.place} | {self.ended_by} | {creator} |"
        )


UNSENT: Final = frozenset({"pre_claim", "post_claim", "pre_send"})
"""Points before the request leaves."""


def fate_of(scene: Scene, point: str, rotation: str) -> Fate:
    """Kill a worker at a point, let everything recover, and return what became of its grant.

    Raises:
        AssertionError: the oracle found something.
    """
    grant = scene.creator()
    killed = scene.refresh(grant, at=f"{point}:kill")
    killed.ended()
    assert killed.was_killed, killed.said()
    calls = _calls_at_death(scene, grant, sent=point not in UNSENT)
    assert token_reader(scene.world.services).access_token(grant.creator_id, min_validity=60)
    place = _place(scene, grant.creator_id)
    scene.drain()
    evidence = scene.evidence()
    findings = judge(evidence)
    assert not findings, findings
    after = scene.look(grant)
    lost = bool(window_kills(evidence))
    assert lost == (place == "in the killed process alone" and rotation == "strict"), (place, lost)
    asked = after.status is GrantStatus.NEEDS_REAUTH
    return Fate(point, rotation, calls, place, _ending(calls, place, asked=asked), asked)


def page(fates: list[Fate]) -> str:
    """Return the page."""
    return HEAD + "\n".join(fate.row for fate in fates) + "\n"


def _place(scene: Scene, creator_id: str) -> str:
    live = scene.sandbox.creator(creator_id)["fp_refresh"]
    issued = [entry for entry in scene.sandbox.entries() if entry.creator == creator_id and entry.fp_new_refresh]
    if len(issued) == 1:
        return "not given yet"
    if live in scene.world.stored().get(creator_id, set()):
        return "in the database, and still in the journal" if live in scene.kept() else "in the database"
    return "in the journal" if live in scene.kept() else _lost_place(scene, live)


def _lost_place(scene: Scene, live: str) -> str:
    received = any(note.what == "over" and note.fp == live for note in scene.notes())
    return "in the killed process alone" if received else "on its way, read by nobody"


def _calls_at_death(scene: Scene, grant: GrantView, *, sent: bool) -> int:
    """Return how many refreshes TikTok got; one that has just left may still be on its way into the ledger."""
    deadline = time.monotonic() + 10
    while not (calls := len(scene.world.refreshes(grant))) and sent and time.monotonic() < deadline:
        time.sleep(0.01)
    return calls


def _ending(calls: int, place: str, *, asked: bool) -> str:
    if asked:
        return "the used token was refused, and again when the access token had ended"
    if "journal" in place:
        return "the journal was replayed" if "database" not in place else "the replay changed nothing"
    return "the next worker refreshed" if calls == 0 else "the next worker sent the used token and got the pair again"


def main() -> None:
    """Run every row on SQLite and write the page."""
    assert {point for point, _ in ORDER} == NAMES
    fates = []
    with (
        tempfile.TemporaryDirectory() as folder,
        start_redis() as redis,
        Nursery() as nursery,
        start_sandbox(SandboxOptions(canary=CANARY, grace_seconds=60)) as sandbox,
    ):
        for point, _ in ORDER:
            for rotation in ROTATIONS:
                here = Path(folder, f"{point}-{rotation}")
                here.mkdir()
                url = f"sqlite:///{here / 'evertoken.db'}"
                store = open_store(url)
                store.upgrade()
                store.close()
                sandbox.change(rotation=rotation)
                environ = settings_of(
                    sandbox, database_url=url, redis_url=redis.url, keyring=Keyring.new(), folder=here
                )
                scene = Scene(sandbox, nursery, environ, here)
                fates.append(fate_of(scene, point, rotation))
                scene.close()
    PAGE.write_text(page(fates), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(REPOSITORY)} is written.\n")


if __name__ == "__main__":
    main()
