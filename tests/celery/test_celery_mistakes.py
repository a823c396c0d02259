"""An operator's mistake on Celery's own command line ends in one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from flower.options import options

from tests.support.daemon import READY_SECONDS, Daemon
from tests.support.restartable import Restartable
from worker.mistakes import mistake_of_flower, mistake_of_options, split_command
from worker.sandbox.broker import connect

NewDaemon = Callable[..., Daemon]

pytestmark = [pytest.mark.slow_suite, pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)]


def sentence(result: subprocess.CompletedProcess[str], status: int) -> str:
    """Return the one line that a command ended with."""
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("{")]

    assert "Traceback" not in result.stdout + result.stderr
    assert result.returncode == status, result.stderr
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    "command",
    [
        ("call", "tasks.refresh.scan_due"),
        *(
            pytest.param(command, marks=pytest.mark.slow_suite)
            for command in (
                ("purge", "--force"),
                ("list", "bindings"),
                ("amqp", "queue.purge"),
                ("migrate", "redis://127.0.0.1:{port}/0", "redis://127.0.0.1:{port}/1"),
            )
        ),
    ],
    ids=" ".join,
)
def test_redis_away_is_a_sentence_that_names_address_and_setting(
    command: tuple[str, ...], new_daemon: NewDaemon, free_port: int, database_kind: str
) -> None:
    """The error shows the address without its password."""
    daemon = new_daemon(REDIS_URL=f"redis://:CANARY@127.0.0.1:{free_port}/0")

    said = sentence(daemon.run(*(part.format(port=free_port) for part in command)), 1)

    assert f"127.0.0.1:{free_port}" in said
    assert "EVERTOKEN_REDIS_URL" in said
    assert "CANARY" not in said


def test_a_result_that_is_not_kept_points_to_what_is(new_daemon: NewDaemon, database_kind: str) -> None:
    """Results would be one more place for what a task knows."""
    assert "grants explain" in sentence(new_daemon().run("result", "8d6d2d6e"), 1)


def test_a_task_that_nobody_knows_is_not_published(new_daemon: NewDaemon, database_kind: str) -> None:
    """A worker would drop it, and who typed it would wait."""
    said = sentence(new_daemon().run("call", "tasks.refresh.scan_deu"), 2)

    assert "tasks.refresh.scan_deu" in said
    assert "tasks.refresh.scan_due" in said


@pytest.mark.parametrize(("option", "queues"), [("-Q", "refesh"), ("-Q", "refresh,pul"), ("-X", "refesh")])
def test_a_queue_that_nobody_fills_is_refused(
    new_daemon: NewDaemon, option: str, queues: str, database_kind: str
) -> None:
    """A worker of a mistyped queue would look healthy and do nothing, or do what it was to leave out."""
    said = sentence(new_daemon().run("worker", option, queues), 2)

    assert queues.rpartition(",")[2] in said
    assert "default, pull, refresh" in said


def test_flowers_port_in_use_is_a_sentence(new_daemon: NewDaemon, free_port: int, database_kind: str) -> None:
    """A second Flower, or another server on its port."""
    with socket.create_server(("127.0.0.1", free_port)):
        daemon = new_daemon()
        daemon.environ["FLOWER_BASIC_AUTH"] = "operator:a password"
        said = sentence(daemon.run("flower", "--address=127.0.0.1", f"--port={free_port}"), 1)

    assert "--port" in said


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_pool_that_is_not_offered_is_refused(new_daemon: NewDaemon, pool: str, database_kind: str) -> None:
    """By the name that was typed, and whether its library is installed or not."""
    result = new_daemon().run_module("worker.cli.console", "worker", "-P", pool)

    assert f"the worker pool {pool} is not offered; use `-P threads`" in sentence(result, result.returncode)
    assert result.returncode in {1, 2}


@pytest.fixture
def flower_options() -> Iterator[None]:
    """Flower's options as they are without any that is given."""
    usual = options.port
    yield
    options.port = usual


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        ([], {"FLOWER_PORT": "abc"}, "FLOWER_PORT: abc"),
        ([], {"FLOWER_PORT": "99999999"}, "FLOWER_PORT must be a port"),
        ([], {"FLOWER_DEBUG": "maybe"}, "FLOWER_DEBUG: maybe"),
        ([], {"FLOWER_TASK_RUNTIME_METRIC_BUCKETS": "1,x"}, "FLOWER_TASK_RUNTIME_METRIC_BUCKETS: 1,x"),
        ([], {"FLOWER_PURGE_OFFLINE_WORKERS": "often"}, "FLOWER_PURGE_OFFLINE_WORKERS: often"),
        (["--port=abc"], {}, "--port: abc"),
        (["--port", "5556"], {}, "--port=VALUE"),
        (["--prot=5556"], {}, "no option --prot"),
        (["--port=5556", "--url-prefix=x", "--debug", "--help"], {"FLOWER_BASIC_AUTH": "a:b", "FLOWER_X": "y"}, None),
    ],
)
def test_a_wrong_option_of_flower_is_named(
    words: list[str], environ: dict[str, str], expected: str | None, flower_options: None, database_kind: str
) -> None:
    """A value of another kind, a port that is none, and an option that Flower would pass over."""
    said = mistake_of_flower(words, environ)

    assert said is None if expected is None else expected in str(said)


def test_flower_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, database_kind: str
) -> None:
    """The wheel alone does not bring it."""
    monkeypatch.setattr("importlib.util.find_spec", {"flower": None}.get)

    assert mistake_of_flower([], {}) == "Flower is not installed: install Evertoken with its extra `flower`"


@pytest.mark.parametrize(
    ("words", "environ", "expected"),
    [
        (["--conf=/nosuch/conf.py"], {}, "there is no file or folder /nosuch/conf.py"),
        ([], {"FLOWER_PORT": "abc"}, "FLOWER_PORT: abc"),
        (["--address=300.1.1.1"], {"FLOWER_BASIC_AUTH": "a:b"}, "--address"),
        ([], {"FLOWER_BASIC_AUTH": "a:b", "FLOWER_ADDRESS": "192.0.2.1"}, "FLOWER_ADDRESS"),
        ([], {"EVERTOKEN_SCAN_SECONDS": "abc"}, "EVERTOKEN_SCAN_SECONDS"),
    ],
)
def test_what_flower_cannot_start_with_is_a_sentence(
    new_daemon: NewDaemon, words: list[str], environ: dict[str, str], expected: str, database_kind: str
) -> None:
    """An option, an address that is not of this machine, a setting of ours."""
    daemon = new_daemon()
    daemon.environ |= environ
    result = daemon.run_module("worker.cli.console", "flower", *words)

    assert expected in sentence(result, result.returncode)
    assert result.returncode in {1, 2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("worker", "--pidfile", "/nosuch/worker.pid"), "/nosuch"),
        (("worker", "--uid", "nosuch"), "nosuch"),
        (("worker", "--include", "nosuch.tasks"), "there is no module nosuch"),
        (("beat", "--scheduler", "nosuch:Scheduler"), "there is no module nosuch"),
        (("beat", "--pidfile", "/nosuch/beat.pid"), "/nosuch/beat.pid"),
    ],
    ids=" ".join,
)
def test_a_place_or_name_that_is_not_there_is_a_sentence_that_names_it(
    new_daemon: NewDaemon, words: tuple[str, ...], expected: str, database_kind: str
) -> None:
    """Folders, users and modules that a worker or beat is started with."""
    result = new_daemon().run(*words)
    last = result.stderr.strip().splitlines()[-1]

    assert result.returncode in {1, 2}
    assert expected in last, result.stderr
    assert last.startswith(("error: ", "evertoken: "))
    assert "Traceback" not in result.stdout + result.stderr


def test_the_log_of_a_worker_goes_to_the_file_of_its_option(
    new_daemon: NewDaemon, wait_until: Callable[..., None], database_kind: str
) -> None:
    """From the first line on, and through our formatter."""
    daemon = new_daemon()
    worker = daemon.worker("worker", "--logfile", "said-%n.log", "--loglevel", "INFO")
    said = daemon.folder / "said-worker.log"
    wait_until(lambda: said.exists() and " ready." in said.read_text(), READY_SECONDS)
    daemon.stop(worker)

    assert all(json.loads(line)["event"] for line in said.read_text().splitlines())
    assert b'"event"' not in worker.log.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["-A", "worker", "flower", "--port=1"], ("flower", ["--port=1"])),
        (["--app=worker", "-q", "worker", "-c", "1"], ("worker", ["-c", "1"])),
        (["grants", "show", "flower"], ("grants", ["show", "flower"])),
        (["--version"], ("", [])),
    ],
)
def test_the_command_is_found_behind_the_options_before_it(
    arguments: list[str], found: tuple[str, list[str]], database_kind: str
) -> None:
    """The name of the app is no command, and a creator named flower is not Flower."""
    assert split_command(arguments) == found


@pytest.fixture
def restartable(wait_until: Callable[..., None]) -> Iterator[Restartable]:
    """A Redis of the test's own."""
    with TemporaryDirectory() as folder:
        server = Restartable(Path(folder), wait_until)
        yield server
        server.kill()


def test_beat_reports_an_outage_of_redis_in_two_lines(
    new_daemon: NewDaemon, restartable: Restartable, wait_until: Callable[..., None], database_kind: str
) -> None:
    """Celery logs two stacks for each message, which is one every few seconds."""
    daemon = new_daemon(REDIS_URL=restartable.url, SCAN_SECONDS="0.5")
    beat = daemon.beat()
    daemon.wait_ready(wait_until, beat)

    def logged() -> list[str]:
        lines = [json.loads(line) for line in beat.log.read_text().splitlines() if line.startswith("{")]
        return [line["event"] for line in lines if line["event"].startswith("message.")]

    def ticked() -> int:
        return Path(daemon.environ["EVERTOKEN_RUN_DIR"], "beat").stat().st_mtime_ns

    with connect(restartable.url) as client:
        wait_until(lambda: client.llen("evertoken:refresh") > 0, READY_SECONDS)
    restartable.kill()
    wait_until(lambda: logged() == ["message.unpublished"], READY_SECONDS)
    seen = ticked()
    wait_until(lambda: ticked() > seen, READY_SECONDS)
    restartable.start()
    wait_until(lambda: logged() == ["message.unpublished", "message.published"], READY_SECONDS)
    daemon.stop(beat)

    log = beat.log.read_text()
    assert "Traceback" not in log
    assert "Message Error" not in log


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-A", "worker", "--config", "nosuch", "beat"], "--config is not offered"),
        (["--config=nosuch", "worker", "-c", "1"], "--config is not offered"),
        (["-A", "worker", "--loader", "a:B", "beat"], "--loader is not offered"),
        (["-A", "worker", "--result-backend", "nosuch://", "worker"], "results of tasks are not kept"),
        (["-A", "worker", "beat", "--config", "nosuch"], None),
        (["-A", "worker", "flower", "--conf=x"], None),
        (["-A", "worker", "-b", "redis://h/0", "inspect", "ping"], None),
        ([], None),
    ],
)
def test_options_of_celery_that_do_nothing_here_are_refused(
    arguments: list[str], expected: str | None, database_kind: str
) -> None:
    """Before the command they are ours to refuse; behind it they are the command's own."""
    mistake = mistake_of_options(arguments)

    assert (mistake is None) is (expected is None)
    assert (expected or "") in (mistake or "")
