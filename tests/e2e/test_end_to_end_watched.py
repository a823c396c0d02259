"""A real Prometheus and a real Alertmanager watch a fleet: rules fire in trouble, and clear when it is over.

Both programs are Debian's (`prometheus`, `prometheus-alertmanager`). The rules are those of `deploy/prometheus`, with
their own durations, so this takes a quarter of an hour.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import requests

from tests.conftest import find_free_port
from tests.support.daemon import PROJECT, Daemon, daemon_settings
from tests.support.debian import command, program
from tests.support.receiver import Receiver, running_receiver
from tests.support.small_accounts import small_sandbox
from tests.support.world import World
from worker.sandbox.options import SandboxOptions
from worker.sandbox.process import RunningSandbox
from worker.vault import Keyring

pytestmark = [pytest.mark.night, pytest.mark.timeout(2400)]

LIFE_SECONDS = 120
CREATORS = 20
WRONG_SECRET = 40101
MINUTE = 60.0


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """A TikTok whose access tokens live for two minutes."""
    with small_sandbox(SandboxOptions(rotation="strict", expires_in=LIFE_SECONDS)) as running:
        yield running


@pytest.fixture
def daemon(
    sandbox: RunningSandbox, store_url: str, redis_url: str, keyring: Keyring, tmp_path: Path
) -> Iterator[Daemon]:
    """A daemon whose worker and exporter serve metrics; nothing runs yet."""
    settings = daemon_settings(
        sandbox,
        tmp_path,
        DATABASE_URL=store_url,
        REDIS_URL=redis_url,
        KEYRING=keyring.to_json(),
        METRICS_PORT=str(find_free_port()),
        EXPORTER_PORT=str(find_free_port()),
    )
    with Daemon(tmp_path, settings) as made:
        yield made


class Watch:
    """Prometheus with the project's rules, and an Alertmanager that posts what fires and what is over.

    Attributes:
        url: Prometheus's own pages.
    """

    def __init__(self, folder: Path, rules: Path, *, exporter: str, worker: str, receiver: Receiver) -> None:
        """Write both configurations and start both programs.

        Args:
            folder: where they keep what they have.
            rules: the file of rules.
            exporter: port of the exporter.
            worker: port of the worker's metrics.
            receiver: takes what Alertmanager posts.
        """
        self._receiver = receiver
        self._stack = ExitStack()
        manager, port = find_free_port(), find_free_port()
        self.url, self._manager_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{manager}"
        folder.mkdir()
        posting = {"url": receiver.url, "send_resolved": True}
        route = {"receiver": "people", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "5s"}
        (folder / "alertmanager.yml").write_text(
            json.dumps({"route": route, "receivers": [{"name": "people", "webhook_configs": [posting]}]})
        )
        watched = {"evertoken": exporter, "evertoken-worker": worker}
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
                    "rule_files": [str(rules)],
                    "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]}
                        for job, at in watched.items()
                    ],
                }
            )
        )
        self._start(
            *command("prometheus-alertmanager", "prometheus-alertmanager"),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alerts'}",
            f"--web.listen-address=127.0.0.1:{manager}",
            "--cluster.listen-address=",
        )
        self._start(
            program("prometheus", "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
        )

    def _start(self, *command: str) -> None:
        self._stack.callback(self._end, subprocess.Popen(command, stderr=subprocess.DEVNULL))

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(30)

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        return {alert["labels"]["alertname"] for alert in self._alerts() if alert["state"] == "firing"}

    def posted(self, status: str) -> dict[str, str]:
        """Return the alerts that Alertmanager has posted as `firing` or `resolved`, with their pages."""
        return {
            alert["labels"]["alertname"]: alert["annotations"]["runbook_url"]
            for post in list(self._receiver.got)
            for alert in json.loads(post.body)["alerts"]
            if alert["status"] == status
        }

    def up(self) -> bool:
        """Return True if all targets are scraped and Alertmanager takes alerts."""
        try:
            requests.get(f"{self._manager_url}/-/ready", timeout=5).raise_for_status()
            found = requests.get(f"{self.url}/api/v1/query?query=up", timeout=5).json()["data"]["result"]
        except requests.RequestException:  # not listening yet, or it answers that it is not ready
            return False
        return [each["value"][1] for each in found] == ["1", "1"]

    def _alerts(self) -> list[dict[str, Any]]:
        alerts: list[dict[str, Any]] = requests.get(f"{self.url}/api/v1/alerts", timeout=5).json()["data"]["alerts"]
        return alerts

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_alarms_fire_in_trouble_lead_to_their_pages_and_clear(
    daemon: Daemon, sandbox: RunningSandbox, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    """TikTok refuses the app: the brake and the creators without tokens are reported, and both end; so does silence."""
    world = World(sandbox, daemon.environ)
    for _ in range(CREATORS):
        world.creator()
    exporter, worker = (daemon.environ[f"EVERTOKEN_{name}_PORT"] for name in ("EXPORTER", "METRICS"))
    with running_receiver() as receiver:
        started = daemon.worker(), daemon.beat()
        daemon.wait_ready(wait_until, *started)
        reader = daemon.exporter("--every", "5")
        rules = PROJECT / "deploy/prometheus/rules.yml"
        with Watch(tmp_path / "watch", rules, exporter=exporter, worker=worker, receiver=receiver) as watch:
            wait_until(watch.up, MINUTE)
            assert watch.firing() == set()

            sandbox.fault("code", call="refresh", code=WRONG_SECRET, message="client_secret is wrong")
            trouble = {"EvertokenAppStopped", "EvertokenCreatorsWithoutToken"}
            wait_until(lambda: watch.posted("firing").keys() == trouble, 8 * MINUTE)
            sandbox.heal()
            wait_until(lambda: watch.posted("resolved").keys() == trouble, 10 * MINUTE)
            assert watch.firing() == set()

            daemon.stop(reader)
            wait_until(lambda: "EvertokenExporterAway" in watch.posted("firing"), 8 * MINUTE)
            pages = watch.posted("firing").values()
    world.close()

    assert all((PROJECT / page).is_file() for page in pages)
