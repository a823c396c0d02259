"""Metrics: counters of this process's facts, and the quota's headroom; prefix `evertoken_`, served for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable
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

from worker.policy.verdicts import Cause
from worker.telemetry.facts import Fact
from worker.telemetry.logs import log_fact
from worker.telemetry.names import FACT_NAMES
from worker.telemetry.serving import serve

# Not the library's own registry: Flower and an application that imports `worker.tokens` serve that one as theirs.
REGISTRY: Final = CollectorRegistry()
for collect in (ProcessCollector, PlatformCollector, GCCollector):
    collect(registry=REGISTRY)

FACTS: Final = Counter("evertoken_facts", "Facts by name, one per outcome.", ["fact"], registry=REGISTRY)
SECONDS: Final = Histogram(
    "evertoken_call_seconds",
    "Seconds from sending a call to TikTok to the end of its answer.",
    ["call"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45),
    registry=REGISTRY,
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
    "Consents that end within so many days, so that their creators have to authorize again; NaN while not known.",
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
HAND_OUTS: Final = Counter(
    "evertoken_desk_tokens", "Tokens that were handed out over HTTP, by consumer.", ["consumer"], registry=REGISTRY
)

_VERDICTS: Final[dict[object, Counter]] = {cause: VERDICTS.labels(verdict=cause) for cause in Cause}
REFRESHES: Final = Counter("evertoken_refreshes", "Attempts to refresh by outcome.", ["outcome"], registry=REGISTRY)
PULLS: Final = Counter("evertoken_pulls", "Pulls of account data by outcome.", ["outcome"], registry=REGISTRY)
NOTICES: Final = Counter(
    "evertoken_notices", "Deliveries of notices to an address, by outcome.", ["outcome"], registry=REGISTRY
)
_OUTCOMES: Final = {
    f"{prefix}.{outcome}": counter.labels(outcome=outcome)
    for prefix, counter, outcomes in (
        ("refresh", REFRESHES, ("saved", "backed_off", "in_doubt", "misfit", "not_sent", "refused", "stopped")),
        ("pull", PULLS, ("saved", "empty", "failed", "unreadable")),
        ("notice", NOTICES, ("delivered", "failed")),
    )
    for outcome in outcomes
}
_COUNTERS: Final = {name: FACTS.labels(fact=name) for name in FACT_NAMES}


def count_fact(fact: Fact) -> None:
    """Count a fact, its `verdict` and its outcome as the end of something, and observe a call's `seconds`."""
    (_COUNTERS.get(fact.name) or FACTS.labels(fact=fact.name)).inc()
    if (outcome := _OUTCOMES.get(fact.name)) is not None:
        outcome.inc()
    seconds, call = fact.fields.get("seconds"), fact.fields.get("call")
    if (verdict := _VERDICTS.get(fact.fields.get("verdict"))) is not None:
        verdict.inc()
    if isinstance(seconds, float) and isinstance(call, str):
        SECONDS.labels(call=call).observe(seconds)


def count_answer(route: str, status: int, seconds: float) -> None:
    """Count an answer of the desk, and observe how long it took."""
    ANSWERS.labels(route=route, status=status).inc()
    ANSWER_SECONDS.labels(route=route).observe(seconds)


def count_hand_out(consumer: str) -> None:
    """Count a token that was handed out over HTTP."""
    HAND_OUTS.labels(consumer=consumer).inc()


def report(fact: Fact) -> None:
    """Log a fact and count it; this is the hook of a process."""
    log_fact(fact)
    count_fact(fact)


def serve_metrics(
    port: int,
    *,
    address: str,
    headroom: Callable[[], float],
    store_away: Callable[[], float],
    quota_paused: Callable[[], float],
    own_share: Callable[[], bool],
    beat_silent: Callable[[], float],
    refresh_late: Callable[[], float],
    notices_late: Callable[[], float],
    access_life: Callable[[], float],
    consents_ending: Callable[[int], float],
    silent: Callable[[], float] = lambda: math.nan,
    alive: Callable[[], bool] = lambda: True,
) -> None:
    """Serve the metrics and `/healthz`; if the port is taken or forbidden, only log it, since tokens matter more.

    Args:
        port: TCP port.
        address: IP address of this host; 0.0.0.0 or :: for all.
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
        consents_ending: returns how many consents end within so many days.
    """
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
        serve(port, address, REGISTRY, alive=alive)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        log_fact(Fact("metrics.unserved", {"port": port, "reason": reason}, level="error"))
