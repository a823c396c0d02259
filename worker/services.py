"""The only place where objects meet: settings become stores, clients and use cases, each built at its first use."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Final

from worker.accounts.pull import Puller
from worker.accounts.resources import RESOURCES
from worker.accounts.schedule import Choice, chosen
from worker.consent.authorize import Authorizer
from worker.consent.exchanges import Exchanges
from worker.consent.forget import Forgetting
from worker.consent.placing import Placing
from worker.consent.revoke import Revocation
from worker.consent.rounds import ConsentRound
from worker.foundation import Foundation
from worker.links import ConsentLinks
from worker.notices.delivery import Notifier
from worker.owners import OwnerCheck
from worker.planning.headroom import Headroom
from worker.planning.reauthorizations import Reauthorizations
from worker.policy.readings import LATE_PULL_SECONDS
from worker.reading import POOL_SIZE, PerProcess
from worker.refresh.brake import Brake
from worker.refresh.call import Caller
from worker.refresh.contract import ContractWatch
from worker.refresh.ending import Ending
from worker.refresh.refresher import Refresher
from worker.refresh.replay import Replayer
from worker.refresh.scan import Scanner
from worker.refresh.settlement import Settlement
from worker.settings import RETRY_PAUSE_SHARE, Settings, load_settings
from worker.store import LateResource
from worker.telemetry import begin_series, serve_metrics
from worker.tiktok import CALLS
from worker.upkeep.idleness import Idleness
from worker.upkeep.preflight import Preflight
from worker.upkeep.presence import Presence
from worker.upkeep.rekey import Rekeyer
from worker.upkeep.upkeep import ConsentReplayer, Retention, Upkeep
from worker.vault.webhooks import WebhookSigner


class Services(Foundation):
    """The use cases of one process, each built once, at its first use."""

    @cached_property
    def settlement(self) -> Settlement:
        """From an answer to a stored pair."""
        return Settlement(self.ground, renew_at=self.settings.renew_at)

    @cached_property
    def brake(self) -> Brake:
        """The app-wide stop."""
        return Brake(self.ground)

    @cached_property
    def caller(self) -> Caller:
        """One refresh call, and those that follow it."""
        settings = self.settings
        return Caller(
            self.ground,
            next_secret=settings.tiktok_app_secret_next,
            call_seconds=settings.deadline_seconds + settings.store_seconds,
            may_repeat=settings.in_doubt_retry == "once",
            longest_pause_seconds=settings.deadline_seconds * RETRY_PAUSE_SHARE,
        )

    @cached_property
    def ending(self) -> Ending:
        """How attempts end."""
        return Ending(
            self.ground, brake=self.brake, settlement=self.settlement, commits=self.commits, watch=self.contract_watch
        )

    @cached_property
    def contract_watch(self) -> ContractWatch:
        """Notices changes of TikTok's contract."""
        return ContractWatch(self.ground)

    @cached_property
    def replayer(self) -> Replayer:
        """Stores the answers to refreshes that are left in journals."""
        return Replayer(self.ground, settlement=self.settlement, own_after_seconds=self.settings.lease_seconds)

    @cached_property
    def refresher(self) -> Refresher:
        """The use case of refreshing."""
        return Refresher(
            self.ground,
            brake=self.brake,
            leases=self.leases,
            caller=self.caller,
            ending=self.ending,
            commits=self.commits,
            owners=self.owners,
            replayer=self.replayer,
            lease_seconds=self.settings.lease_seconds,
        )

    @cached_property
    def owners(self) -> OwnerCheck:
        """Looks up the owners of imported pairs at TikTok."""
        return OwnerCheck(self.ground)

    @cached_property
    def puller(self) -> Puller:
        """The use case of pulling."""
        return Puller(
            self.ground,
            owners=self.owners,
            lease_seconds=self.settings.lease_seconds,
            snapshots_kept=self.settings.snapshots_kept,
            choice=self.pull_choice,
            keeps_answers=self.settings.raw_answer_days > 0,
        )

    @cached_property
    def pull_choice(self) -> Choice:
        """What is pulled, and how much."""
        settings = self.settings
        names = set(settings.pull_resources) | ({"replies"} if "comments" in settings.pull_resources else set())
        return Choice(
            resources=frozenset(names),
            categories=settings.benchmark_categories,
            budget=settings.pull_budget,
            pull_seconds=settings.pull_seconds,
        )

    def late_pulls(self) -> list[LateResource]:
        """Return which account data has been due for hours, of what is chosen and can be read."""
        needs = {resource.name: resource.needs for resource in chosen(RESOURCES, self.pull_choice)}
        return self.store.late_resources(needs, seconds=LATE_PULL_SECONDS)

    @property
    def scopes_not_asked(self) -> dict[str, list[str]]:
        """The scopes that what is chosen needs and no consent link asks for, each with the names of those resources."""
        found: dict[str, list[str]] = {}
        for resource in chosen(RESOURCES, self.pull_choice):
            if resource.needs is not None and resource.needs not in self.settings.tiktok_scopes:
                found.setdefault(resource.needs, []).append(resource.name)
        return found

    @cached_property
    def exchanges(self) -> Exchanges:
        """From the answer to an exchange to a stored consent."""
        return Exchanges(self.ground, renew_at=self.settings.renew_at)

    @cached_property
    def placing(self) -> Placing:
        """The use case of placing pairs that were set aside."""
        return Placing(self.ground, exchanges=self.exchanges)

    @cached_property
    def authorizer(self) -> Authorizer:
        """The use case of authorizing."""
        return Authorizer(
            self.ground,
            exchanges=self.exchanges,
            redirect_uri=self.settings.tiktok_redirect_uri,
            scopes=self.settings.tiktok_scopes,
            state_seconds=self.settings.state_seconds,
            page=self.settings.desk_page,
        )

    @cached_property
    def revocation(self) -> Revocation:
        """The use case of revoking grants."""
        return Revocation(self.ground, owners=self.owners)

    @cached_property
    def consent_round(self) -> ConsentRound:
        """Finds out which grants were taken back although nobody used them."""
        settings = self.settings
        return ConsentRound(
            self.ground,
            per_second=settings.quota_per_second,
            per_minute=settings.quota_per_minute,
            upkeep_seconds=settings.upkeep_seconds,
        )

    @cached_property
    def forgetting(self) -> Forgetting:
        """The use case of forgetting creators."""
        return Forgetting(self.ground, revocation=self.revocation)

    @cached_property
    def upkeep(self) -> Upkeep:
        """Periodic work."""
        consents = ConsentReplayer(
            self.ground,
            settlement=self.settlement,
            own_after_seconds=self.settings.lease_seconds,
            exchanges=self.exchanges,
        )
        settings = self.settings
        retention = Retention(
            raw_answers=settings.raw_answer_days,
            other_people=settings.comment_days,
            history=settings.account_history_days,
            lost_pairs=settings.lost_pairs_days,
        )
        return Upkeep(self.ground, refreshes=self.replayer, consents=consents, retention=retention)

    @cached_property
    def notifier(self) -> Notifier:
        """The use case of delivering notices."""
        return Notifier(
            store=self.store,
            hook=self.hook,
            addresses=self.settings.notice_addresses,
            signer=WebhookSigner(self.settings.notice_secrets),
            egress=self.egress,
            links=ConsentLinks(
                self.store, self.tiktok, scopes=self.settings.tiktok_scopes, page=self.settings.desk_page
            )
            if self.settings.tiktok_scopes
            else None,
        )

    @cached_property
    def scanner(self) -> Scanner:
        """Finds due work."""
        settings = self.settings
        return Scanner(
            self.ground,
            per_second=settings.quota_per_second,
            per_minute=settings.quota_per_minute,
            scan_seconds=settings.scan_seconds,
        )

    @cached_property
    def idleness(self) -> Idleness:
        """Raises an alarm when due grants are not refreshed."""
        return Idleness(self.ground)

    @cached_property
    def headroom(self) -> Headroom:
        """Computes how many times the fleet fits into the quota."""
        settings = self.settings
        return Headroom(
            store=self.store,
            renew_at=settings.renew_at,
            pull_seconds=settings.pull_seconds,
            per_second=settings.quota_per_second,
            per_minute=settings.quota_per_minute,
        )

    @cached_property
    def reauthorizations(self) -> Reauthorizations:
        """Counts the consents that end in the coming year."""
        return Reauthorizations(store=self.store)

    @cached_property
    def preflight(self) -> Preflight:
        """What must hold before a worker claims anything."""
        return Preflight(self.ground, upkeep=self.upkeep)

    @cached_property
    def rekeyer(self) -> Rekeyer:
        """The use case of rotating keys."""
        return Rekeyer(self.ground)

    @cached_property
    def presence(self) -> Presence:
        """Keeps this process on the list of living ones."""
        return Presence(preflight=self.preflight, forgetting=self.forgetting, hook=self.hook)

    def serve_metrics(
        self, port: int, *, silent: Callable[[], float] = lambda: math.nan, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Serve this process's metrics; see `worker.telemetry.serve_metrics`."""
        begin_series(
            calls=[*CALLS, *dict.fromkeys(resource.call for resource in RESOURCES)],
            resources=[resource.name for resource in RESOURCES],
        )
        serve_metrics(
            port,
            address=self.settings.metrics_address,
            namespace=self.settings.namespace,
            headroom=self.headroom.factor,
            store_away=self.store.outages.seconds,
            quota_paused=self.limiter.paused_seconds,
            own_share=self.limiter.keeps_to_own_share,
            beat_silent=self.beat_silent,
            refresh_late=self.refresh_late,
            notices_late=self.notices_late,
            access_life=self.contract_watch.access_seconds,
            consents_ending=self.reauthorizations.within,
            journal=self.journal.load,
            quota=self.limiter.counts,
            silent=silent,
            alive=alive,
        )


def build_services(settings: Settings | None = None) -> Services:
    """Return new services.

    Args:
        settings: what to build from; read from the environment by default.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    return Services(settings or load_settings(), pool_size=POOL_SIZE)


def shared_services() -> Services:
    """Return the services of this process, built from its environment at the first call.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    return _SHARED.get()


_SHARED: Final = PerProcess(build_services)
