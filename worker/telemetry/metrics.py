"""Metrics: counters of this process's facts, and the quota's headroom; prefix `evertoken_`, served for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.policy.notice_kinds import KINDS
from worker.policy.verdicts import Cause
from worker.telemetry.facts import Fact
from worker.telemetry.logs import log_fact
from worker.telemetry.names import FACT_NAMES
from worker.telemetry.serving import serve
from worker.telemetry.spans import SPANS, Told

# Not the library's own registry: Flower and an application that imports `worker.tokens` serve that one as theirs.
REGISTRY: Final = CollectorRegistry()
for collect in (ProcessCollector, PlatformCollector, GCCollector):
    collect(registry=REGISTRY)

INSTALLATION: Final = Gauge(
    "evertoken_installation_info",
    "1, with the namespace of this process's installation; empty if it has none.",
    ["installation"],
    registry=REGISTRY,
)
"""Not `namespace`: with Kubernetes that label of a target says where the pod runs."""
FACTS: Final = Counter("evertoken_facts", "Facts by name, one per outcome.", ["fact"], registry=REGISTRY)
SECONDS: Final = Histogram(
    "evertoken_call_seconds",
    "Seconds from sending a call to TikTok to the end of its answer, or to its failure.",
    ["call"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45),
    registry=REGISTRY,
)
STAGES: Final = Histogram(
    "evertoken_refresh_stage_seconds",
    "Seconds of each stage of a group of refreshes: `permit`, `claim`, `send` and `store`.",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 45),
    registry=REGISTRY,
)
PERMIT_TIME, CLAIM_TIME, SEND_TIME, STORE_TIME = (
    STAGES.labels(stage=stage) for stage in ("permit", "claim", "send", "store")
)
VERDICTS: Final = Counter(
    "evertoken_verdicts", "Failed attempts and narrowed scopes by what was behind them.", ["verdict"], registry=REGISTRY
)
HEADROOM: Final = Gauge(
    "evertoken_quota_headroom",
    "How many times the stored fleet's refreshes and pulls fit into the quota; NaN while it is not known.",
    registry=REGISTRY,
)
STORE_AWAY: Final = Gauge(
    "evertoken_store_away_seconds",
    "How long this process has been unable to reach the database; 0 while it answers and takes writes.",
    registry=REGISTRY,
)
QUOTA_PAUSED: Final = Gauge(
    "evertoken_quota_paused_seconds",
    "How long this process will send nothing, because TikTok or Redis says that the app is paused; 0 if it sends.",
    registry=REGISTRY,
)
BEAT_SILENT: Final = Gauge(
    "evertoken_beat_silent_seconds",
    "Seconds since a message from beat last reached a worker, on any host; NaN while it is not known.",
    registry=REGISTRY,
)
REFRESH_LATE: Final = Gauge(
    "evertoken_refresh_late_seconds",
    "How long the grant that waits longest has been due; 0 if none is due, NaN while it is not known.",
    registry=REGISTRY,
)
NOTICES_LATE: Final = Gauge(
    "evertoken_notices_late_seconds",
    "For how long the oldest notice that may go out has waited; 0 if none waits, NaN while that cannot be known.",
    registry=REGISTRY,
)
ACCESS_LIFE: Final = Gauge(
    "evertoken_access_life_seconds",
    "Life of access tokens as TikTok's answers to refreshes tell it; NaN until this process has read one.",
    registry=REGISTRY,
)
SILENT: Final = Gauge(
    "evertoken_worker_silent_seconds",
    "Seconds since Redis last answered this worker's question for messages; NaN before that. A busy worker asks none.",
    registry=REGISTRY,
)
CONSENTS_ENDING: Final = Gauge(
    "evertoken_consents_ending",
    "Consents that end within `days` days, so that their creators have to authorize again; NaN while not known.",
    ["within_days"],
    registry=REGISTRY,
)
ENDING_DAYS: Final = (7, 28, 91, 364)
OWN_SHARE: Final = Gauge(
    "evertoken_quota_own_share",
    "1 if this process keeps to its own share of the quota, because Redis gives it no usable answer; else 0.",
    registry=REGISTRY,
)

ANSWERS: Final = Counter(
    "evertoken_desk_answers", "Answers of the desk by route and HTTP status.", ["route", "status"], registry=REGISTRY
)
ANSWER_SECONDS: Final = Histogram(
    "evertoken_desk_seconds",
    "Seconds from a request's head to the desk's answer; a token may be waited for.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15),
    registry=REGISTRY,
)
REFUSED: Final = Counter(
    "evertoken_desk_refused",
    "Requests that the desk refused unread, because as many connections as it takes were open.",
    registry=REGISTRY,
)
TOKEN_READS: Final = Counter(
    "evertoken_token_reads",
    "Requests for a token over HTTP by consumer: `served`, `unchanged`, or the problem that was answered.",
    ["consumer", "outcome"],
    registry=REGISTRY,
)

_VERDICTS: Final[dict[object, Counter]] = {cause: VERDICTS.labels(verdict=cause) for cause in Cause}
REFRESHES: Final = Counter("evertoken_refreshes", "Attempts to refresh by outcome.", ["outcome"], registry=REGISTRY)
PULLS: Final = Counter(
    "evertoken_pulls", "Pulls of one resource of a creator by outcome.", ["resource", "outcome"], registry=REGISTRY
)
PULL_OUTCOMES: Final = (
    "saved",
    "budget_spent",
    "empty",
    "failed",
    "interrupted",
    "lease_lost",
    "unreadable",
    "waits",
)
NOTICES: Final = Counter(
    "evertoken_notices",
    "Deliveries of notices to an address, by kind and outcome.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
NOTICE_OUTCOMES: Final = ("delivered", "failed")
_REFRESHES: Final = {
    f"refresh.{outcome}": REFRESHES.labels(outcome=outcome)
    for outcome in ("saved", "backed_off", "in_doubt", "misfit", "not_sent", "refused", "stopped")
}
_PULLS: Final = {f"pull.{outcome}": outcome for outcome in PULL_OUTCOMES}
_NOTICES: Final = {f"notice.{outcome}": outcome for outcome in NOTICE_OUTCOMES}
for each in KINDS.values():
    for end in NOTICE_OUTCOMES:
        NOTICES.labels(kind=each, outcome=end)
_COUNTERS: Final = {name: FACTS.labels(fact=name) for name in FACT_NAMES}


def count_fact(fact: Fact) -> None:
    """Count a fact, its `verdict`, and its outcome as the end of something."""
    (_COUNTERS.get(fact.name) or FACTS.labels(fact=fact.name)).inc()
    if (refreshed := _REFRESHES.get(fact.name)) is not None:
        refreshed.inc()
    elif (pulled := _PULLS.get(fact.name)) is not None and "resource" in fact.fields:
        PULLS.labels(resource=fact.fields["resource"], outcome=pulled).inc()
    elif (posted := _NOTICES.get(fact.name)) is not None:
        NOTICES.labels(kind=fact.fields["kind"], outcome=posted).inc()
    if (verdict := _VERDICTS.get(fact.fields.get("verdict"))) is not None:
        verdict.inc()


def observe_call(call: str, seconds: float, told: Told) -> None:
    """Observe how long a call to TikTok took.

    Args:
        call: its path.
        seconds: from sending to the end of its answer, or to its failure.
        told: reads the answer for a trace, if there is one.
    """
    SECONDS.labels(call=call).observe(seconds)
    if SPANS.call is not None:
        SPANS.call(call, seconds, told)


def count_pull(resource: str) -> None:
    """Count that all that was due of one resource of a creator is stored."""
    PULLS.labels(resource=resource, outcome="saved").inc()


def count_answer(route: str, status: int, seconds: float) -> None:
    """Count an answer of the desk, and observe how long it took."""
    ANSWERS.labels(route=route, status=status).inc()
    ANSWER_SECONDS.labels(route=route).observe(seconds)


def count_refused() -> None:
    """Count a request that the desk refused unread, because all its connections were taken."""
    REFUSED.inc()


def count_token_read(consumer: str, outcome: str) -> None:
    """Count a request for a token over HTTP.

    Args:
        consumer: the name of the consumer whose key it bore.
        outcome: `served`, `unchanged`, or the kind of the problem that was answered.
    """
    TOKEN_READS.labels(consumer=consumer, outcome=outcome).inc()


class HostCollector(Collector):
    """Serves what the journal holds and what the quota gave, read when they are asked for.

    Attributes:
        journal: as in `serve_metrics`.
        quota: as in `serve_metrics`.
    """

    def __init__(self) -> None:
        self.journal: Callable[[], tuple[float, float, float]] = lambda: (math.nan, math.nan, math.nan)
        self.quota: Callable[[], Mapping[str, tuple[int, int]]] = dict

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; those of a journal that cannot be read are NaN."""
        texts = (
            ("records", "Answers that wait in the journal's folder on this host; NaN if it cannot be read."),
            ("bytes", "Bytes of the journal's files on this host; NaN if the folder cannot be read."),
            ("oldest_seconds", "For how long this process has known the oldest of its records; 0 if none waits."),
        )
        for (name, text), value in zip(texts, self.journal(), strict=True):
            yield GaugeMetricFamily(f"evertoken_journal_{name}", text, value=value)
        given = CounterMetricFamily("evertoken_quota_permits", "Permits that this process got.", labels=["lane"])
        denied = CounterMetricFamily("evertoken_quota_denied", "Questions that were denied a permit.", labels=["lane"])
        for lane, (gave, refused) in self.quota().items():
            given.add_metric([lane], gave)
            denied.add_metric([lane], refused)
        yield given
        yield denied


HOST: Final = HostCollector()
REGISTRY.register(HOST)


def report(fact: Fact) -> None:
    """Log a fact and count it; this is the hook of a process."""
    log_fact(fact)
    count_fact(fact)


def begin_series(calls: Iterable[str], resources: Iterable[str]) -> None:
    """Have the series of calls and pulls there before the first of them.

    Args:
        calls: paths of the calls to TikTok.
        resources: names of the resources of account data.
    """
    for call in calls:
        SECONDS.labels(call=call)
    for resource in resources:
        for outcome in PULL_OUTCOMES:
            PULLS.labels(resource=resource, outcome=outcome)


def serve_metrics(
    port: int,
    *,
    address: str,
    namespace: str | None,
    headroom: Callable[[], float],
    store_away: Callable[[], float],
    quota_paused: Callable[[], float],
    own_share: Callable[[], bool],
    beat_silent: Callable[[], float],
    refresh_late: Callable[[], float],
    notices_late: Callable[[], float],
    access_life: Callable[[], float],
    consents_ending: Callable[[int], float],
    journal: Callable[[], tuple[float, float, float]],
    quota: Callable[[], Mapping[str, tuple[int, int]]],
    silent: Callable[[], float],
    alive: Callable[[], bool],
) -> None:
    """Serve the metrics and `/healthz`; if the port is taken or forbidden, only log it, since tokens matter more.

    Args:
        port: TCP port.
        address: IP address of this host; 0.0.0.0 or :: for all.
        namespace: of this installation.
        headroom: returns the quota's headroom; called for each scrape, as the others are.
        store_away: returns the seconds for which the database has been away.
        quota_paused: returns the seconds for which nothing is sent.
        own_share: returns True if this process keeps to its own share of the quota.
        beat_silent: returns the seconds since beat's last message reached a worker.
        refresh_late: returns the seconds for which the grant that waits longest has been due.
        notices_late: returns the seconds for which the oldest notice that may be sent has waited.
        access_life: returns the life of access tokens in seconds.
        silent: returns the seconds since Redis last answered this worker's question for messages; the
            desk asks none.
        alive: returns False if this worker hangs, which `/healthz` then answers with 503.
        consents_ending: returns how many consents end within a number of days.
        journal: returns how many records wait in the journal's folder, the bytes of its files, and for how many seconds
            this process has known the oldest record.
        quota: returns, by lane, how many permits this process got and how many questions were denied.
    """
    HOST.journal, HOST.quota = journal, quota
    INSTALLATION.labels(installation=namespace or "").set(1)
    HEADROOM.set_function(headroom)
    STORE_AWAY.set_function(store_away)
    QUOTA_PAUSED.set_function(quota_paused)
    OWN_SHARE.set_function(own_share)
    BEAT_SILENT.set_function(beat_silent)
    REFRESH_LATE.set_function(refresh_late)
    NOTICES_LATE.set_function(notices_late)
    ACCESS_LIFE.set_function(access_life)
    SILENT.set_function(silent)
    for days in ENDING_DAYS:
        CONSENTS_ENDING.labels(within_days=days).set_function(partial(consents_ending, days))
    try:
        serve(port, address, REGISTRY, alive=alive, report=report)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        log_fact(Fact("metrics.unserved", {"port": port, "reason": reason}, level="error"))
