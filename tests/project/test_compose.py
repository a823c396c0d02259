"""The compose stack keeps the specification's schema and our own rules for a safe installation."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import timedelta
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from worker.amqp_address import read_amqp
from worker.cli.db import DASHBOARD
from worker.consumer import CLOSING_SECONDS, GOODBYE_SECONDS
from worker.settings import Settings

OURS = ("worker-refresh", "worker-pull", "beat", "migrate", "flower", "desk", "exporter")
PAGES = {"flower": 5555, "desk": 8420, "exporter": 8421, "prometheus": 9090, "grafana": 3000}


@pytest.fixture(scope="module")
def stack(root: Path) -> Any:
    """The compose file as compose reads it."""
    return yaml.safe_load((root / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services(stack: Any) -> dict[str, Any]:
    """The services by name."""
    found: dict[str, Any] = stack["services"]
    return found


@pytest.fixture(scope="module")
def over_rabbitmq(stack: Any, root: Path) -> Any:
    """The stack with the file that adds RabbitMQ, as compose merges them: mappings by key, lists joined."""

    def merged(one: Any, other: Any) -> Any:
        if isinstance(one, dict) and isinstance(other, dict):
            return {key: merged(one.get(key), other.get(key)) for key in {**one, **other}}
        if isinstance(one, list) and isinstance(other, list):
            return one + other
        return one if other is None else other

    return merged(stack, yaml.safe_load((root / "deploy/rabbitmq.compose.yml").read_text(encoding="utf-8")))


def compose_schema() -> Any:
    """Return the compose specification's JSON schema, from the package that carries it."""
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))


def seconds(text: str) -> float:
    """Return a compose duration such as `2m30s` in seconds."""
    units = {"h": "hours", "m": "minutes", "s": "seconds"}
    return timedelta(**{units[unit]: int(number) for number, unit in re.findall(r"(\d+)([hms])", text)}).total_seconds()


@pytest.fixture(scope="module", params=["over Redis", "over RabbitMQ"])
def either(request: pytest.FixtureRequest) -> Any:
    """The stack as it is, and with RabbitMQ."""
    return request.getfixturevalue("stack" if request.param == "over Redis" else "over_rabbitmq")


def test_keeps_the_schema_of_the_compose_specification(either: Any) -> None:
    """Every key is one that the specification knows, with a value of its kind."""
    jsonschema.Draft202012Validator(compose_schema()).validate(either)


def test_the_schema_refuses_what_the_specification_does_not_know(stack: Any) -> None:
    """The check above can fail: an unknown key and a number for a list are refused."""
    validator = jsonschema.Draft202012Validator(compose_schema())
    for name, value in (("read-only", True), ("cap_drop", 3)):
        broken = {**stack, "services": {**stack["services"], "beat": {**stack["services"]["beat"], name: value}}}

        assert not validator.is_valid(broken)


def test_every_service_is_locked_down(either: Any) -> None:
    """Each runs on a read-only file system, with no capability and no way to gain one."""
    for name, service in either["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("user", "10001:10001").split(":")[0] not in {"0", "root"}, name


def test_every_lasting_service_has_a_health_check_and_restarts(either: Any) -> None:
    """Only the one-shot migration is without."""
    for name, service in either["services"].items():
        if name == "migrate":
            assert service["healthcheck"] == {"disable": True}
            assert service["restart"].startswith("on-failure")
        else:
            assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name
            assert service["restart"] == "always", name


def test_workers_and_beat_prove_their_life_by_a_heartbeat_file(services: dict[str, Any], root: Path) -> None:
    """The check compares a file's time in the folder that the image names, and starts no Python."""
    image = (root / "Dockerfile").read_text(encoding="utf-8")
    for name in ("worker-refresh", "worker-pull", "beat"):
        command = services[name]["healthcheck"]["test"][1]

        assert "$$EVERTOKEN_RUN_DIR" in command
        assert "-mmin -2" in command
        assert "python" not in command
    assert "EVERTOKEN_RUN_DIR=/tmp/" in image


def test_only_pages_publish_a_port_and_only_on_loopback(services: dict[str, Any]) -> None:
    """Redis, PostgreSQL and the metrics of workers are out of reach from outside."""
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}

    assert ports == {name: [f"127.0.0.1:{port}:{port}"] for name, port in PAGES.items()}
    assert {name: services[name]["networks"] for name in ("redis", "postgres")} == {
        "redis": ["inside"],
        "postgres": ["inside"],
    }


def test_the_inner_network_has_no_way_out(stack: Any) -> None:
    """What only needs Redis and PostgreSQL cannot reach the world."""
    assert stack["networks"]["inside"] == {"internal": True}
    for name in ("beat", "migrate", "redis", "postgres"):
        assert stack["services"][name]["networks"] == ["inside"], name


def test_secrets_are_files_and_never_values(either: Any) -> None:
    """A name that speaks of a secret ends in `_FILE` and names a mounted secret; each mounted secret is declared."""
    for name, service in either["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|KEY|AUTH|_URL", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
        assert set(service.get("secrets", [])) <= set(either["secrets"]), name
    assert all(set(secret) == {"file"} for secret in either["secrets"].values())
    assert all(secret["file"].startswith("var/secrets/") for secret in either["secrets"].values())


def test_only_migrate_is_the_owner_of_the_tables(services: dict[str, Any]) -> None:
    """It makes the role by which all others connect, so a worker that is taken over changes no table."""
    address = "EVERTOKEN_DATABASE_URL_FILE"
    known = {name: service["environment"].get(address) for name, service in services.items() if name in OURS}

    assert known.pop("migrate") == "/run/secrets/database_url"
    assert set(known.values()) == {"/run/secrets/worker_database_url", None}
    assert {name for name, service in services.items() if "database_url" in service.get("secrets", ())} == {"migrate"}
    assert services["migrate"]["command"].endswith(
        'db roles --admit /run/secrets/worker_database_url --admit-dashboard /run/secrets/dashboard_password"'
    )


def test_the_script_makes_every_secret_that_is_mounted(either: Any, root: Path) -> None:
    """deploy/new-secrets.sh makes each secret file."""
    script = (root / "deploy/new-secrets.sh").read_text(encoding="utf-8")

    assert [name for name in either["secrets"] if f"keep {name} " not in script] == []


def test_with_rabbitmq_whatever_sends_or_takes_messages_has_its_address(over_rabbitmq: Any, root: Path) -> None:
    """A process without it would wait for messages in Redis; RabbitMQ has no way out and publishes no port."""
    services = over_rabbitmq["services"]
    rabbitmq = services["rabbitmq"]
    told = {
        name
        for name, service in services.items()
        if service.get("environment", {}).get("EVERTOKEN_BROKER_URL_FILE") == "/run/secrets/broker_url"
        and service["depends_on"]["rabbitmq"] == {"condition": "service_healthy"}
    }

    assert told == set(OURS) - {"migrate"}
    assert all({"broker_url", "redis_url"} <= set(services[name]["secrets"]) for name in told)
    assert rabbitmq["networks"] == ["inside"]
    assert "ports" not in rabbitmq
    assert rabbitmq["volumes"] == ["rabbitmq:/var/lib/rabbitmq"]
    assert "rabbitmq" in over_rabbitmq["volumes"]
    assert re.search(r":v?\d+\.\d+\.\d+$", rabbitmq["image"])
    example = (root / "deploy/env.example").read_text(encoding="utf-8")
    assert "\n#COMPOSE_FILE=docker-compose.yml:deploy/rabbitmq.compose.yml\n" in example


def test_the_stacks_rabbitmq_takes_the_login_that_the_script_makes(
    over_rabbitmq: Any, root: Path, tmp_path: Path
) -> None:
    """The configuration that its container writes has the user, password, virtual host and port of the address."""
    (tmp_path / "rabbitmq_password").write_text("p4ssw0rd")
    command = over_rabbitmq["services"]["rabbitmq"]["command"]
    text = command[2].replace("$$", "$").replace("/run/secrets", str(tmp_path))
    text = text.replace("> /tmp/rabbitmq.conf", f"> {tmp_path}/r.conf")
    subprocess.run([*command[:2], text.replace("exec rabbitmq-server", "")], check=True, timeout=30)
    written = dict(line.split(" = ") for line in (tmp_path / "r.conf").read_text().splitlines())
    (address,) = re.findall(r'keep broker_url "(.*)"', (root / "deploy/new-secrets.sh").read_text(encoding="utf-8"))
    read = read_amqp(address.replace('$(cat "$folder/rabbitmq_password")', "p4ssw0rd"))

    assert (read.host, str(read.port)) == ("rabbitmq", written["listeners.tcp.default"])
    assert read.user == written["default_user"]
    assert read.password == written["default_pass"]
    assert read.vhost == written["default_vhost"]
    assert (tmp_path / "r.conf").stat().st_mode & 0o077 == 0


def test_the_journal_outlives_the_containers(stack: Any, services: dict[str, Any], root: Path) -> None:
    """Both workers keep it on one named volume, where the image says it is."""
    for name in ("worker-refresh", "worker-pull", "desk"):
        assert services[name]["volumes"] == ["journal:/var/lib/evertoken"]
    assert "journal" in stack["volumes"]
    assert "EVERTOKEN_JOURNAL_DIR=/var/lib/evertoken/journal" in (root / "Dockerfile").read_text(encoding="utf-8")


def test_a_worker_may_finish_a_refresh_before_it_is_killed(services: dict[str, Any], root: Path) -> None:
    """The time to stop is longer than a worker takes at most to end by itself, in compose and in the units."""
    longest = Settings.model_fields["lease_seconds"].default + GOODBYE_SECONDS + CLOSING_SECONDS
    units = [path.read_text(encoding="utf-8") for path in (root / "deploy/systemd").glob("*worker*.service")]

    assert all(seconds(services[name]["stop_grace_period"]) > longest for name in ("worker-refresh", "worker-pull"))
    assert len(units) == 2
    for unit in units:
        assert "KillMode=mixed" in unit
        assert int(re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[0]) > longest


def test_redis_neither_evicts_nor_forgets_and_asks_for_a_password(services: dict[str, Any]) -> None:
    """Its memory policy is noeviction, its log of writes is on, and its password comes from a file."""
    command = " ".join(services["redis"]["command"])

    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command
    assert "--proto-max-bulk-len 1mb" in command
    assert "requirepass" in command
    assert "/run/secrets/redis_password" in command


def test_the_queues_of_both_workers_are_all_queues(services: dict[str, Any]) -> None:
    """Refreshes have a worker of their own; pulls and upkeep share the other."""
    queues = {name: re.findall(r"-Q (\S+)", services[name]["command"]) for name in ("worker-refresh", "worker-pull")}

    assert queues == {"worker-refresh": ["refresh"], "worker-pull": ["pull,default"]}


def test_units_run_the_commands_of_the_stack(services: dict[str, Any], root: Path) -> None:
    """Compose and systemd start the same processes with the same options."""
    for name in ("worker-refresh", "worker-pull", "beat", "desk", "exporter"):
        unit = (root / f"deploy/systemd/evertoken-{name}.service").read_text(encoding="utf-8")
        command = re.findall(r"^ExecStart=/opt/evertoken/bin/(.*)$", unit, re.MULTILINE)

        assert [line.replace("%%", "%") for line in command] == [services[name]["command"]]


def test_every_image_has_an_exact_tag(services: dict[str, Any], project: dict[str, Any], root: Path) -> None:
    """Foreign images name a full version, with a digest or not, ours the project's, and the build's two stages one."""
    version = project["project"]["version"]
    stages = re.findall(r"^FROM (\S+)", (root / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)

    assert {services[name]["image"] for name in OURS} == {f"evertoken:{version}"}
    for image in [services[name]["image"] for name in set(services) - set(OURS)] + stages:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-[a-z-]+)?(@sha256:[0-9a-f]{64})?$", image), image
    assert len(set(stages)) == 1


def test_the_image_runs_as_nobody_special_and_installs_by_hash(root: Path) -> None:
    """The last user is not root, and nothing comes from an index without its hash."""
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    joined = text.replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel)[^&\n]*", joined)

    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert len(installs) == 4
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
    assert "PYTHONDONTWRITEBYTECODE=1" in text.split("FROM")[-1]


def test_every_service_has_a_bound_of_memory_and_of_processes(either: Any) -> None:
    """None takes the host from the others."""
    assert [
        name for name, service in either["services"].items() if not {"mem_limit", "pids_limit"} <= service.keys()
    ] == []


def test_a_port_that_is_scraped_or_asked_is_the_one_that_is_served(services: dict[str, Any], root: Path) -> None:
    """Prometheus asks where the services listen, and each check of a page asks at its own port."""
    scraped = yaml.safe_load((root / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    static = {each["job_name"]: each["static_configs"][0]["targets"] for each in scraped if "static_configs" in each}
    (found,) = [each["dns_sd_configs"][0] for each in scraped if "dns_sd_configs" in each]

    exporter = Settings.model_fields["exporter_port"].default
    assert static == {"evertoken": [f"exporter:{exporter}"], "evertoken-flower": ["flower:5555"]}
    for name in found["names"]:
        assert services[name]["environment"]["EVERTOKEN_METRICS_PORT"] == str(found["port"]), name
        assert services[name]["environment"]["EVERTOKEN_METRICS_ADDRESS"] == str(IPv4Address(0)), name
    assert {"worker-refresh", "worker-pull", "desk"} == set(found["names"])
    for name, port in PAGES.items():
        assert f"127.0.0.1:{port}/" in " ".join(services[name]["healthcheck"]["test"]), name


def test_the_board_is_where_grafana_looks_for_it(services: dict[str, Any], root: Path) -> None:
    """The provider's path is a mounted file, its source has the name that a datasource of the board takes."""
    provider = yaml.safe_load((root / "deploy/grafana/dashboards/evertoken.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((root / "deploy/grafana/datasources/prometheus.yml").read_text(encoding="utf-8"))
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])

    assert mounts["./deploy/prometheus/board.json"] == provider["providers"][0]["options"]["path"]
    assert mounts["./deploy/grafana"] == "/etc/grafana/provisioning"
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    assert source["datasources"][0]["type"] == "prometheus"


def test_the_board_of_accounts_is_read_by_the_dashboards_role(services: dict[str, Any], root: Path) -> None:
    """Grafana finds the board beside its provider, and its source has the role's name and its password as a file."""
    provider = yaml.safe_load((root / "deploy/grafana/dashboards/evertoken.yml").read_text(encoding="utf-8"))
    source = yaml.safe_load((root / "deploy/grafana/datasources/postgresql.yml").read_text(encoding="utf-8"))
    board = json.loads((root / "deploy/grafana/accounts.json").read_text(encoding="utf-8"))
    (accounts,), (found,) = provider["providers"][1:], source["datasources"]

    assert accounts["options"]["path"] == "/etc/grafana/provisioning/accounts.json"
    assert found["type"] == board["templating"]["list"][0]["query"]
    assert (found["user"], found["jsonData"]["database"]) == (
        DASHBOARD,
        services["postgres"]["environment"]["POSTGRES_DB"],
    )
    assert found["secureJsonData"] == {"password": "$__file{/run/secrets/dashboard_password}"}
    assert "dashboard_password" in services["grafana"]["secrets"]
    assert "dashboard_password" in services["migrate"]["secrets"]
    assert {name for name, service in services.items() if "dashboard_password" in service.get("secrets", ())} == {
        "grafana", "migrate"
    }  # fmt: skip


def test_the_image_says_what_it_is_and_how_it_is(services: dict[str, Any], project: dict[str, Any], root: Path) -> None:
    """Its labels have the project's version and licence; its own health check is that of the workers."""
    text = (root / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text))
    (check,) = re.findall(r"^HEALTHCHECK (.*?) CMD (.*)$", text, re.MULTILINE)
    ours = services["worker-refresh"]["healthcheck"]
    options = {
        f"--{name.replace('_', '-')}={ours[name]}" for name in ("interval", "timeout", "retries", "start_period")
    }

    assert labels["version"] == project["project"]["version"]
    assert labels["licenses"] == project["project"]["license"]
    assert json.loads(check[1])[2].replace('"', "") == ours["test"][1].replace("$$", "$")
    assert options == set(check[0].split())
