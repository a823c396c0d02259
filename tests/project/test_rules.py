"""The alert rules and the board in deploy/prometheus: they use metrics that exist, fire and clear."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.debian import program

STEPS = 120
WELL = {
    'evertoken_creator_seconds_without_token_total{cause="late"}': f"0x{STEPS}",
    'evertoken_fleet_grants{state="active"}': f"1000x{STEPS}",
    "evertoken_exporter_read_timestamp_seconds": f"0+60x{STEPS}",
    "evertoken_fleet_oldest_due_seconds": f"3x{STEPS}",
    "evertoken_fleet_beat_silent_seconds": f"4x{STEPS}",
    "evertoken_fleet_workers": f"2x{STEPS}",
    "evertoken_fleet_brake": f"0x{STEPS}",
    "evertoken_fleet_hold": f"0x{STEPS}",
    "evertoken_fleet_paused_least_seconds_left": f"80000x{STEPS}",
    "evertoken_fleet_quota_paused_seconds": f"0x{STEPS}",
    "evertoken_fleet_quota_headroom": f"8x{STEPS}",
    'evertoken_fleet_key_held{key_id="1"}': f"1x{STEPS}",
    'evertoken_fleet_seals{key_id="1"}': f"1000x{STEPS}",
    "evertoken_fleet_notices_late_seconds": f"2x{STEPS}",
    'evertoken_worker_silent_seconds{instance="a"}': f"1x{STEPS}",
    'evertoken_journal_oldest_seconds{instance="a"}': f"2x{STEPS}",
    "evertoken_fleet_broker_up": f"1x{STEPS}",
    'evertoken_fleet_oldest_pull_seconds{resource="videos"}': f"0x{STEPS}",
    "evertoken_fleet_redis_up": f"1x{STEPS}",
    'evertoken_desk_refused_total{instance="d"}': f"7x{STEPS}",
    'evertoken_facts_total{fact="journal.alarm",instance="a"}': f"3x{STEPS}",
    'up{job="evertoken-worker",instance="a"}': f"1x{STEPS}",
}
BAD = {
    "EvertokenCreatorsWithoutToken": {'evertoken_creator_seconds_without_token_total{cause="late"}': f"0+1200x{STEPS}"},
    "EvertokenExporterAway": dict.fromkeys((name for name in WELL if "instance" not in name), f"_x{STEPS}"),
    "EvertokenDatabaseAway": {"evertoken_exporter_read_timestamp_seconds": f"0x{STEPS}"},
    "EvertokenNotRefreshing": {"evertoken_fleet_oldest_due_seconds": f"0+60x{STEPS}"},
    "EvertokenBeatSilent": {"evertoken_fleet_beat_silent_seconds": f"0+60x{STEPS}"},
    "EvertokenNoWorkers": {"evertoken_fleet_workers": f"0x{STEPS}"},
    "EvertokenAppStopped": {"evertoken_fleet_brake": f"1x{STEPS}"},
    "EvertokenRefusalsHeld": {"evertoken_fleet_hold": f"1x{STEPS}"},
    "EvertokenPausedTokenEnds": {"evertoken_fleet_paused_least_seconds_left": f"7000x{STEPS}"},
    "EvertokenQuotaPaused": {"evertoken_fleet_quota_paused_seconds": f"3600x{STEPS}"},
    "EvertokenLittleHeadroom": {"evertoken_fleet_quota_headroom": f"1.9x{STEPS}"},
    "EvertokenKeyMissing": {'evertoken_fleet_key_held{key_id="1"}': f"0x{STEPS}"},
    "EvertokenNoticesLate": {"evertoken_fleet_notices_late_seconds": f"0+60x{STEPS}"},
    "EvertokenPullsLate": {'evertoken_fleet_oldest_pull_seconds{resource="videos"}': f"172000+60x{STEPS}"},
    "EvertokenJournalWaits": {'evertoken_journal_oldest_seconds{instance="a"}': f"0+60x{STEPS}"},
    "EvertokenWorkerSilent": {'evertoken_worker_silent_seconds{instance="a"}': f"0+60x{STEPS}"},
    "EvertokenRedisAway": {"evertoken_fleet_redis_up": f"0x{STEPS}", "evertoken_fleet_broker_up": f"0x{STEPS}"},
    "EvertokenRabbitAway": {"evertoken_fleet_broker_up": f"0x{STEPS}"},
    "EvertokenDeskFull": {'evertoken_desk_refused_total{instance="d"}': f"0+1x{STEPS}"},
    "EvertokenErrorLogged": {'evertoken_facts_total{fact="journal.alarm",instance="a"}': f"3x104 4x{STEPS}"},
    "EvertokenTargetAway": {'up{job="evertoken-worker",instance="a"}': f"0x{STEPS}"},
}
"""What makes each rule fire, and no other."""
ALREADY_AT_FIRST = {'evertoken_facts_total{fact="journal.alarm",instance="a"}': f"_x104 3x{STEPS - 104}"}
"""A process that logged errors before its first scrape."""


@pytest.fixture(scope="module")
def rules(root: Path) -> dict[str, Any]:
    """The rules by name."""
    text = (root / "deploy/prometheus/rules.yml").read_text(encoding="utf-8")
    return {rule["alert"]: rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}


def metrics_of(root: Path) -> set[str]:
    """Return every metric that docs/metrics.md has; a test beside the exporter compares that page with the code."""
    page = (root / "docs/metrics.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `(evertoken_\w+)", page, re.MULTILINE))


def test_every_rule_uses_metrics_that_exist_and_says_how_urgent_it_is(rules: dict[str, Any], root: Path) -> None:
    """Whoever is woken knows why; tests/project/test_runbook.py follows the link to what to do."""
    known = metrics_of(root)
    for name, rule in rules.items():
        used = set(re.findall(r"evertoken_\w+", rule["expr"]))

        assert used or rule["expr"].startswith("up{"), name
        assert used <= known, name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"]["summary"].endswith("."), name


def test_every_rule_has_a_case_in_which_it_fires(rules: dict[str, Any]) -> None:
    """A rule without one might never fire."""
    assert BAD.keys() == rules.keys()


def test_the_board_shows_metrics_that_exist(root: Path) -> None:
    """A panel of a metric that is gone would be empty, and look well."""
    board = json.loads((root / "deploy/prometheus/board.json").read_text(encoding="utf-8"))
    known = {name.removesuffix("_bucket") for name in metrics_of(root)}
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    used = {name.removesuffix("_bucket") for expression in asked for name in re.findall(r"evertoken_\w+", expression)}

    assert len(asked) >= 10
    assert used <= known
    assert "evertoken_creator_seconds_without_token_total" in used
    assert any("flower_" in expression for expression in asked)


def test_each_panel_shows_the_chosen_installations(root: Path) -> None:
    """Each series that is asked for is limited to them; all are shown at first, also targets without the label."""
    board = json.loads((root / "deploy/prometheus/board.json").read_text(encoding="utf-8"))
    (chosen,) = [each for each in board["templating"]["list"] if each["name"] == "installation"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    series = [found for each in asked for found in re.findall(r"(?:evertoken|flower)_\w+(\{[^}]*\})?", each)]

    assert chosen["query"] == "label_values(evertoken_fleet_grants, installation)"
    assert (chosen["includeAll"], chosen["allValue"], chosen["current"]["value"]) == (True, ".*", "$__all")
    assert len(series) >= len(asked)
    assert [each for each in series if 'installation=~"$installation"' not in each] == []


@pytest.mark.slow_suite
@pytest.mark.parametrize(("alert", "wrong"), [(None, {}), *BAD.items(), ("EvertokenErrorLogged", ALREADY_AT_FIRST)])
def test_a_rule_fires_alone_and_only_when_it_should(
    alert: str | None, wrong: dict[str, str], rules: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    """Promtool evaluates all rules over two hours in which one thing is wrong, or nothing is."""
    promtool = program("promtool", "prometheus")
    series = WELL | wrong
    cases = [
        {
            "eval_time": "110m",
            "alertname": name,
            "exp_alerts": [
                {"exp_labels": {**rule["labels"], **LABELS.get(name, {})}, "exp_annotations": rule["annotations"]}
            ]
            if name == alert
            else [],
        }
        for name, rule in rules.items()
    ]
    test = {
        "rule_files": [str(root / "deploy/prometheus/rules.yml")],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": cases,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))

    done = subprocess.run(
        [promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow_suite
def test_prometheus_takes_the_configuration(root: Path) -> None:
    """Promtool reads it with the rules that it names."""
    promtool = program("promtool", "prometheus")
    done = subprocess.run(
        [promtool, "check", "config", root / "deploy/prometheus/prometheus.yml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


LABELS: dict[str, dict[str, str]] = {
    "EvertokenKeyMissing": {"key_id": "1"},
    "EvertokenPullsLate": {"resource": "videos"},
    "EvertokenJournalWaits": {"instance": "a"},
    "EvertokenWorkerSilent": {"instance": "a"},
    "EvertokenDeskFull": {"instance": "d"},
    "EvertokenErrorLogged": {"fact": "journal.alarm", "instance": "a"},
    "EvertokenTargetAway": {"instance": "a", "job": "evertoken-worker"},
}
"""Labels that a rule's alert has from its metric."""
