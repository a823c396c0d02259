"""What all use cases share: store, client, limiter, journal and keys, each built at its first use."""

from __future__ import annotations

import math
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from worker.broker import Broker, broker_of
from worker.egress import Egress, Proxy
from worker.errors import EvertokenError, StoreUnavailableError
from worker.failpoints import Failpoint, failpoint_of
from worker.ground import Ground
from worker.journal import Journal
from worker.limiter import Limiter
from worker.reading import Reading
from worker.refresh.commits import PatientCommits
from worker.refresh.leases import LeaseKeeper
from worker.settings import Settings
from worker.telemetry import Fact, FactValue, Hook, observe_call, report
from worker.tiktok import TikTok

HOST_LETTERS: Final = 48
"""Letters of the host in a process's name, which has at most 64: the process id and six digits need the rest."""


def shortened(host: str) -> str:
    """Return a host's name, the middle of a long one cut out: pods differ at the end, domains at the beginning."""
    half = HOST_LETTERS // 2
    return host if len(host) <= HOST_LETTERS else f"{host[: half - 1]}~{host[-half:]}"


class Foundation(Reading):
    """The outside world of one process; each part is built once, at its first use, and nothing is opened before."""

    settings: Settings

    def __init__(self, settings: Settings, *, pool_size: int) -> None:
        """Keep what the parts are built from, as `Reading` does."""
        super().__init__(settings, pool_size=pool_size)
        self.stop = threading.Event()
        self.owner = f"{shortened(socket.gethostname())}:{os.getpid()}:{secrets.token_hex(3)}"
        self.hook: Hook = report

    @cached_property
    def failpoint(self) -> Failpoint:
        """Called at each step; the fault tests use it, and elsewhere it does nothing."""
        return failpoint_of(os.environ, sandboxed=self.settings.sandboxed)

    @cached_property
    def egress(self) -> Egress:
        """Sends requests to TikTok and to the receiver of notices."""
        proxy = self.settings.egress_proxy
        return Egress(None if proxy is None else Proxy.from_url(proxy), self.settings.ca_file)

    @cached_property
    def tiktok(self) -> TikTok:
        """The client of TikTok."""
        settings = self.settings
        return TikTok(
            app_id=settings.tiktok_app_id,
            app_secret=settings.tiktok_app_secret,
            redirect_uri=settings.tiktok_redirect_uri,
            base_url=settings.tiktok_base_url,
            authorize_url=settings.tiktok_authorize_url,
            connect_seconds=settings.connect_seconds,
            deadline_seconds=settings.deadline_seconds,
            egress=self.egress,
            failpoint=self.failpoint,
            observe=observe_call,
        )

    @cached_property
    def broker(self) -> Broker:
        """A look into the broker; one thread uses it at a time."""
        return broker_of(self.settings)

    @cached_property
    def limiter(self) -> Limiter:
        """The quota, shared through Redis."""
        return Limiter(
            self.settings.redis_url,
            prefix=self.settings.key_prefix,
            app_id=self.settings.tiktok_app_id,
            per_second=self.settings.quota_per_second,
            per_minute=self.settings.quota_per_minute,
            per_account_minute=self.settings.quota_per_account_minute,
            report=self._report,
        )

    @cached_property
    def journal(self) -> Journal:
        """This process's journal."""
        return Journal(
            self.settings.journal_dir,
            self.sealer,
            owner=self.owner,
            namespace=self.settings.namespace,
            failpoint=self.failpoint,
            alarm=self._alarm,
        )

    @cached_property
    def commits(self) -> PatientCommits:
        """Results on their way to the database."""
        return PatientCommits(
            patience_seconds=self.settings.store_seconds,
            alive=self._database_answers,
            stop=self.stop,
            hook=self.hook,
        )

    @cached_property
    def leases(self) -> LeaseKeeper:
        """Extends the leases of attempts that take long."""
        return LeaseKeeper(store=self.store, hook=self.hook, lease_seconds=self.settings.lease_seconds, stop=self.stop)

    @cached_property
    def ground(self) -> Ground:
        """What use cases share, as one value."""
        return Ground(
            store=self.store,
            sealer=self.sealer,
            journal=self.journal,
            limiter=self.limiter,
            tiktok=self.tiktok,
            hook=self.hook,
            owner=self.owner,
            stop=self.stop,
            failpoint=self.failpoint,
        )

    def report_outages(self) -> None:
        """Report when the database goes away and when it is back, one fact each, however many statements fail."""
        self.store.outages.watch(
            on_away=lambda reason: self.hook(Fact("store.unavailable", {"reason": reason}, level="error")),
            on_back=lambda seconds: self.hook(Fact("store.available", {"away_seconds": round(seconds, 1)})),
        )

    def close(self) -> None:
        """Wake waiting threads and close what was opened; results that are not in the database stay in the journal."""
        self.stop.set()
        for name in ("leases", "tiktok", "limiter", "journal", "store"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def _database_answers(self) -> bool:
        try:
            self.store.ping()
        except StoreUnavailableError:
            return False
        return True

    def beat_silent(self) -> float:
        """Return the seconds since beat's last message reached a worker; NaN if none did, or the database is away."""
        try:
            age = None if self.store.outages.seconds() else self.store.tick_age()
        except EvertokenError:
            age = None
        return math.nan if age is None else age

    def refresh_late(self) -> float:
        """Return the seconds for which the grant that waits longest has been due; NaN if the database is away."""
        try:
            return math.nan if self.store.outages.seconds() else self.store.due_seconds()
        except EvertokenError:
            return math.nan

    def notices_late(self) -> float:
        """Return for how many seconds the oldest notice has waited that may go out; NaN if the database is away."""
        names = [address.name for address in self.settings.notice_addresses]
        try:
            return math.nan if self.store.outages.seconds() else self.store.notice_waits(names)
        except EvertokenError:
            return math.nan

    def _report(self, name: str, fields: Mapping[str, FactValue], level: str) -> None:
        self.hook(Fact(name, fields, level=level))

    def _alarm(self, text: str) -> None:
        self.hook(Fact("journal.alarm", {"reason": text}, level="error"))
