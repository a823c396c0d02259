"""The command that an operator types beside the units of systemd has what the units have."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from worker.consumer import CLOSING_SECONDS, GOODBYE_SECONDS
from worker.policy.hanging import LOOKS
from worker.settings import Settings
from worker.store.models import METADATA
from worker.store.schema import VERSIONS
from worker.watchdog import FEED_SECONDS

DOCTOR: Final = "evertoken-doctor.service"
BACKUP: Final = "backup-evertoken.service"
ONCE: Final = {DOCTOR, BACKUP}
"""Units that timers start."""
SECRETS: Final = ("database_url", "redis_url", "tiktok_app_secret", "keyring", "notice_secret")


def make_executable(path: Path, *lines: str) -> None:
    """Write a shell script that stands in for a program of the host."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)


def run_by_hand(root: Path, host: Path, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command on a host of ours, where `runuser` prints the user and goes on."""
    make_executable(host / "path/runuser", 'echo "as $2" >&2', "shift 3", 'exec "$@"')
    make_executable(host / "bin/evertoken", 'printf "%s\\n" "$@"', "env", "cat")
    environ = {"PATH": f"{host / 'path'}:{os.environ['PATH']}", "UNITS_ETC": str(host), "UNITS_BIN": str(host / "bin")}
    environ["UNITS_HOME"] = str(host)
    return subprocess.run(
        [root / "deploy/systemd/evertoken", *words],
        env=environ, input=text, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_a_command_by_hand_has_the_settings_secrets_and_user_of_the_units(root: Path, tmp_path: Path) -> None:
    """Values are taken as they stand: a shell would run some of what is in them."""
    uri = "https://app.example/cb?a=1&b=$(touch harm)"
    (tmp_path / "env").write_text(f"# a remark\n\nEVERTOKEN_TIKTOK_APP_ID=7\nEVERTOKEN_TIKTOK_REDIRECT_URI={uri}")
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text(f"the {name}\n")

    done = run_by_hand(root, tmp_path, "grants", "import", "-", "a b", text="line\n")

    assert (done.returncode, done.stderr) == (0, "as evertoken\n")
    lines = done.stdout.splitlines()
    assert lines[:4] == ["grants", "import", "-", "a b"]
    assert lines[-1] == "line"
    assert f"EVERTOKEN_TIKTOK_REDIRECT_URI={uri}" in lines
    assert {f"EVERTOKEN_{name.upper()}=the {name}" for name in SECRETS} <= set(lines)
    assert f"EVERTOKEN_JOURNAL_DIR={tmp_path}/journal" in lines
    for unit in (root / "deploy/systemd").glob("*worker*.service"):
        text = unit.read_text()
        assert "Environment=EVERTOKEN_JOURNAL_DIR=/var/lib/evertoken/journal\n" in text
        assert all(f"LoadCredential={name}:/etc/evertoken/secrets/{name}\n" in text for name in SECRETS)


def test_a_command_by_hand_runs_with_the_path_of_cron(root: Path, tmp_path: Path) -> None:
    """It lacks the folder of `runuser`, which here finds no such user, or may not become one."""
    (tmp_path / "env").write_text("")
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text(f"the {name}\n")
    environ = {"PATH": "/usr/bin:/bin", "UNITS_ETC": str(tmp_path), "UNITS_BIN": "/no", "UNITS_HOME": str(tmp_path)}
    done = subprocess.run(
        [root / "deploy/systemd/evertoken", "alive"],
        env=environ, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.stderr.startswith("runuser: ")


def test_only_migrations_by_hand_are_the_owners(root: Path, tmp_path: Path) -> None:
    """`evertoken db` takes the owner's address if there is one; every other command has the workers'."""
    (tmp_path / "env").write_text("")
    (tmp_path / "secrets").mkdir()
    for name in (*SECRETS, "owner_database_url"):
        (tmp_path / "secrets" / name).write_text(f"the {name}\n")

    assert "EVERTOKEN_DATABASE_URL=the owner_database_url\n" in run_by_hand(root, tmp_path, "db", "upgrade").stdout
    assert "EVERTOKEN_DATABASE_URL=the database_url\n" in run_by_hand(root, tmp_path, "doctor").stdout


def test_rabbitmqs_address_is_the_one_secret_that_need_not_be_there(root: Path, tmp_path: Path) -> None:
    """With the file a command by hand has it, and each unit by one drop-in; without the file Redis is the broker."""
    (tmp_path / "env").write_text("")
    (tmp_path / "secrets").mkdir()
    for name in SECRETS:
        (tmp_path / "secrets" / name).write_text(f"the {name}\n")

    assert "EVERTOKEN_BROKER_URL" not in run_by_hand(root, tmp_path, "doctor").stdout
    (tmp_path / "secrets/broker_url").write_text("the broker_url\n")
    assert "EVERTOKEN_BROKER_URL=the broker_url\n" in run_by_hand(root, tmp_path, "doctor").stdout
    drop_in = [line for line in (root / "deploy/systemd/rabbitmq.conf").read_text().splitlines() if line[0] != "#"]
    assert drop_in == [
        "[Service]",
        "LoadCredential=broker_url:/etc/evertoken/secrets/broker_url",
        "Environment=EVERTOKEN_BROKER_URL_FILE=%d/broker_url",
    ]
    # A drop-in for a prefix is read for every unit of that prefix; a backup needs no password of RabbitMQ.
    assert {name for name in units(root) if not name.startswith("evertoken-")} == {BACKUP}
    page = (root / "docs/operations.md").read_text(encoding="utf-8")
    assert "`deploy/systemd/rabbitmq.conf` to `/etc/systemd/system/evertoken-.service.d`" in page


def test_a_secret_that_is_not_there_ends_the_command(root: Path, tmp_path: Path) -> None:
    """It would otherwise run against another database."""
    (tmp_path / "env").write_text("EVERTOKEN_TIKTOK_APP_ID=7\n")

    done = run_by_hand(root, tmp_path, "doctor")

    assert done.returncode != 0
    assert "database_url" in done.stderr
    assert done.stdout == ""


def units(root: Path) -> dict[str, list[str]]:
    """Return the lines of each unit, by its name."""
    return {path.name: path.read_text().splitlines() for path in (root / "deploy/systemd").glob("*.service")}


def test_every_unit_is_shut_in_as_the_others_are(root: Path) -> None:
    """None has a right that the others lack, from its first line about rights to its last line."""
    shut = {name: lines[lines.index("NoNewPrivileges=yes") :] for name, lines in units(root).items()}

    assert len(shut) == 8
    assert len({"\n".join(lines).partition("\n\n[Install]")[0].strip() for lines in shut.values()}) == 1
    for name, lines in units(root).items():
        assert {"UMask=0077", "LimitCORE=0", "MemoryMax=512M"} <= set(lines)
        assert ("Restart=always" in lines) is (name not in ONCE)


def test_a_timer_runs_the_doctor_every_few_minutes(root: Path) -> None:
    """It has what workers have; what does not hold fails the unit, and nothing but the timer starts it."""
    lines, timer = units(root)[DOCTOR], (root / "deploy/systemd/evertoken-doctor.timer").read_text().splitlines()
    worker = units(root)["evertoken-worker-refresh.service"]
    shared = ("LoadCredential=", "EnvironmentFile=", "User=", "Environment=EVERTOKEN_KEYRING", "StateDirectory=")

    assert {"Type=oneshot", "ExecStart=/opt/evertoken/bin/evertoken doctor"} <= set(lines)
    assert [line for line in lines if line.startswith(shared)] == [line for line in worker if line.startswith(shared)]
    assert "[Install]" not in lines
    assert {"OnBootSec=5min", "OnUnitInactiveSec=5min", "WantedBy=timers.target"} <= set(timer)


def test_a_timer_makes_a_backup_every_hour(root: Path) -> None:
    """As a user whom PostgreSQL lets in without a password, into a folder that nobody else may enter."""
    lines = units(root)[BACKUP]
    timer = (root / "deploy/systemd/backup-evertoken.timer").read_text().splitlines()
    start = "ExecStart=/usr/local/sbin/evertoken-backup /var/lib/evertoken-backup 14 pg_dump --format custom evertoken"

    assert {"Type=oneshot", "User=postgres", "StateDirectory=evertoken-backup", "StateDirectoryMode=0700"} <= set(lines)
    assert start in lines
    assert not any(line.startswith(("LoadCredential=", "EnvironmentFile=")) for line in lines)
    assert "[Install]" not in lines
    assert {"OnCalendar=hourly", "Persistent=true", "WantedBy=timers.target"} <= set(timer)


def test_systemd_watches_what_feeds_it_and_gives_a_hung_worker_time_to_store(root: Path) -> None:
    """Worker and beat are watched; the time is longer than they need to find a hang, and to end by themselves."""
    watched = {
        name: int(line.partition("=")[2])
        for name, lines in units(root).items()
        for line in lines
        if line.startswith("WatchdogSec=")
    }
    fields = Settings.model_fields
    lease = fields["lease_seconds"].default
    longest = lease + max(GOODBYE_SECONDS, CLOSING_SECONDS + fields["hang_seconds"].default / LOOKS) + CLOSING_SECONDS

    assert set(watched) == {name for name in units(root) if "flower" not in name and name not in ONCE}
    assert all(seconds > longest for seconds in watched.values())
    assert all(seconds >= 3 * FEED_SECONDS for seconds in watched.values())


def test_flowers_unit_has_no_key_and_no_journal(root: Path) -> None:
    """It runs as a user of its own, listens on this host alone, and is given the two secrets that it needs."""
    lines = units(root)["evertoken-flower.service"]

    secrets = [line.partition(":")[0] for line in lines if line.startswith("LoadCredential=")]
    assert secrets == ["LoadCredential=redis_url", "LoadCredential=flower_auth"]
    assert {"DynamicUser=yes", "FLOWER_ADDRESS=127.0.0.1"} <= {line.removeprefix("Environment=") for line in lines}
    assert "Environment=FLOWER_BASIC_AUTH_FILE=%d/flower_auth" in lines
    assert not any(line.startswith(("User=", "StateDirectory=")) or "/var/lib/evertoken" in line for line in lines)
    start = next(line for line in lines if line.startswith("ExecStart="))
    assert start.endswith("celery -A worker flower")


def test_the_way_out_names_everything_that_is_left_behind(root: Path) -> None:
    """Units, volumes, folders and tables: what a version adds must be added there too."""
    page = (root / "docs/operations.md").read_text(encoding="utf-8")
    leaving = page.partition("## Removing Evertoken")[2].partition("\n## ")[0]
    composed = [(root / name).read_text("utf-8") for name in ("docker-compose.yml", "deploy/rabbitmq.compose.yml")]
    parts = [text.partition("\nvolumes:")[2] for text in composed]
    volumes = [name for part in parts for name in re.findall(r"^  (\w+): \{\}", part, re.MULTILINE)]
    places = {
        word for lines in units(root).values() for line in lines for word in re.findall(r"/(?:etc|opt)/evertoken", line)
    }

    assert volumes == ["journal", "postgres", "redis", "prometheus", "grafana", "rabbitmq"]
    named = [f"the volume `{name}`" for name in volumes] + [f"`{place}`" for place in places]
    named += [name.removesuffix(".service") for name in units(root)]
    tables = leaving.partition("drop these tables:")[2].partition(".")[0]
    assert [name for name in named if name not in leaving] == []
    assert set(re.findall(r"`(\w+)`", tables)) == set(METADATA.tables) | {VERSIONS.name}
