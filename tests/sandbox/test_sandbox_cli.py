"""`celery -A worker sandbox serve` from a shell's point of view."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.cli.sandbox import sandbox

CELERY = str(Path(sys.executable).with_name("celery"))


def test_serve_says_where_it_listens_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    """One JSON line has the address; the sandbox answers there; Ctrl-C ends it with exit status 0."""
    command = [CELERY, "sandbox", "serve", "--json", "--ledger", str(tmp_path / "ledger.jsonl"), "--rotation", "same"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = json.loads(process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", said["port"], timeout=10)
        connection.request("POST", "/_sandbox/grants", json.dumps({"count": 2}))
        grants = json.loads(connection.getresponse().read())["grants"]
        connection.close()
        process.send_signal(signal.SIGINT)

        assert process.wait(10) == 0
        assert process.stderr.read() == b""
    assert said["url"] == f"http://127.0.0.1:{said['port']}/open_api"
    assert len(grants) == len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--expires-in", "0"], "--expires-in: must be at least 1"),
        (["--rotation", "odd"], "'odd' is not one of"),
        (["--port", "70000"], "--port: must be at most 65535"),
        (["--port", "many"], "'many' is not a valid integer"),
        (["--scopes", ""], "--scopes: at least one name"),
        (["--first-day", "soon"], "--first-day: soon is no date as YYYY-MM-DD"),
        (["--ledger", "/proc/nowhere/ledger"], "the sandbox cannot start"),
    ],
)
def test_wrong_options_end_with_a_sentence_and_status_2(arguments: list[str], words: str) -> None:
    """Wrong use says what is wrong, without a traceback."""
    result = CliRunner().invoke(sandbox, ["serve", *arguments])

    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
