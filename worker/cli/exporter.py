"""`celery -A worker exporter`: the fleet's metrics for Prometheus, read once a minute by one process."""

from __future__ import annotations

import math
import signal
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import click

from worker.cli import output
from worker.cli.alive import SEEN_SECONDS, WITHIN_SECONDS, fleet_alive
from worker.signalled import SignalFlag

if TYPE_CHECKING:
    from worker.services import Services
    from worker.store import FleetStatus
    from worker.telemetry.fleet import FleetMetrics

WEEKS: Final = 13


@click.command(cls=output.Command)
@click.option("--every", type=output.Number(min=1, max=3600), default=60, show_default=True, help="Seconds of a round.")
def exporter(every: float) -> None:
    """Serve the fleet's metrics on EVERTOKEN_EXPORTER_PORT until SIGTERM or Ctrl-C.

    One process is enough for all hosts. It needs the database, Redis, the broker and the keyring, and changes nothing.
    """
    from worker.telemetry import (  # noqa: PLC0415 - Celery loads this module on every start
        Fact,
        begin_remote,
        configure_logging,
        report,
    )
    from worker.telemetry.fleet import FleetMetrics  # noqa: PLC0415 - as above
    from worker.telemetry.serving import serve  # noqa: PLC0415 - as above
    from worker.watchdog import FEED_SECONDS, feed, touch  # noqa: PLC0415 - as above

    stop = SignalFlag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.set)
    with output.services(fit=False) as services:
        settings = services.settings
        configure_logging(log_format=settings.log_format, level=settings.log_level, namespace=settings.namespace)
        begin_remote({"process": "exporter"}, namespace=settings.namespace, traces=False)
        rounds = Rounds(services, FleetMetrics(version(output.APP_NAME), settings.namespace))
        rounds.once()
        address, port = settings.metrics_address, settings.exporter_port
        try:
            registry = rounds.metrics.registry
            pages = {"/alive": rounds.alive}
            serve(port, address, registry, alive=lambda: rounds.age() < 3 * every, report=report, pages=pages)
        except OSError as error:
            output.fail(f"the exporter cannot listen on {address} port {port}: {error.strerror or error}")
        report(Fact("exporter.started", {"address": address, "port": port}))
        pause = 0.0
        while not stop.wait(pause):
            if rounds.age() >= every:
                rounds.once()
            feed()
            touch(settings.run_dir, "exporter")
            pause = min(FEED_SECONDS, max(0.0, every - rounds.age()))
    sys.exit(0)


class Rounds:
    """Reads the fleet, round by round; a database that is away costs a round and is reported once."""

    def __init__(self, services: Services, metrics: FleetMetrics) -> None:
        """Read nothing yet.

        Args:
            services: where the figures come from.
            metrics: what is served.
        """
        self.metrics = metrics
        self._services = services
        self._away = False
        self._read_at: float | None = None
        self._tried_at = time.monotonic()

    def age(self) -> float:
        """Return the seconds since a round last ended, in whatever way."""
        return time.monotonic() - self._tried_at

    def alive(self) -> tuple[bool, str]:
        """Return what `evertoken alive` says, asked now, also if the database is away: no word of its own is shown."""
        from worker.errors import EvertokenError, StoreRefusedError  # noqa: PLC0415 - as above

        try:
            return fleet_alive(self._services, WITHIN_SECONDS)
        except StoreRefusedError:
            return False, "not alive: the database refuses what it is asked; `evertoken alive` says why"
        except EvertokenError:
            return False, "not alive: the database does not answer"

    def once(self) -> None:
        """Read the figures and serve them, or serve none."""
        from worker.errors import EvertokenError  # noqa: PLC0415 - as above
        from worker.telemetry import Fact, report  # noqa: PLC0415 - as above

        try:
            self._read()
        except EvertokenError as error:
            self.metrics.failed()
            if not self._away:
                report(Fact("exporter.failed", {"reason": str(error)}, level="error"))
            self._away = True
        else:
            if self._away:
                report(Fact("exporter.reads_again", level="warning"))
            self._away = False
        self._tried_at = time.monotonic()

    def _read(self) -> None:
        from worker.store import GrantCondition  # noqa: PLC0415 - as above
        from worker.telemetry.fleet import BOUNDS, FleetFigures  # noqa: PLC0415 - as above

        services, began = self._services, time.monotonic()
        store = services.store
        services.preflight.check_schema()
        window = 0.0 if self._read_at is None else began - self._read_at
        lives = store.token_lives(BOUNDS, window_seconds=window)
        status, waiting = store.fleet_status(), self._waiting()
        late_pulls, oldest_pulls = self._late_pulls()
        ending = {one.week: one.grants for one in store.ends_by_week(weeks=WEEKS)}
        figures = FleetFigures(
            states=status.by_status,
            conditions={each.value: getattr(status, each.value) for each in GrantCondition},
            ends_within=lives.within,
            seconds_left=lives.seconds,
            single=self._single(status) | {"fleet_broker_up": waiting is not None},
            reauthorizations=[ending.get(week, 0) for week in range(WEEKS)],
            seals=store.key_usage(),
            held=frozenset(services.keyring.keys),
            waiting=waiting or {},
            late_pulls=late_pulls,
            oldest_pulls=oldest_pulls,
        )
        self._read_at = began
        self.metrics.found(figures, late_seconds=lives.late_seconds, waiting_seconds=lives.waiting_seconds)

    def _single(self, status: FleetStatus) -> dict[str, float]:
        """Return the metrics of one value each, except what the broker says."""
        services, store = self._services, self._services.store
        brake, tick, limits = store.brake(), store.tick_age(), services.limiter.status()
        least, paused_least = status.least_seconds_left, status.paused_seconds_left
        return {
            "fleet_least_seconds_left": math.inf if least is None else least,
            "fleet_paused_least_seconds_left": math.inf if paused_least is None else paused_least,
            "fleet_oldest_due_seconds": status.oldest_due_seconds,
            "fleet_brake": brake.stopped,
            "fleet_hold": brake.held_reason is not None,
            "fleet_quota_paused_seconds": limits.paused_seconds,
            "fleet_quota_headroom": services.headroom.factor(),
            "fleet_redis_up": limits.shared,
            "fleet_workers": len(store.workers_seen(SEEN_SECONDS)),
            "fleet_beat_silent_seconds": math.nan if tick is None else tick,
            "fleet_notices_waiting": store.undelivered_count(),
            "fleet_notices_late_seconds": services.notices_late(),
        }

    def _waiting(self) -> dict[str, int] | None:
        """Return how many messages wait in each queue; None if the broker does not say."""
        from worker.errors import BrokerUnavailableError  # noqa: PLC0415 - as above

        try:
            return {queue: look.waiting for queue, look in self._services.broker.look().items()}
        except BrokerUnavailableError:
            return None

    def _late_pulls(self) -> tuple[dict[str, int], dict[str, float]]:
        """Return, for each resource, how many creators have waited for it too long, and the longest wait in seconds."""
        from worker.accounts.resources import RESOURCES  # noqa: PLC0415 - as above

        creators, seconds = {each.name: 0 for each in RESOURCES}, {each.name: 0.0 for each in RESOURCES}
        at = self._services.store.ping()
        for late in self._services.late_pulls():
            creators[late.resource] = late.creators
            seconds[late.resource] = (at - late.oldest_at).total_seconds()
        return creators, seconds
