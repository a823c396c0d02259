"""The Helm chart, rendered by Helm's own engine: the same processes as in compose, as shut in, with the same rules."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.project.conftest import ROOT
from worker.amqp_address import bad_amqp
from worker.consumer import CLOSING_SECONDS, GOODBYE_SECONDS
from worker.namespace import bad_namespace
from worker.redis_address import bad_redis, read_sentinels
from worker.settings import Settings

HELM: Final = ROOT / "build/helm/bin/python"
RENDER: Final = ROOT / "tests/support/render_chart.py"
CHART: Final = ROOT / "deploy/chart"
FILES: Final = sorted(path.stem for path in (CHART / "values").glob("*.yaml"))
APP: Final = {"TIKTOK_APP_ID": "7", "TIKTOK_REDIRECT_URI": "https://app.example/"}
PODS: Final = {"StatefulSet", "Deployment", "Job"}
OF_GRAFANA: Final = " --admit-dashboard /run/secrets/dashboard_password"

pytestmark = pytest.mark.slow_suite


def helm(values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Render the chart with these values."""
    if not HELM.exists():
        pytest.skip("Helm is not in build/helm: `make chart` fetches it")
    return subprocess.run(
        [HELM, RENDER, CHART], input=json.dumps(values), capture_output=True, text=True, timeout=60, check=False
    )


def values_of(name: str) -> dict[str, Any]:
    """Return one of the chart's files of values."""
    found: dict[str, Any] = yaml.safe_load((CHART / f"values/{name}.yaml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module", params=FILES)
def objects(request: pytest.FixtureRequest) -> dict[tuple[str, str], Any]:
    """What the chart makes of one file of values, by kind and name without the release's; Helm's linter is content."""
    done = helm(values_of(request.param))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [each for each in answer["messages"] if each["error"] != "icon is recommended"] == []
    made = [each for text in answer["rendered"].values() for each in yaml.safe_load_all(text) if each]
    found = {(each["kind"], each["metadata"]["name"].removeprefix("demo-")): each for each in made}
    assert len(found) == len(made)
    return found


def pods(objects: dict[tuple[str, str], Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and specification of each pod."""
    for (kind, name), each in objects.items():
        if kind in PODS:
            yield name, each["spec"]["template"]["spec"]


def test_the_processes_are_those_of_compose_with_the_same_commands(
    objects: dict[tuple[str, str], Any], root: Path
) -> None:
    """What is tried in compose runs in a cluster; no database comes with the chart, and no Grafana with its role."""
    services = yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    made = dict(pods(objects))

    assert made.keys() - {"flower", "redis"} == {"worker-refresh", "worker-pull", "beat", "desk", "exporter", "migrate"}
    for name in made.keys() - {"redis"}:
        (container,) = made[name]["containers"]
        command = " ".join(container["command"]).removeprefix("sh -c ")
        there = services[name]["command"].removeprefix("sh -c ").strip('"').replace(OF_GRAFANA, "")
        assert command == there
        assert container["image"] == services[name]["image"]
    if "redis" in made:
        assert made["redis"]["containers"][0]["image"] == services["redis"]["image"]


def test_every_pod_is_shut_in(objects: dict[tuple[str, str], Any]) -> None:
    """Each runs as nobody special on a read-only file system, without a capability or a key to the cluster."""
    for name, pod in pods(objects):
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }, name  # fmt: skip
        assert container["resources"]["limits"]["memory"], name


def test_every_lasting_pod_has_three_kinds_of_probes(objects: dict[tuple[str, str], Any]) -> None:
    """A slow start is waited for, a pod that is not ready gets no traffic, and one that hangs is started again."""
    for name, pod in pods(objects):
        probes = {key for key in pod["containers"][0] if key.endswith("Probe")}
        assert probes == (set() if name == "migrate" else {"startupProbe", "readinessProbe", "livenessProbe"}), name


def test_what_sends_to_tiktok_has_a_journal_and_the_time_to_end(objects: dict[tuple[str, str], Any]) -> None:
    """Each worker, and the desk, keeps a volume of its own; a refresh under way is never cut."""
    for name in ("worker-refresh", "worker-pull", "desk"):
        spec = objects["StatefulSet", name]["spec"]
        pod = spec["template"]["spec"]
        (claim,) = spec["volumeClaimTemplates"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}

        assert mounts[claim["metadata"]["name"]] == "/var/lib/evertoken"
        longest = Settings.model_fields["lease_seconds"].default + GOODBYE_SECONDS + CLOSING_SECONDS
        assert pod["terminationGracePeriodSeconds"] > longest
        assert ("Service", spec["serviceName"].removeprefix("demo-")) in objects


def test_workers_of_a_kind_spread_over_nodes(objects: dict[tuple[str, str], Any]) -> None:
    """A node that goes takes one of them; a cluster of one node runs them all the same."""
    for name in ("worker-refresh", "worker-pull"):
        template = objects["StatefulSet", name]["spec"]["template"]
        (rule,) = template["spec"]["topologySpreadConstraints"]

        assert rule["labelSelector"]["matchLabels"] == template["metadata"]["labels"]
        assert (rule["topologyKey"], rule["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")


def test_each_process_sees_its_own_secrets_alone(objects: dict[tuple[str, str], Any], root: Path) -> None:
    """Every variable names a file that is mounted, of the files that the script makes; only migrate is the owner."""
    script = (root / "deploy/new-secrets.sh").read_text(encoding="utf-8")
    seen = {}
    for name, pod in pods(objects):
        (volume,) = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
        seen[name] = {item["key"] for item in volume["items"]}
        variables = {each["name"]: each["value"] for each in pod["containers"][0].get("env", ())}
        named = {
            value.removeprefix("/run/secrets/") for value in variables.values() if value.startswith("/run/secrets/")
        }

        assert re.fullmatch(r"evertoken(-shop)?", volume["secretName"])
        assert named <= seen[name], name
        assert all(f"keep {key} " in script for key in seen[name]), name
        known = {f"EVERTOKEN_{field.upper()}" for field in Settings.model_fields}
        ours = {each.removesuffix("_FILE") for each in variables if each.startswith("EVERTOKEN_")}
        assert ours <= known, name
    assert {name for name, keys in seen.items() if "database_url" in keys} == {"migrate"}
    over_rabbitmq = "broker_url" in seen["worker-refresh"]
    assert seen["beat"] == {"redis_url"} | ({"broker_url"} if over_rabbitmq else set())
    assert all(("broker_url" in seen[name]) is over_rabbitmq for name in seen.keys() - {"redis"})


def test_every_process_of_ours_has_the_settings(objects: dict[tuple[str, str], Any]) -> None:
    """Beat heeds the namespace and how often it scans, Flower the namespace: with others they would serve nobody."""
    ours = {name: pod for name, pod in pods(objects) if name != "redis"}

    assert {"beat", "migrate"} <= ours.keys()
    for pod in ours.values():
        (container,) = pod["containers"]
        assert {"EVERTOKEN_TIKTOK_APP_ID", "EVERTOKEN_TIKTOK_REDIRECT_URI"} <= {
            each["name"] for each in container["env"]
        }


def test_migrations_run_before_anything_new_starts(objects: dict[tuple[str, str], Any]) -> None:
    """The job is a hook of install and upgrade, and a new one takes the place of the last."""
    assert objects["Job", "migrate"]["metadata"]["annotations"] == {
        "helm.sh/hook": "pre-install,pre-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation",
    }


def test_a_service_leads_to_pods_that_listen_there(objects: dict[tuple[str, str], Any]) -> None:
    """Its labels are those of one kind of pod, and its ports are ports of that pod."""
    for (kind, name), each in objects.items():
        if kind != "Service":
            continue
        (pod,) = [
            made["spec"]["template"]
            for (kind, _), made in objects.items()
            if kind in PODS
            and each["spec"]["selector"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = {port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {port["port"] for port in each["spec"]["ports"]} <= ports, name


@pytest.mark.parametrize("objects", ["shared"], indirect=True)
def test_installations_that_share_servers_are_kept_apart(objects: dict[tuple[str, str], Any]) -> None:
    """Each process has the namespace, its Secret and the Sentinels' address from there; the targets have the label."""
    name = values_of("shared")["settings"]["NAMESPACE"]

    assert bad_namespace("NAMESPACE", name) is None
    assert "redis" not in {name for _, name in objects}
    for process, pod in pods(objects):
        (container,) = pod["containers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        (volume,) = [each["secret"] for each in pod["volumes"] if "secret" in each]
        assert variables["EVERTOKEN_NAMESPACE"] == name, process
        assert variables["EVERTOKEN_REDIS_URL_FILE"] == "/run/secrets/redis_url", process
        assert volume["secretName"] == "evertoken-shop", process
    monitors = [each["spec"] for (kind, _), each in objects.items() if kind == "ServiceMonitor"]
    assert len(monitors) >= 4
    for monitor in monitors:
        labels = {each["targetLabel"]: each["replacement"] for each in monitor["endpoints"][0]["relabelings"]}
        assert labels["installation"] == name


def test_the_address_that_the_values_describe_names_sentinels() -> None:
    """What shared.yaml tells to put into the Secret is an address that is read as such."""
    (address,) = re.findall(r"sentinel://\S+", (CHART / "values/shared.yaml").read_text(encoding="utf-8"))
    sentinels = read_sentinels(address.rstrip(","))

    assert bad_redis("EVERTOKEN_REDIS_URL", address.rstrip(",")) is None
    assert sentinels is not None
    assert len(sentinels.hosts) == 3


@pytest.mark.parametrize("objects", ["rabbitmq"], indirect=True)
def test_with_rabbitmq_every_process_of_ours_reads_its_address_from_the_secret(
    objects: dict[tuple[str, str], Any],
) -> None:
    """Flower, too; without it a process would wait for messages in Redis, which still counts the quota."""
    made = dict(pods(objects))
    (address,) = re.findall(r"amqps://[^\s;]+", (CHART / "values/rabbitmq.yaml").read_text(encoding="utf-8"))

    assert bad_amqp("EVERTOKEN_BROKER_URL", address) is None
    assert {"redis", "flower", "beat", "worker-refresh"} <= made.keys()
    for name in made.keys() - {"redis"}:
        (container,) = made[name]["containers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables["EVERTOKEN_BROKER_URL_FILE"] == "/run/secrets/broker_url", name
        assert variables["EVERTOKEN_REDIS_URL_FILE"] == "/run/secrets/redis_url", name


@pytest.mark.parametrize("objects", ["production"], indirect=True)
def test_prometheus_gets_the_rules_and_every_page_of_metrics(objects: dict[tuple[str, str], Any], root: Path) -> None:
    """The rules and the board are the files that compose mounts, and each page is scraped under the name of its job."""
    rules = yaml.safe_load((root / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    board = json.loads((root / "deploy/prometheus/board.json").read_text(encoding="utf-8"))
    monitors = {name: each["spec"] for (kind, name), each in objects.items() if kind == "ServiceMonitor"}

    assert objects["PrometheusRule", "monitoring"]["spec"] == rules
    accounts = json.loads((root / "deploy/grafana/accounts.json").read_text(encoding="utf-8"))
    boards = {name: json.loads(text) for name, text in objects["ConfigMap", "monitoring"]["data"].items()}
    assert boards == {"evertoken.json": board, "evertoken-accounts.json": accounts}
    assert monitors.keys() == {"exporter", "worker-refresh", "worker-pull", "desk"}
    for name, monitor in monitors.items():
        service = objects["Service", name]
        assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert {each["port"] for each in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {}}, "TIKTOK_APP_ID"),
        ({"setings": {}}, "setings"),
        ({"settings": {**APP, "TIKTOK_APP_SECRET": "x"}}, "SECRET"),
        ({"workers": {"refresh": {"queues": "refreshes"}}}, "queues"),
        ({"leaseSeconds": "long"}, "leaseSeconds"),
        ({"settings": {**APP, "NAMESPACE": "a-b"}}, "NAMESPACE"),
        ({"settings": {**APP, "REDIS_URL": "sentinel://:word@one,two/0?service=mymaster"}}, "REDIS_URL"),
        ({"settings": {**APP, "BROKER_URL": "amqp://user:word@one/shop"}}, "BROKER_URL"),
        ({"broker": "kafka"}, "broker"),
    ],
)
def test_values_that_cannot_be_right_are_refused(change: dict[str, Any], said: str) -> None:
    """A slip of the pen, and a secret among the settings, end before anything is installed."""
    done = helm(values_of("small") | change)

    assert done.returncode != 0
    assert said in done.stderr


def test_the_charts_version_is_the_projects(project: dict[str, Any]) -> None:
    """The image's tag comes from it."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))

    assert chart["version"] == chart["appVersion"] == project["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", chart["version"])
