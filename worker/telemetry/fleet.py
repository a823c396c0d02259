"""The fleet's metrics, which one process serves for all: `evertoken exporter`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

HOUR: Final = 3600.0
BOUNDS: Final = (0.0, 900.0, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, 24 * HOUR, 7 * 24 * HOUR)
"""Seconds left of an access token; the first bound counts the tokens that have ended."""


@dataclass(frozen=True)
class FleetFigures:
    """What one round of the exporter found.

    Attributes:
        states: grants by status.
        conditions: grants by condition; a grant may be in several.
        ends_within: for each of BOUNDS, grants whose access token ends within that number of seconds.
        seconds_left: what is left of all access tokens together.
        single: metrics of one value each, by name without prefix.
        reauthorizations: creators whose consent ends, for each week from now on.
        seals: stored pairs by the key that sealed them.
        held: the keys that the exporter's keyring has.
        waiting: messages that wait in each queue; empty if the broker does not say.
        late_pulls: by resource, how many creators have waited for it longer than usual.
        oldest_pulls: by resource, for how many seconds the creator has waited who waits longest among them; 0 if none.
    """

    states: Mapping[str, int]
    conditions: Mapping[str, int]
    ends_within: Sequence[int]
    seconds_left: float
    single: Mapping[str, float]
    reauthorizations: Sequence[int]
    seals: Mapping[int, int]
    held: frozenset[int]
    waiting: Mapping[str, int]
    late_pulls: Mapping[str, int]
    oldest_pulls: Mapping[str, float]


SINGLE: Final = {
    "fleet_least_seconds_left": "Seconds until the next access token of a grant that is refreshed ends.",
    "fleet_paused_least_seconds_left": "Seconds until the next access token of a paused grant ends.",
    "fleet_oldest_due_seconds": "How long the grant that waits longest has been due; 0 if none is due.",
    "fleet_brake": "1 while refreshing is stopped for the whole app, else 0.",
    "fleet_hold": "1 while refusals are held, so that no creator is asked to authorize again, else 0.",
    "fleet_quota_paused_seconds": "How long nothing will be sent, because TikTok says that a limit is broken; 0 if no.",
    "fleet_quota_headroom": "How many times the stored fleet's refreshes and pulls fit into the quota.",
    "fleet_redis_up": "1 if Redis answers the exporter, else 0.",
    "fleet_broker_up": "1 if what carries messages, Redis or RabbitMQ, answers the exporter and takes some, else 0.",
    "fleet_workers": "Processes of workers that reported within the last two minutes.",
    "fleet_beat_silent_seconds": "Seconds since a message from beat last reached a worker; NaN before the first.",
    "fleet_notices_waiting": "Notices that no address has accepted yet.",
    "fleet_notices_late_seconds": "For how long the oldest notice has waited that may go out; 0 if none waits.",
}
"""Metrics of one value each: name without prefix, and help."""


class FleetCollector(Collector):
    """Serves the newest figures; none while the database is away, so that no old figure looks like a new one."""

    def __init__(self) -> None:
        self.figures: FleetFigures | None = None

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the fleet."""
        figures = self.figures
        if figures is None:
            return
        keys = sorted(figures.seals.keys() | figures.held)
        yield _gauges("grants", "Grants by status.", "state", figures.states)
        text = "Grants by condition; a grant may be in several, or in none."
        yield _gauges("condition_grants", text, "condition", figures.conditions)
        text = "Creators whose consent ends, by week from now; 0 has those that ended."
        yield _gauges("reauthorizations", text, "week", dict(enumerate(figures.reauthorizations)))
        text = "Stored pairs by the key that sealed them."
        yield _gauges("seals", text, "key_id", {key_id: figures.seals.get(key_id, 0) for key_id in keys})
        text = "1 if the exporter's keyring has this key, 0 if it lacks one that is in use."
        yield _gauges("key_held", text, "key_id", {key_id: key_id in figures.held for key_id in keys})
        text = "Messages that wait in a queue and that no worker has got yet."
        yield _gauges("queue_messages", text, "queue", figures.waiting)
        text = "Creators whose account data of this resource has been due for more than six hours."
        yield _gauges("late_pulls", text, "resource", figures.late_pulls)
        text = "How long the creator has waited who waits longest for this resource; 0 if none waits for six hours."
        yield _gauges("oldest_pull_seconds", text, "resource", figures.oldest_pulls)
        for name, text in SINGLE.items():
            yield GaugeMetricFamily(f"evertoken_{name}", text, value=figures.single[name])
        total = sum(figures.states.get(state, 0) for state in ("active", "suspect"))
        yield GaugeHistogramMetricFamily(
            "evertoken_fleet_seconds_left",
            "Seconds left of the access tokens of all grants that are refreshed, now.",
            buckets=[*zip(map(floatToGoString, BOUNDS), figures.ends_within, strict=True), ("+Inf", total)],
            gsum_value=figures.seconds_left,
        )


def _gauges(name: str, text: str, label: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"evertoken_fleet_{name}", text, labels=[label])
    for labelled, value in values.items():
        family.add_metric([str(labelled)], value)
    return family


class FleetMetrics:
    """All that the exporter serves.

    Attributes:
        registry: what is served.
    """

    def __init__(self, version: str, namespace: str | None = None) -> None:
        """Make all series.

        Args:
            version: Evertoken's own.
            namespace: of the installation whose fleet it is.
        """
        self.registry = CollectorRegistry()
        self._fleet = FleetCollector()
        self.registry.register(self._fleet)
        self._lost = Counter(
            "evertoken_creator_seconds_without_token",
            "Creators without a valid access token, times seconds: `late` if we were to refresh it, `reauthorization` "
            "if the creator has to authorize again.",
            ["cause"],
            registry=self.registry,
        )
        self._rounds = Counter(
            "evertoken_exporter_rounds", "Rounds of the exporter by outcome.", ["outcome"], registry=self.registry
        )
        for cause in ("late", "reauthorization"):
            self._lost.labels(cause=cause)
        for outcome in ("ok", "failed"):
            self._rounds.labels(outcome=outcome)
        self._read_at = Gauge(
            "evertoken_exporter_read_timestamp_seconds",
            "When the exporter last read the database; 0 before that.",
            registry=self.registry,
        )
        Gauge("evertoken_build_info", "1, with Evertoken's version.", ["version"], registry=self.registry).labels(
            version=version
        ).set(1)
        Gauge(
            "evertoken_installation_info",
            "1, with the namespace of the fleet's installation; empty if it has none.",
            ["installation"],
            registry=self.registry,
        ).labels(installation=namespace or "").set(1)

    def found(self, figures: FleetFigures, *, late_seconds: float, waiting_seconds: float) -> None:
        """Serve new figures, and add the creator-seconds without a token since the last round."""
        self._fleet.figures = figures
        self._lost.labels(cause="late").inc(late_seconds)
        self._lost.labels(cause="reauthorization").inc(waiting_seconds)
        self._rounds.labels(outcome="ok").inc()
        self._read_at.set_to_current_time()

    def failed(self) -> None:
        """Serve no figures of the fleet, because the database is away."""
        self._fleet.figures = None
        self._rounds.labels(outcome="failed").inc()
