"""A fleet of workers as threads of one process, each with services and a keyring of its own, deployed one by one."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.world import World
from worker.errors import NotFoundError, SealError, StoreUnavailableError
from worker.services import Services
from worker.store import GrantView
from worker.telemetry import Fact
from worker.tokens import token_reader
from worker.upkeep.presence import Presence
from worker.vault.keyring_text import KeyringText

LOOK_SECONDS: Final = 0.05
HELLO_SECONDS: Final = 0.2
BATCH: Final = 5
READ_AT_ONCE: Final = 5


def presence_of(services: Services, facts: list[Fact], *, on_unfit: Callable[[], None]) -> Presence:
    """Return what keeps services on the list; a refusal is recorded, and ends no process here."""
    return Presence(
        preflight=services.preflight,
        forgetting=services.forgetting,
        hook=facts.append,
        on_unfit=on_unfit,
        seconds=HELLO_SECONDS,
    )


class Worker:
    """One worker: refreshes what is due and reads tokens, until it is asked to end."""

    def __init__(self, services: Services, facts: list[Fact]) -> None:
        self.services = services
        self.reads = 0
        self.failed_opens: list[str] = []
        self._ending = threading.Event()
        services.hook = facts.append
        self._presence = presence_of(services, facts, on_unfit=self._ending.set)
        self._presence.begin()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def end(self) -> None:
        """Finish what is under way, leave the list and close."""
        self._ending.set()
        self._thread.join()
        self._presence.leave()
        self.services.close()

    def refresh(self, grant: GrantView) -> None:
        """Refresh a grant now, and store its pair with this worker's keys."""
        outcome = self.services.refresher.refresh(grant.grant_id, force=True)
        assert outcome.kind == "refreshed", outcome

    def _work(self) -> None:
        services = self.services
        while not self._ending.wait(LOOK_SECONDS):
            try:
                services.refresher.refresh_all([grant.grant_id for grant in services.store.due(BATCH)])
                grants = services.store.grants(limit=100)
                for grant in random.sample(grants, min(len(grants), READ_AT_ONCE)):
                    self.read(grant.creator_id)
            except StoreUnavailableError:
                continue  # as a task's next scan does

    def read(self, creator_id: str) -> None:
        """Open the access token of a creator, and count it."""
        try:
            token_reader(self.services).access_token(creator_id)
        except SealError as error:
            self.failed_opens.append(f"{creator_id}: {error}")
        except NotFoundError as error:
            self.failed_opens.append(str(error))
        self.reads += 1


class Fleet:
    """Workers that share a database, and the keyring's file that an operator changes."""

    def __init__(self, world: World, keyring: str, path: Path, *, size: int) -> None:
        """Start the workers.

        Args:
            world: the database, TikTok and settings.
            keyring: the keyring that all begin with.
            path: the keyring's file.
            size: how many workers.
        """
        self.path = path
        self.facts: list[Fact] = []
        self.ended: list[Worker] = []
        self._world = world
        path.write_text(keyring)
        self._workers = [self._new() for _ in range(size)]

    def deploy(self, extra: GrantView | None = None) -> None:
        """Give every worker the keyring as it is in the file, one after the other.

        Args:
            extra: a grant that each new worker refreshes and all workers then read, while some have the old keyring.
        """
        for number, worker in enumerate(self._workers):
            worker.end()
            self.ended.append(worker)
            self._workers[number] = self._new()
            if extra is not None:
                self._workers[number].refresh(extra)
                for each in self._workers:
                    each.read(extra.creator_id)

    def change(self, change: Callable[[KeyringText], KeyringText]) -> KeyringText:
        """Change the keyring's file."""
        changed = change(KeyringText.read(self.path.read_text()))
        self.path.write_text(changed.to_json())
        return changed

    def operator(self) -> Services:
        """Return the services of a command with the keyring in the file; close them."""
        return self._world.another(KEYRING_FILE=str(self.path), KEYRING="")

    def end(self) -> None:
        """End all workers."""
        while self._workers:
            self.ended.append(self._workers.pop())
            self.ended[-1].end()

    def reads(self) -> int:
        """Return how many tokens were read."""
        return sum(worker.reads for worker in self.ended + self._workers)

    def refreshed(self) -> set[int]:
        """Return the grants whose refresh was stored."""
        saved = [fact.fields["grant_id"] for fact in self.facts if fact.name == "refresh.saved"]
        return {grant_id for grant_id in saved if isinstance(grant_id, int)}

    def failed_opens(self) -> list[str]:
        """Return every token that could not be opened, and every row that a refresh could not read."""
        reported = [fact.name for fact in self.facts if fact.name.endswith(("unreadable", "unfit"))]
        return reported + [failed for worker in self.ended for failed in worker.failed_opens]

    def _new(self) -> Worker:
        return Worker(self._world.another(KEYRING_FILE=str(self.path), KEYRING=""), self.facts)
