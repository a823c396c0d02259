"""The fleet's metrics: what one process serves for all."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import plain_environ
from tests.support.systemd import Systemd
from tests.support.world import World
from worker.cli.exporter import Rounds
from worker.store import GrantStatus, Progress, PullClaim
from worker.telemetry import Fact, begin_series
from worker.telemetry.fleet import FleetMetrics
from worker.telemetry.metrics import NOTICES, PULLS, REFRESHES, REGISTRY, count_fact
from worker.telemetry.names import FACT_NAMES

NewWorld = Callable[..., World]
Served = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def served(metrics: FleetMetrics) -> Served:
    """Return every sample, by name and labels, as Prometheus reads it."""
    page = generate_latest(metrics.registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(found: Served, name: str, **labels: str) -> float:
    """Return one sample."""
    return found[f"evertoken_{name}", tuple(sorted(labels.items()))]


def failures() -> float:
    """Return how often the exporter has reported that it cannot read."""
    return REGISTRY.get_sample_value("evertoken_facts_total", {"fact": "exporter.failed"}) or 0.0


@pytest.fixture
def world(new_world: NewWorld) -> World:
    """Four creators: one fresh, one due, one whose token ended an hour ago, one who has to authorize again."""
    world = new_world()
    grants = world.creators(4)
    hour = 3_600_000
    ids = [grant.grant_id for grant in grants]
    world.sql(f"UPDATE grants SET next_refresh_at = access_expires_at - {hour} WHERE id = {ids[0]}")  # noqa: S608 - numbers of our own
    world.sql(f"UPDATE grants SET access_expires_at = issued_at - {hour} WHERE id IN ({ids[2]}, {ids[3]})")  # noqa: S608 - as above
    world.sql(f"UPDATE grants SET status = 'needs_reauth' WHERE id = {ids[3]}")  # noqa: S608 - as above
    return world


def test_the_fleet_is_counted_without_a_creators_name(world: World) -> None:
    """By state, by condition, by time left, and by key; no label names a creator."""
    rounds = Rounds(world.services, FleetMetrics("1.2.3", "shop"))
    rounds.once()
    found = served(rounds.metrics)

    assert value(found, "fleet_grants", state="active") == 3
    assert value(found, "fleet_grants", state="needs_reauth") == 1
    assert value(found, "fleet_grants", state="revoked") == 0
    assert value(found, "fleet_condition_grants", condition="expired") == 1
    assert value(found, "fleet_condition_grants", condition="fresh") == 1
    assert value(found, "fleet_seconds_left_bucket", le="0.0") == 1
    assert value(found, "fleet_seconds_left_bucket", le="+Inf") == 3
    assert value(found, "fleet_least_seconds_left") < -3000
    assert value(found, "fleet_brake") == 0
    assert value(found, "fleet_redis_up") == 1
    assert value(found, "fleet_broker_up") == 1
    assert [value(found, "fleet_queue_messages", queue=queue) for queue in ("refresh", "pull", "default")] == [0, 0, 0]
    assert value(found, "build_info", version="1.2.3") == 1
    assert value(found, "installation_info", installation="shop") == 1
    assert value(found, "exporter_rounds_total", outcome="ok") == 1
    (key_id,) = world.services.keyring.keys
    assert value(found, "fleet_seals", key_id=str(key_id)) == 4
    assert value(found, "fleet_key_held", key_id=str(key_id)) == 1
    assert sum(found["evertoken_fleet_reauthorizations", (("week", str(week)),)] for week in range(13)) >= 0
    assert value(found, "fleet_late_pulls", resource="videos") == 0
    labels = {name for _, given in found for name, _ in given}
    assert labels == {
        "queue",
        "resource",
        "state",
        "condition",
        "le",
        "week",
        "key_id",
        "cause",
        "outcome",
        "version",
        "installation",
    }


def test_creator_seconds_without_a_token_add_up_by_cause(world: World) -> None:
    """A window in which a token was missing all the time counts whole; one who must authorize is counted apart."""
    lives = world.services.store.token_lives((0.0, 60.0), window_seconds=60)

    assert (lives.late_seconds, lives.waiting_seconds) == (60, 60)
    assert lives.within == (1, 1)
    assert world.services.store.token_lives((), window_seconds=7200).late_seconds == pytest.approx(3600, abs=120)
    assert world.services.store.token_lives((), window_seconds=0).late_seconds == 0


def test_a_missing_key_shows(world: World) -> None:
    """A key that sealed pairs and is not in the keyring has 0."""
    world.sql("UPDATE pairs SET key_id = 99")
    rounds = Rounds(world.services, FleetMetrics("1"))
    rounds.once()

    assert value(served(rounds.metrics), "fleet_key_held", key_id="99") == 0


def test_account_data_that_waits_too_long_shows_by_resource(world: World) -> None:
    """Two creators' videos are late, one of them for ten hours; what is due for an hour is not late."""
    hours = {"videos": (7, 10), "account": (1,)}
    world.sql("UPDATE grants SET scope = 'video.list'")
    store, claims = world.services.store, list[PullClaim]()
    for grant in store.grants(status=GrantStatus.ACTIVE):
        store.request_pull(grant.creator_id)
        claims += filter(None, [store.claim_pull(grant.grant_id, owner="a worker", lease_seconds=60)])
    for resource, waits in hours.items():
        for number, wait in enumerate(waits):
            due_at = store.ping() - timedelta(hours=wait)
            assert store.save_progress(claims[number], Progress(resource, next_at=due_at))
    rounds = Rounds(world.services, FleetMetrics("1"))
    rounds.once()
    found = served(rounds.metrics)

    assert value(found, "fleet_late_pulls", resource="videos") == 2
    assert value(found, "fleet_oldest_pull_seconds", resource="videos") == pytest.approx(36_000, abs=60)
    assert value(found, "fleet_late_pulls", resource="account") == 0
    assert value(found, "fleet_oldest_pull_seconds", resource="account") == 0


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_no_old_figure_is_served_while_the_database_is_away(
    new_world: NewWorld, free_port: int, database_kind: str
) -> None:
    """It is reported once, all series of the fleet are gone, and those of the exporter stay."""
    world = new_world()
    rounds = Rounds(world.services, FleetMetrics("1"))
    rounds.once()
    away = world.another(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{free_port}/nothing")
    rounds._services, before = away, failures()
    rounds.once()
    rounds.once()
    found = served(rounds.metrics)

    assert not any(name.startswith("evertoken_fleet") for name, _ in found)
    assert value(found, "exporter_rounds_total", outcome="failed") == 2
    assert value(found, "exporter_read_timestamp_seconds") > 0
    assert failures() - before == 1
    rounds._services = world.services
    rounds.once()
    assert value(served(rounds.metrics), "fleet_grants", state="active") == 0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_the_command_serves_until_it_is_asked_to_end(
    world: World, free_port: int, tmp_path: Path, wait_until: Callable[..., None], systemd: Systemd
) -> None:
    """One process, on loopback, with `/healthz`; it feeds the watchdog of its unit, and SIGTERM ends it with 0."""
    environ = plain_environ() | world.environ
    environ |= {"EVERTOKEN_EXPORTER_PORT": str(free_port), "NOTIFY_SOCKET": systemd.address}
    command = [sys.executable, "-m", "celery", "-A", "worker", "exporter"]
    with subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=subprocess.PIPE) as process:

        def page(path: str) -> str:
            assert process.poll() is None, process.communicate()[1].decode()
            try:
                with urlopen(f"http://127.0.0.1:{free_port}{path}", timeout=10) as answer:
                    return str(answer.read().decode())
            except OSError:
                return ""

        wait_until(lambda: page("/healthz"), 60)
        metrics = page("/metrics")
        assert systemd.fed(60)
        wait_until(Path(environ["EVERTOKEN_RUN_DIR"], "exporter").exists)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]

    assert process.returncode == 0, errors
    assert 'evertoken_fleet_grants{state="active"} 3.0' in metrics
    assert all(creator not in metrics for creator in (grant.creator_id for grant in world.services.store.grants()))


def test_the_page_names_every_metric_and_none_that_is_gone(world: World) -> None:
    """docs/metrics.md has each family that workers, desk and exporter serve."""
    rounds = Rounds(world.services, FleetMetrics("1"))
    rounds.once()
    families = {
        family.name: family for registry in (REGISTRY, rounds.metrics.registry) for family in registry.collect()
    }
    names = {
        f"{name}_total" if family.type == "counter" else name
        for name, family in families.items()
        if name.startswith("evertoken_")
    }
    page = Path(__file__).parents[2].joinpath("docs/metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(evertoken_\w+)", page, re.MULTILINE))

    assert sorted(names ^ documented) == []


@pytest.mark.parametrize(
    ("fact", "fields", "metric", "outcome"),
    [
        ("refresh.saved", {}, "evertoken_refreshes_total", "saved"),
        ("refresh.in_doubt", {}, "evertoken_refreshes_total", "in_doubt"),
        ("notice.delivered", {"kind": "app.stopped"}, "evertoken_notices_total", "delivered"),
    ],
)
def test_an_end_counts_by_its_outcome(fact: str, fields: dict[str, str], metric: str, outcome: str) -> None:
    """The series is there before anything happened, and rises by one."""
    labels = fields | {"outcome": outcome}
    before = REGISTRY.get_sample_value(metric, labels)
    count_fact(Fact(fact, fields))

    assert before is not None
    assert REGISTRY.get_sample_value(metric, labels) == before + 1


def test_every_outcome_that_is_counted_is_a_fact() -> None:
    """A fact that is renamed would leave a series that never rises."""
    begin_series([], ["account"])
    counters = {"refresh": REFRESHES, "pull": PULLS, "notice": NOTICES}
    counted = {
        f"{prefix}.{sample.labels['outcome']}"
        for prefix, counter in counters.items()
        for family in counter.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }

    assert len(counted) > 10
    assert counted <= set(FACT_NAMES)
